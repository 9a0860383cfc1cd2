-- Writes rows into the list that one process is loading, as long as that process holds the lock, and keeps both alive.
--
-- KEYS  1 loading (the lock), 2 the new list
-- ARGV  1 the lock's token; 2 milliseconds that the lock and the new list are kept from now on; 3 number of rows, then id
--       and JSON of each; then the ids of rows to remove
-- Returns 1, or 0 when another process holds the lock now.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
local rows_end = 3 + 2 * tonumber(ARGV[3])
for i = 4, rows_end, 2 do
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
end
for i = rows_end + 1, #ARGV do
    redis.call('HDEL', KEYS[2], ARGV[i])
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
