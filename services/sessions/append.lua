-- Appends a turn to a session once. KEYS: head, messages, turns, operations, key, summary, writer (one hash slot).
-- ARGV: expected version, operation id, bound on messages, bound on bytes, bytes of the new ones,
--       now as wall time, whether the new ones are sealed, model, index that they were sealed for or '',
--       then the new messages.
-- Replies {"ok", version, created, expires} or {refusal}.
local head = redis.call('HMGET', KEYS[1], 'version', 'count', 'bytes', 'ttl', 'created', 'expires', 'sealed')
if not head[1] then return {'absent'} end
local done = ARGV[2] ~= '' and redis.call('HGET', KEYS[4], ARGV[2])
if done then return {'ok', done, head[5], head[6]} end
if head[1] ~= ARGV[1] or (ARGV[9] ~= '' and ARGV[9] ~= head[2]) then return {'conflict'} end
local writer = redis.call('GET', KEYS[7])
if writer and writer ~= ARGV[2] then return {'busy'} end
if head[7] ~= ARGV[7] then return {'sealed'} end
local first, added = tonumber(head[2]), #ARGV - 9
local count, bytes = first + added, tonumber(head[3]) + tonumber(ARGV[5])
if count > tonumber(ARGV[3]) then return {'messages'} end
if bytes > tonumber(ARGV[4]) then return {'bytes'} end
for i = 10, #ARGV do redis.call('RPUSH', KEYS[2], ARGV[i]) end
local version = tostring(redis.call('HINCRBY', KEYS[1], 'version', 1))
local turn = {ARGV[2], version, ARGV[6], head[2], tostring(added), ARGV[5], ARGV[8]}
redis.call('RPUSH', KEYS[3], cjson.encode(turn))
if ARGV[2] ~= '' then redis.call('HSET', KEYS[4], ARGV[2], version) end
local ttl = tonumber(head[4])
local expires = string.format('%.6f', tonumber(ARGV[6]) + ttl / 1000)
redis.call('HSET', KEYS[1], 'count', count, 'bytes', bytes, 'expires', expires)
for i = 1, 6 do redis.call('PEXPIRE', KEYS[i], ttl) end
return {'ok', version, head[5], expires}
