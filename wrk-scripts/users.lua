-- wrk -t1 -c64 -d10s -s wrk-scripts/users.lua http://localhost:8080 -- 10000 16
-- The first page of unlike users in turn, `user-0` to one less than the first argument, as many requests together as the second
-- says: no prepared page fits the next request.

local requests = {}
local depth, next_at = 16, 0

function init(arguments)
  depth = tonumber(arguments[2] or 16)
  for user = 0, tonumber(arguments[1] or 10000) - 1 do
    requests[user] = wrk.format("GET", "/todos?user_id=user-" .. user .. "&limit=10")
  end
end

function request()
  local together = {}
  for number = 1, depth do
    together[number] = requests[next_at]
    next_at = (next_at + 1) % (#requests + 1)
  end
  return table.concat(together)
end
