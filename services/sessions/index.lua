-- Notes a session in its tenant's index and forgets up to 100 whose time is over, so that the index
-- stays as large as what lives. KEYS: places, expiries (one hash slot).
-- ARGV: now, longest life in ms, then (to note one) place, expiry.
if ARGV[3] then
  redis.call('ZADD', KEYS[1], 0, ARGV[3])
  redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3])
  for _, key in ipairs(KEYS) do
    if redis.call('PTTL', key) < tonumber(ARGV[2]) then redis.call('PEXPIRE', key, ARGV[2]) end
  end
end
local over = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, 100)
if #over > 0 then
  redis.call('ZREM', KEYS[1], unpack(over))
  redis.call('ZREM', KEYS[2], unpack(over))
end
return #over
