-- Reads a turn, and makes another gateway its writer if asked. KEYS: head, running.
-- ARGV: turn, then nothing or the gateway that has it, the one that takes it and the least epoch that is new.
-- Replies {} or {ms to the deadline, field, value, ...}.
local head = redis.call('HGETALL', KEYS[1])
local h = {}
for i = 1, #head, 2 do h[head[i]] = head[i + 1] end
if ARGV[2] then
  if not h.epoch or h.ended then
    redis.call('HDEL', KEYS[2], ARGV[1])
    return {}
  end
  local again = h.gateway == ARGV[3] and h.before == ARGV[2] and ARGV[2] ~= ARGV[3]  -- the reply to the first try was lost
  if h.gateway ~= ARGV[2] and not again then return {} end
  if not again then
    h.epoch = string.format('%.0f', math.max(h.epoch + 1, tonumber(ARGV[4])))
    redis.call('HSET', KEYS[1], 'gateway', ARGV[3], 'before', ARGV[2], 'epoch', h.epoch)
    redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
    head = redis.call('HGETALL', KEYS[1])
  end
end
if not h.epoch then return {} end
local now = redis.call('TIME')
table.insert(head, 1, tonumber(h.deadline) - now[1] * 1000 - math.floor(now[2] / 1000))
return head
