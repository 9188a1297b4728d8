-- Appends to many turns, each judged by itself.
-- KEYS for each turn: head, events, running. ARGV for each turn: id, epoch, first seq, last seq, events,
-- retention in ms if the last event is terminal, else ''.
-- Replies for each turn: verdict, last seq, bytes, ms since a reader elsewhere was seen or -1.
local KEPT, CANCELLED, REALIGN, FENCED, GONE = 0, 1, 2, 3, 4
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local out = {}
for i = 0, #KEYS / 3 - 1 do
  local head, events, running = KEYS[i * 3 + 1], KEYS[i * 3 + 2], KEYS[i * 3 + 3]
  local turn, epoch, first, last = ARGV[i * 6 + 1], ARGV[i * 6 + 2], tonumber(ARGV[i * 6 + 3]), tonumber(ARGV[i * 6 + 4])
  local keep = ARGV[i * 6 + 6]
  local h = redis.call('HMGET', head, 'epoch', 'seq', 'bytes', 'cancelled', 'watched')
  local verdict, seq, bytes = GONE, 0, 0
  if h[1] then
    seq, bytes, verdict = tonumber(h[2]), tonumber(h[3]), KEPT
    if h[1] ~= epoch then verdict = FENCED
    elseif last > seq and first ~= seq + 1 then verdict = REALIGN
    elseif last > seq then
      redis.call('XADD', events, ARGV[i * 6 + 4] .. '-0', 'e', epoch, 'b', ARGV[i * 6 + 5])
      if seq == 0 then redis.call('PEXPIRE', events, redis.call('PTTL', head)) end
      seq, bytes = last, bytes + #ARGV[i * 6 + 5]
      redis.call('HSET', head, 'seq', seq, 'bytes', bytes)
      if keep ~= '' then
        redis.call('HSET', head, 'ended', 1)
        redis.call('HDEL', running, turn)
        redis.call('PEXPIRE', head, keep)
        redis.call('PEXPIRE', events, keep)
      end
    end
    if verdict == KEPT and h[4] then verdict = CANCELLED end
  end
  local n = i * 4
  out[n + 1], out[n + 2], out[n + 3] = verdict, seq, bytes
  out[n + 4] = h[5] and ms - tonumber(h[5]) or -1
end
return out
