-- TOKEN=$(target/quick/million-rps token --sub wrk) wrk -t1 -c64 -d10s -s wrk-scripts/post.lua http://localhost:8080
-- Creates todos; each 202 says that one is durable. It fills the list of the server that it is pointed at.

-- wrk ends with a panic of its Lua when init() fails, which reads like a fault of the script.
local function token_of_environment()
  local token = os.getenv("TOKEN") or ""
  if token ~= "" then return token end
  io.stderr:write("TOKEN is not set, and writes need one; the first line of this script says how:\n",
    "  TOKEN=$(target/quick/million-rps token --sub wrk) wrk -s wrk-scripts/post.lua ...\n")
  os.exit(2)
end

function init()
  local token = token_of_environment()
  local fields = { ["Authorization"] = "Bearer " .. token, ["Content-Type"] = "application/json" }
  one_request = wrk.format("POST", "/todos", fields, '{"title":"Made by wrk","description":"wrk-scripts/post.lua"}')
end

function request()
  return one_request
end
