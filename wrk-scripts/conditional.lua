-- wrk -t1 -c64 -d10s -s wrk-scripts/conditional.lua http://localhost:8080 -- 10
-- A client that has the first page already: each request names the entity tag of the last 200 and gets 304, until the list
-- changes. The argument is the limit.

local path

function init(arguments)
  path = "/todos?limit=" .. (arguments[1] or "10")
  next_request = wrk.format("GET", path)
end

function request()
  return next_request
end

function response(status, headers)
  if status == 200 then
    next_request = wrk.format("GET", path, { ["If-None-Match"] = headers["ETag"] })
  end
end
