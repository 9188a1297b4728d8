-- Keeps a summary unless one that covers as much is kept. KEYS: head, summary (one hash slot).
-- ARGV: messages covered, whether it is sealed, the summary. Replies {"ok"} or {refusal}.
local head = redis.call('HMGET', KEYS[1], 'count', 'ttl', 'sealed')
if not head[1] then return {'absent'} end
if head[3] ~= ARGV[2] then return {'sealed'} end
if tonumber(ARGV[1]) > tonumber(head[1]) then return {'covers'} end
local kept = redis.call('HGET', KEYS[2], 'covers')
if kept and tonumber(kept) >= tonumber(ARGV[1]) then return {'ok'} end
redis.call('HSET', KEYS[2], 'covers', ARGV[1], 'text', ARGV[3])
redis.call('PEXPIRE', KEYS[2], redis.call('PTTL', KEYS[1]))
return {'ok'}
