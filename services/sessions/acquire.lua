-- Makes a turn the only one that may append, or says which one is before it.
-- KEYS: head, writer, waiting (by arrival), asked (by when they last asked) (one hash slot).
-- ARGV: turn, lease in ms, whether it waits, now, since when a waiting turn must have asked, bound on waiting ones.
-- Replies {"ok", turn whose time it is} or {refusal}.
if redis.call('EXISTS', KEYS[1]) == 0 then return {'absent'} end
for _, turn in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', ARGV[5])) do
  redis.call('ZREM', KEYS[3], turn)
  redis.call('ZREM', KEYS[4], turn)
end
local before = redis.call('GET', KEYS[2]) or redis.call('ZRANGE', KEYS[3], 0, 0)[1] or ARGV[1]
if before == ARGV[1] then
  redis.call('ZREM', KEYS[3], ARGV[1])
  redis.call('ZREM', KEYS[4], ARGV[1])
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
elseif ARGV[3] == '1' then
  if not redis.call('ZSCORE', KEYS[3], ARGV[1]) then
    if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[6]) then return {'full'} end
    local last = redis.call('ZRANGE', KEYS[3], -1, -1, 'WITHSCORES')
    redis.call('ZADD', KEYS[3], (tonumber(last[2]) or 0) + 1, ARGV[1])
  end
  redis.call('ZADD', KEYS[4], ARGV[4], ARGV[1])
  redis.call('PEXPIRE', KEYS[3], 60000)
  redis.call('PEXPIRE', KEYS[4], 60000)
end
return {'ok', before}
