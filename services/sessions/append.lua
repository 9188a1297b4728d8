-- Appends to a session once. KEYS: head, messages (one hash slot).
-- ARGV: expected version, operation id, bound on messages, bound on bytes, bytes of the new ones,
--       expiry as wall time, then the new messages.
-- Replies {"ok", version, created, expires} or {refusal}.
local head = redis.call('HMGET', KEYS[1], 'version', 'operation', 'count', 'bytes', 'ttl', 'created', 'expires')
if not head[1] then return {'absent'} end
if ARGV[2] ~= '' and head[2] == ARGV[2] then return {'ok', head[1], head[6], head[7]} end
if head[1] ~= ARGV[1] then return {'conflict'} end
local added = #ARGV - 6
local count, bytes = tonumber(head[3]) + added, tonumber(head[4]) + tonumber(ARGV[5])
if count > tonumber(ARGV[3]) then return {'messages'} end
if bytes > tonumber(ARGV[4]) then return {'bytes'} end
for i = 7, #ARGV do redis.call('RPUSH', KEYS[2], ARGV[i]) end
local version = redis.call('HINCRBY', KEYS[1], 'version', 1)
local ttl = tonumber(head[5])
local expires = string.format('%.6f', tonumber(ARGV[6]) + ttl / 1000)
redis.call('HSET', KEYS[1], 'operation', ARGV[2], 'count', count, 'bytes', bytes, 'expires', expires)
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('PEXPIRE', KEYS[2], ttl)
return {'ok', tostring(version), head[6], expires}
