"""Uploads so many bytes with both clients of Python's library, and prints the statuses."""
import http.client
import sys
import urllib.error
import urllib.parse
import urllib.request

target, body = sys.argv[1], bytes(int(sys.argv[2]))
place = urllib.parse.urlsplit(target)
connection = http.client.HTTPConnection(place.netloc)
connection.request("POST", place.path, body, {"Content-Type": "application/json"})
print(connection.getresponse().status)
try:
    print(urllib.request.urlopen(urllib.request.Request(target, body, {"Content-Type": "application/json"})).status)
except urllib.error.HTTPError as error:
    print(error.code)
