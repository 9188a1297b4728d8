-- Notes the time in a running turn's field. KEYS: head. ARGV: field. Replies its last seq, -1 if it does not run.
local h = redis.call('HMGET', KEYS[1], 'seq', 'ended')
if not h[1] or h[2] then return -1 end
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)))
return tonumber(h[1])
