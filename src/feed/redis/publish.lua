-- Takes over the changes of one batch (or of one part of a large one), all or nothing. Run by the workers.
--
-- KEYS  1 todos, 2 offsets, 3 changes (what they hold: redis.rs)
-- ARGV  1 "final" or "part"; 2 milliseconds that offsets and changes are kept; 3 entries and 4 bytes that changes may
--       hold; 5 number of steps, then partition, from ("-" when there is none), to of each; number of deleted todos,
--       then id and "created_at id" of each; number of todos, then id and JSON of each. Deletes come first: a todo that
--       was deleted and made again is among both
-- Returns "applied"; "known" when the feed has all of it already; or, when it finds that it never got the steps before
-- these, why: the list is then dropped, so that somebody loads it anew.
local todos, offsets, changes = KEYS[1], KEYS[2], KEYS[3]
local next_argument = 5
local function take()
    next_argument = next_argument + 1
    return ARGV[next_argument - 1]
end

local steps, known, gap = {}, 0, nil
for i = 1, tonumber(take()) do
    local step = { partition = take(), from = take(), to = take() }
    steps[i] = step
    local at = redis.call('HGET', offsets, step.partition)
    if at and (step.from == '-' and at == step.to or step.from ~= '-' and tonumber(step.to) <= tonumber(at)) then
        known = known + 1
    elseif (at or '-') ~= step.from then
        gap = 'partition ' .. step.partition .. ' stood at ' .. (at or 'no offset') .. ', the batch starts at ' .. step.from
    end
end
if #steps > 0 and known == #steps then
    return 'known'
end
if known > 0 and not gap then
    gap = 'a batch is known in part'
end

-- Every entry has a number, so that a reader notices when one is missing, and the epoch of the list that it changes,
-- empty while there is none.
local epoch = redis.call('HGET', todos, '@epoch') or ''
local function append(...)
    local number = redis.call('HINCRBY', offsets, '@number', 1)
    local id = redis.call('XADD', changes, 'MAXLEN', '~', ARGV[3], '*', 'epoch', epoch, 'number', number, ...)
    redis.call('HSET', offsets, '@last', id)
end
local result = 'applied'
if gap and epoch ~= '' then
    -- First, because a full Redis takes it, and whatever else a script writes after its first write.
    redis.call('UNLINK', todos)
    append('lost', gap)
    epoch = ''
    result = gap
end

local entry = {}
for _, step in ipairs(steps) do
    entry[#entry + 1] = 'step'
    entry[#entry + 1] = step.partition .. ' ' .. step.from .. ' ' .. step.to
    if ARGV[1] == 'final' then
        redis.call('HSET', offsets, step.partition, step.to)
    end
end
if ARGV[1] ~= 'final' then
    entry[#entry + 1] = 'more'
    entry[#entry + 1] = 'follows'
end
-- A call of Redis costs more than the row that it writes: one for all deletes, one for all todos.
local count, first = tonumber(take()), next_argument
local gone = {}
for i = 1, count do
    gone[i] = ARGV[first + 2 * i - 2]
    entry[#entry + 1] = 'delete'
    entry[#entry + 1] = ARGV[first + 2 * i - 1]
end
if count > 0 and epoch ~= '' then
    redis.call('HDEL', todos, unpack(gone))
end
next_argument = first + 2 * count
count, first = tonumber(take()), next_argument
for i = first + 1, first + 2 * count, 2 do
    entry[#entry + 1] = 'put'
    entry[#entry + 1] = ARGV[i]
end
if count > 0 and epoch ~= '' then
    redis.call('HSET', todos, unpack(ARGV, first, first + 2 * count - 1))
end
append(unpack(entry))

redis.call('PEXPIRE', offsets, ARGV[2])
redis.call('PEXPIRE', changes, ARGV[2])
if redis.call('MEMORY', 'USAGE', changes, 'SAMPLES', 0) > tonumber(ARGV[4]) then
    redis.call('XTRIM', changes, 'MAXLEN', math.floor(redis.call('XLEN', changes) / 2))
end
return result
