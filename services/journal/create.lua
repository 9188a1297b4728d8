-- Stores a turn and claims its idempotency key. KEYS: head, running, and the claim if there is one.
-- ARGV: turn, gateway, ms to the deadline, ms that the turn is kept at most, digest of the request,
--       ms that the claim is kept, id of a turn that may lose the claim, then the head's other fields and values.
-- Replies '' or what the claim holds: the id of another turn, a space, the digest of its request.
if KEYS[3] then
  local held = redis.call('GET', KEYS[3])
  local holder = held and string.match(held, '^%S+')
  if held and holder ~= ARGV[1] and holder ~= ARGV[7] then return held end
  redis.call('SET', KEYS[3], ARGV[1] .. ' ' .. ARGV[5], 'PX', ARGV[6])
end
if redis.call('EXISTS', KEYS[1]) == 1 then return '' end
local now = redis.call('TIME')
local deadline = now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[3]
redis.call('HSET', KEYS[1], 'seq', 0, 'bytes', 0, 'gateway', ARGV[2], 'deadline', string.format('%.0f', deadline))
for i = 8, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return ''
