"""What schemathesis cannot know from the document: cursors that the server has given out, and when a write shows."""

import json
import os
import urllib.request

import schemathesis
from hypothesis import strategies

URL = os.environ["MILLION_RPS_URL"]
TOKEN = os.environ["MILLION_RPS_TOKEN"]


def cursors():
    """Any other text is refused, so no pattern makes one."""
    fields = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", "Prefer": "wait=10"}
    for number in range(20):
        body = json.dumps({"title": f"todo {number}"}).encode()
        urllib.request.urlopen(urllib.request.Request(f"{URL}/todos", body, fields), timeout=30).read()
    found = []
    for limit in range(1, 10):
        with urllib.request.urlopen(f"{URL}/todos?limit={limit}", timeout=30) as answer:
            found.append(answer.headers["Link"].split("cursor=")[1].split(">")[0])
    return found


schemathesis.openapi.format("cursor", strategies.sampled_from(cursors()))


@schemathesis.hook
def before_call(context, case, kwargs):
    # A read shows a write that was waited for; without the wait, a moment later.
    if case.method.upper() in ("POST", "PUT", "DELETE") and case.path.startswith("/todos"):
        case.headers = {**(case.headers or {}), "Prefer": "wait=10"}
    # Together they are refused, which no schema of a single parameter says.
    query = case.query or {}
    if case.path == "/todos/events" and "limit" in query and "user_id" in query:
        case.query = {name: value for name, value in query.items() if name != "limit"}
