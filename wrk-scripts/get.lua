-- wrk -t1 -c64 -d10s -s wrk-scripts/get.lua http://localhost:8080 -- 10
-- The first page, one request at a time on each connection. The argument is the limit; `all` asks for the whole list.

function init(arguments)
  local limit = arguments[1] or "10"
  local path = limit == "all" and "/todos" or "/todos?limit=" .. limit
  one_request = wrk.format("GET", path)
end

function request()
  return one_request
end
