-- Drops the list where it goes beyond the store: that was set back, as to an older copy of itself. Run by API processes, since
-- it may be that no worker is there to notice.
--
-- KEYS  1 todos, 2 offsets, 3 changes
-- ARGV  1 milliseconds that offsets and changes are kept; then partition and offset of each partition that the store knows
-- Returns the number of partitions in which the feed stood beyond the store.
local todos, offsets, changes = KEYS[1], KEYS[2], KEYS[3]
local stored = {}
for i = 2, #ARGV, 2 do
    stored[ARGV[i]] = ARGV[i + 1]
end
local epoch = redis.call('HGET', todos, '@epoch') or ''
local fields = redis.call('HGETALL', offsets)
local beyond, example = 0, nil
for i = 1, #fields, 2 do
    local partition, at = fields[i], fields[i + 1]
    local place = stored[partition]
    if string.sub(partition, 1, 1) ~= '@' and tonumber(at) > tonumber(place or '0') then
        beyond = beyond + 1
        example = 'partition ' .. partition .. ' stood at ' .. at .. ', the store was set back to ' .. (place or 'no offset')
        -- First, because a full Redis takes it, and whatever else a script writes after its first write.
        redis.call('UNLINK', todos)
        if place then
            redis.call('HSET', offsets, partition, place)
        else
            redis.call('HDEL', offsets, partition)
        end
    end
end
if beyond > 0 then
    -- Also while there is no list: whoever is loading one has to begin again.
    local number = redis.call('HINCRBY', offsets, '@number', 1)
    local id = redis.call('XADD', changes, '*', 'epoch', epoch, 'number', number, 'lost', example)
    redis.call('HSET', offsets, '@last', id)
    redis.call('PEXPIRE', offsets, ARGV[1])
    redis.call('PEXPIRE', changes, ARGV[1])
end
return beyond
