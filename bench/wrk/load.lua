-- One GET, sent again and again. Arguments: DEPTH [IF_NONE_MATCH]
-- The request text is made once, so that wrk does not call Lua for each request; with a depth above 1 it holds as many
-- requests, which wrk then sends together.

function init(arguments)
   local depth = tonumber(arguments[1])
   if arguments[2] then
      wrk.headers["If-None-Match"] = arguments[2]
   end
   local requests = string.rep(wrk.format(), depth)
   wrk.format = function() return requests end
end
