// What runs on the server, one script an operation.

package redisstorage

import "github.com/redis/go-redis/v9"

// A token is one hash, so that it is evicted with its mark:
//
//	r  the record, as Record.MarshalBinary has it
//	s  its stamp; the one in the record is of no meaning
//	m  the mark
//
// The first line of a script makes a replica refuse it, even where it only
// reads. Those that may run when the memory is used up say so there.
//
// Lua has only floating-point numbers. Stamps below 2^53 are exact in them,
// but tostring would round them to 14 digits.
const (
	scriptHead    = "#!lua\n"
	scriptHeadOOM = "#!lua flags=allow-oom\n"

	// entry returns stamp and mark under key, 0 for what isn't there. A
	// record with an unreadable stamp is missing; an entry with an
	// unreadable mark is lost as a whole, since a record without its mark
	// would revive a revoked token.
	scriptEntry = `
local function number(text)
  if not text then return 0 end
  local n = string.match(text, '^%d+$') and tonumber(text)
  return n and n < 9007199254740992 and n
end
local function entry(key)
  local v = redis.call('HMGET', key, 's', 'm')
  local stamp, mark = number(v[1]), number(v[2])
  if mark then return stamp or 0, mark end
  redis.call('DEL', key)
  return 0, 0
end
`
)

// KEYS: tokens. A key that holds something else doesn't spoil the others.
var loadScript = redis.NewScript(scriptHeadOOM + `
local found = {}
for i, key in ipairs(KEYS) do
  local v = redis.pcall('HMGET', key, 'r', 's', 'm')
  if v.err then
    if string.sub(v.err, 1, 9) ~= 'WRONGTYPE' then return v end
    v = {false, false, false}
  end
  found[i] = v
end
return found
`)

// What the first field of saveScript's answer means. The others are a record,
// a stamp and a mark.
const (
	saveSeenOther = int64(iota) // not stored: the stamp is not the one seen
	saveStored
	saveFull // not stored: there is no higher stamp
)

// KEYS: the token, its ancestors. ARGV: the stamp seen, the floor, how long the
// record is of use and how long its token, in ms, 0 for ever; the record.
//
// The key has to outlive each token that its mark may condemn some day: those
// saved here, and those made from them, which are saved under other keys. So
// its expiry is only ever put off, and saving a token puts off those of its
// ancestors. Somebody who knows of stamps here when there is nothing has seen
// it being lost. Then nobody knows how long those tokens live, and the key has
// no expiry at all.
var saveScript = redis.NewScript(scriptHead + scriptEntry + `
local seen, floor = tonumber(ARGV[1]), tonumber(ARGV[2])
local stamp, mark = entry(KEYS[1])
if stamp ~= seen then
  local v = redis.call('HMGET', KEYS[1], 'r', 's', 'm')
  return {0, v[1], v[2], v[3]}
end
stamp = math.max(stamp, mark, floor) + 1
if stamp >= 9007199254740992 then return {2, false, false, false} end

local function keep(key, left, life)
  if life == 0 then
    redis.call('PERSIST', key)
  elseif life > left then
    redis.call('PEXPIRE', key, string.format('%.0f', life))
  end
end
local left = redis.call('PTTL', KEYS[1])
stamp = string.format('%.0f', stamp)
redis.call('HSET', KEYS[1], 'r', ARGV[5], 's', stamp)
if left >= 0 or left == -2 and floor == 0 then
  keep(KEYS[1], left, tonumber(ARGV[3]))
end
for i = 2, #KEYS do
  left = redis.call('PTTL', KEYS[i])
  if left >= 0 then keep(KEYS[i], left, tonumber(ARGV[4])) end
end
return {1, false, stamp, string.format('%.0f', mark)}
`)

// KEYS: the token. ARGV: the stamp, the channel, the key as it is told there.
// A key that this makes has no expiry: nobody knows how long the tokens live
// that it condemns.
var revokeScript = redis.NewScript(scriptHeadOOM + scriptEntry + `
local _, mark = entry(KEYS[1])
if tonumber(ARGV[1]) > mark then
  redis.call('HSET', KEYS[1], 'm', ARGV[1])
  redis.call('PUBLISH', ARGV[2], ARGV[3])
end
`)

// KEYS: tokens. ARGV: the channel, the keys as they are told there.
var deleteScript = redis.NewScript(scriptHeadOOM + `
for i, key in ipairs(KEYS) do
  if redis.call('DEL', key) == 1 then
    redis.call('PUBLISH', ARGV[1], ARGV[i + 1])
  end
end
`)

// KEYS: the lock. ARGV: the owner, the lease in ms. Returns 1 if the owner has
// the lock, even if it had it already: go-redis sends a command again if it
// missed the answer.
var lockScript = redis.NewScript(scriptHead + `
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
`)

// KEYS: the lock. ARGV: the owner, the lease in ms. Returns 1 if the owner
// still has the lock.
var renewScript = redis.NewScript(scriptHeadOOM + `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
`)

// KEYS: the lock. ARGV: the owner. Returns 1 if it was the owner's.
var unlockScript = redis.NewScript(scriptHeadOOM + `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
`)

// KEYS: the failure. Returns it and the milliseconds left, or nothing.
var loadFailureScript = redis.NewScript(scriptHeadOOM + `
local v = redis.pcall('GET', KEYS[1])
if type(v) == 'table' then
  if string.sub(v.err, 1, 9) ~= 'WRONGTYPE' then return v end
  return false
end
return v and {v, redis.call('PTTL', KEYS[1])}
`)
