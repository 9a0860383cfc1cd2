-- One POST, sent again and again. Arguments: DEPTH TOKEN BODY
-- As load.lua: the request text is made once, and holds DEPTH requests.

function init(arguments)
   local depth = tonumber(arguments[1])
   local fields = { ["Authorization"] = "Bearer " .. arguments[2], ["Content-Type"] = "application/json" }
   local requests = string.rep(wrk.format("POST", nil, fields, arguments[3]), depth)
   wrk.format = function() return requests end
   request = function() return requests end
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      "RESULT %d %d %d %d %d\n",
      summary.requests - errors.status, summary.duration,
      errors.connect + errors.read + errors.write + errors.status + errors.timeout,
      latency:percentile(50), latency:percentile(99)))
end
