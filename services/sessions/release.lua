-- The turn neither writes nor waits any more. KEYS: writer, waiting, asked (one hash slot). ARGV: turn.
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return 1
