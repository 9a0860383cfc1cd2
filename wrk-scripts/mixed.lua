-- TOKEN=$(target/quick/million-rps token --sub wrk) wrk -t1 -c64 -d10s -s wrk-scripts/mixed.lua http://localhost:8080 -- 5
-- Reads and writes together; the argument is the share of writes in percent. Reads are first pages and single todos; writes
-- create, complete and, from a thousand on, delete todos of their own.

local IDS_MAX = 1000
-- Reads leave out as many of the newest todos, because a 202 promises that a todo is durable, not that the list has it
-- already, and as many of the oldest, because they may be deleted before the read arrives.
local MARGIN = 100
local fields, list_request, create_request
local writes_percent
-- Todos made in this run, oldest first; a delete takes the oldest.
local ids, first = {}, 1

-- wrk ends with a panic of its Lua when init() fails, which reads like a fault of the script.
local function token_of_environment()
  local token = os.getenv("TOKEN") or ""
  if token ~= "" then return token end
  io.stderr:write("TOKEN is not set, and writes need one; the first line of this script says how:\n",
    "  TOKEN=$(target/quick/million-rps token --sub wrk) wrk -s wrk-scripts/mixed.lua ...\n")
  os.exit(2)
end

function init(arguments)
  math.randomseed(1)
  writes_percent = tonumber(arguments[1] or 5)
  local token = token_of_environment()
  fields = { ["Authorization"] = "Bearer " .. token, ["Content-Type"] = "application/json" }
  list_request = wrk.format("GET", "/todos?limit=10")
  create_request = wrk.format("POST", "/todos", fields, '{"title":"Made by wrk"}')
end

function request()
  local made = #ids - first + 1
  if math.random() * 100 >= writes_percent then
    if made > 2 * MARGIN and math.random(4) == 1 then
      return wrk.format("GET", "/todos/" .. ids[math.random(first + MARGIN, #ids - MARGIN)])
    end
    return list_request
  end
  if made > IDS_MAX then
    first = first + 1
    return wrk.format("DELETE", "/todos/" .. ids[first - 1], fields)
  elseif made > 0 and math.random(2) == 1 then
    return wrk.format("PUT", "/todos/" .. ids[math.random(first, #ids)], fields, '{"completed":true}')
  end
  return create_request
end

function response(status, _, body)
  if status == 202 then
    local id = body:match('"id":"([^"]+)","message":"Todo creation queued"')
    if id then ids[#ids + 1] = id end
  end
end
