-- Compares where the feed stands with where the store stands, for the partitions that a worker takes over, and drops the
-- list where they differ: a worker died between its commit and its publishing.
--
-- KEYS  1 todos, 2 offsets, 3 changes
-- ARGV  1 milliseconds that offsets and changes are kept; then partition and offset of each partition
-- Returns the number of partitions that differed.
local todos, offsets, changes = KEYS[1], KEYS[2], KEYS[3]
local epoch = redis.call('HGET', todos, '@epoch') or ''
local different, example = 0, nil
for i = 2, #ARGV, 2 do
    local at = redis.call('HGET', offsets, ARGV[i])
    if at ~= ARGV[i + 1] then
        different = different + 1
        example = 'partition ' .. ARGV[i] .. ' stood at ' .. (at or 'no offset') .. ', the store at ' .. ARGV[i + 1]
        -- First, because a full Redis takes it, and whatever else a script writes after its first write.
        redis.call('UNLINK', todos)
        redis.call('HSET', offsets, ARGV[i], ARGV[i + 1])
    end
end
if different > 0 then
    -- Also while there is no list: whoever is loading one has to begin again.
    local number = redis.call('HINCRBY', offsets, '@number', 1)
    local id = redis.call('XADD', changes, '*', 'epoch', epoch, 'number', number, 'lost', example)
    redis.call('HSET', offsets, '@last', id)
end
redis.call('PEXPIRE', offsets, ARGV[1])
redis.call('PEXPIRE', changes, ARGV[1])
return different
