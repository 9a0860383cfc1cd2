-- Puts a loaded list in place of the old one, together with its place in the changes.
--
-- KEYS  1 todos, 2 offsets, 3 changes, 4 loading (the lock), 5 the new list
-- ARGV  1 the lock's token; 2 number of the last change that the new list holds; 3 its epoch; 4 milliseconds that the
--       list is kept; 5 milliseconds that offsets and changes are kept; then partition and offset of each partition
-- Returns {number, id} of the entry that tells of it; or false when another change has come in the meantime or another
-- process holds the lock.
local todos, offsets, changes, loading, new = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
if redis.call('GET', loading) ~= ARGV[1] or (redis.call('HGET', offsets, '@number') or '0') ~= ARGV[2] then
    return false
end
-- The field also makes an empty list a key that exists.
redis.call('HSET', new, '@epoch', ARGV[3])
redis.call('UNLINK', todos)
redis.call('RENAME', new, todos)
redis.call('UNLINK', offsets)
for i = 6, #ARGV, 2 do
    redis.call('HSET', offsets, ARGV[i], ARGV[i + 1])
end
local number = tonumber(ARGV[2]) + 1
local id = redis.call('XADD', changes, '*', 'epoch', ARGV[3], 'number', number, 'loaded', 'anew')
redis.call('HSET', offsets, '@number', number, '@last', id)
redis.call('PEXPIRE', todos, ARGV[4])
redis.call('PEXPIRE', offsets, ARGV[5])
redis.call('PEXPIRE', changes, ARGV[5])
redis.call('UNLINK', loading)
return { number, id }
