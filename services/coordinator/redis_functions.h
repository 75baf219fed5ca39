/* redis_functions.h - the Redis Functions through which every transition goes (Redis 7, Lua).
 *
 * They check everything before they write anything, since writes before an error are not rolled back. The first check
 * is the epoch: a coordinator that was replaced cannot change anything. The library's name stays the same when a
 * function changes: Redis allows a function name only once, and LOAD REPLACE replaces another build's functions.
 *
 * When Redis is full (maxmemory) it rejects functions without the flag allow-oom. All have it except the admission of a
 * task that was never handed out: only that makes memory grow, and skipping it loses nothing. Hand-outs, ends and
 * failures overwrite or free the entry of a known task. */
#ifndef MODE_COORDINATOR_REDIS_FUNCTIONS_H
#define MODE_COORDINATOR_REDIS_FUNCTIONS_H

#define REDIS_LIBRARY "mode_1"

/* mode_lead KEYS epoch | ARGV epoch             -> "OK", or error STALE_LEADER
 * mode_admit, mode_move
 *           KEYS epoch task ready inflight wait quarantined
 *           ARGV epoch key state fence attempt order until session failures sync service
 *                                               -> "OK", or error STALE_LEADER, BAD_STATE, STALE_FENCE
 *   sync "1": set the state unconditionally (rebuilding) */
#define REDIS_FUNCTIONS                                                                                                \
    "#!lua name=" REDIS_LIBRARY "\n"                                                                                   \
    "local allowed = {\n"                                                                                              \
    "  ready = {none=1, ready=1, leased=1, retry_wait=1, quarantined=1},\n"                                            \
    "  leased = {none=1, ready=1, retry_wait=1, leased=1},\n"                                                          \
    "  retry_wait = {leased=1},\n"                                                                                     \
    "  quarantined = {leased=1, ready=1, retry_wait=1, quarantined=1},\n"                                              \
    "  committed = {none=1, ready=1, leased=1, retry_wait=1, quarantined=1},\n"                                        \
    "  cancelled = {none=1, ready=1, leased=1, retry_wait=1, quarantined=1},\n"                                        \
    "}\n"                                                                                                              \
    "redis.register_function{function_name='mode_lead', flags={'allow-oom'}, callback=function(keys, args)\n"          \
    "  local now = tonumber(redis.call('GET', keys[1]) or '0')\n"                                                      \
    "  if now > tonumber(args[1]) then return redis.error_reply('STALE_LEADER ' .. now) end\n"                         \
    "  redis.call('SET', keys[1], args[1])\n"                                                                          \
    "  return redis.status_reply('OK')\n"                                                                              \
    "end}\n"                                                                                                           \
    "local function move(keys, args)\n"                                                                                \
    "  local leader = redis.call('GET', keys[1]) or '0'\n"                                                             \
    "  if tonumber(leader) ~= tonumber(args[1]) then return redis.error_reply('STALE_LEADER ' .. leader) end\n"        \
    "  local key, state, fence, sync = args[2], args[3], args[4], args[10] == '1'\n"                                   \
    "  local old = redis.call('HMGET', keys[2], 'state', 'fence')\n"                                                   \
    "  local from = old[1] or 'none'\n"                                                                                \
    "  if not allowed[state] then return redis.error_reply('BAD_STATE ' .. state) end\n"                               \
    "  if not sync then\n"                                                                                             \
    "    if not allowed[state][from] then return redis.error_reply('BAD_STATE ' .. from .. ' to ' .. state) end\n"     \
    "    local of = old[2] or '0'\n"                                                                                   \
    "    if #fence < #of or (#fence == #of and fence < of) then return redis.error_reply('STALE_FENCE ' .. of) end\n"  \
    "  end\n"                                                                                                          \
    "  redis.call('ZREM', keys[3], key)\n"                                                                             \
    "  redis.call('ZREM', keys[4], key)\n"                                                                             \
    "  redis.call('ZREM', keys[5], key)\n"                                                                             \
    "  redis.call('SREM', keys[6], key)\n"                                                                             \
    "  if state == 'committed' or state == 'cancelled' then\n"                                                         \
    "    redis.call('DEL', keys[2])\n"                                                                                 \
    "    return redis.status_reply('OK')\n"                                                                            \
    "  end\n"                                                                                                          \
    "  redis.call('HSET', keys[2], 'state', state, 'fence', fence, 'attempt', args[5], 'until', args[7],\n"            \
    "             'session', args[8], 'failures', args[9], 'service', args[11])\n"                                     \
    "  if state == 'ready' then redis.call('ZADD', keys[3], args[6], key)\n"                                           \
    "  elseif state == 'leased' then redis.call('ZADD', keys[4], args[7], key)\n"                                      \
    "  elseif state == 'retry_wait' then redis.call('ZADD', keys[5], args[7], key)\n"                                  \
    "  else redis.call('SADD', keys[6], key) end\n"                                                                    \
    "  return redis.status_reply('OK')\n"                                                                              \
    "end\n"                                                                                                            \
    "redis.register_function{function_name='mode_admit', callback=move}\n"                                             \
    "redis.register_function{function_name='mode_move', flags={'allow-oom'}, callback=move}\n"

#endif
