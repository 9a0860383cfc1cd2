-- Reads and writes: of each hundred requests as many as PERCENT create a todo. Arguments: PERCENT TOKEN
-- Every request is one of two texts that are made once; which one follows from a counter, so all servers get the same.

local read, write, every
local count = 0

function init(arguments)
   every = math.floor(100 / tonumber(arguments[1]))
   read = wrk.format()
   local fields = { ["Authorization"] = "Bearer " .. arguments[2], ["Content-Type"] = "application/json" }
   local body = '{"title":"Made to be measured","description":"One of many writes between reads"}'
   write = wrk.format("POST", "/todos", fields, body)
end

function request()
   count = count + 1
   return count % every == 0 and write or read
end
