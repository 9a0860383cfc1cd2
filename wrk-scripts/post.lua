-- TOKEN=$(target/quick/million-rps token --sub wrk) wrk -t1 -c64 -d10s -s wrk-scripts/post.lua http://localhost:8080
-- Creates todos; each 202 says that one is durable. It fills the list of the server that it is pointed at.

function init()
  local token = os.getenv("TOKEN") or error("set TOKEN: the first line of this script says how")
  local fields = { ["Authorization"] = "Bearer " .. token, ["Content-Type"] = "application/json" }
  one_request = wrk.format("POST", "/todos", fields, '{"title":"Made by wrk","description":"wrk-scripts/post.lua"}')
end

function request()
  return one_request
end
