-- wrk -t1 -c64 -d10s -s wrk-scripts/pipelined.lua http://localhost:8080 -- 16 10
-- The first page, several requests in one write. The arguments are the depth of the pipeline and the limit. wrk counts each
-- response; its latency is that of a whole pipeline.

function init(arguments)
  local depth, limit = tonumber(arguments[1] or 16), arguments[2] or "10"
  many_requests = string.rep(wrk.format("GET", "/todos?limit=" .. limit), depth)
end

function request()
  return many_requests
end
