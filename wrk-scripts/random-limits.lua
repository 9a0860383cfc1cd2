-- wrk -t1 -c64 -d10s -s wrk-scripts/random-limits.lua http://localhost:8080 -- 1000
-- The first page with another limit in each request, from 1 to the argument: neither the last request nor a prepared page
-- fits the next one.

local requests = {}

function init(arguments)
  math.randomseed(1)
  for limit = 1, tonumber(arguments[1] or 1000) do
    requests[limit] = wrk.format("GET", "/todos?limit=" .. limit)
  end
end

function request()
  return requests[math.random(#requests)]
end
