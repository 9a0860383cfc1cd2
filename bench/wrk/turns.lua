-- Requests that differ, in turn or at random. Arguments: FILE DEPTH ORDER
-- The file has the texts of GET requests, one behind the other; ORDER is `turn` or `random`. What a connection sends together
-- is made once, so that wrk does little for each request: a request of the turn stands at each place of a pipeline, and where
-- they come at random there are a thousand pipelines.

local PIPELINES = 1000
local pipelines = {}
local count = 0

function init(arguments)
   math.randomseed(1)
   local file = assert(io.open(arguments[1], "rb"))
   local requests = {}
   for request in file:read("*a"):gmatch(".-\r\n\r\n") do
      requests[#requests + 1] = request
   end
   file:close()
   local depth, is_random = tonumber(arguments[2]), arguments[3] == "random"
   for number = 1, is_random and PIPELINES or #requests do
      local pipeline = {}
      for place = 1, depth do
         pipeline[place] = requests[is_random and math.random(#requests) or (number + place - 2) % #requests + 1]
      end
      pipelines[number] = table.concat(pipeline)
   end
end

function request()
   count = count % #pipelines + 1
   return pipelines[count]
end
