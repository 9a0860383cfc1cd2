-- Marks the place in the changes from which a process that loads the list will follow them: an entry of its own, so that
-- number and id agree whatever happened to these keys before.
--
-- KEYS  1 offsets, 2 changes, 3 loading (the lock)
-- ARGV  1 the lock's token; 2 milliseconds that offsets and changes are kept
-- Returns {number, id} of the entry; or false when another process holds the lock.
if redis.call('GET', KEYS[3]) ~= ARGV[1] then
    return false
end
local number = redis.call('HINCRBY', KEYS[1], '@number', 1)
local id = redis.call('XADD', KEYS[2], '*', 'epoch', '', 'number', number, 'loading', 'from the store')
redis.call('HSET', KEYS[1], '@last', id)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return { number, id }
