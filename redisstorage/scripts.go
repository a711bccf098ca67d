// The scripts that run on the server, a script for each operation.

package redisstorage

import "github.com/redis/go-redis/v9"

// The invariant: each key that a script writes has an expiry. Only a Delete, which
// replaces the record by a tombstone, brings the expiry of a token's key forward.
//
// A token is one hash, evicted with its mark:
//
//	r  the record, as Record.MarshalBinary writes it
//	s  the record's stamp, instead of the stamp in the encoding
//	m  the mark
//	g  the tombstone
//	k  the record's Keep, in ms
//	i  present if the useful life of the key is unknown
//
// A key with i expires after 400 days without a Load, so the keys of a departed tenant
// are removed.
//
// A script asks for the length of a value before the script reads the value: any client
// may have written a huge value.
//
// The first line of a script makes a replica refuse the script, even a script that only
// reads. With allow-oom a script runs while the memory is used up, too.
//
// Lua numbers are floating-point: exact for stamps below 2^53, but tostring rounds to 14
// digits.
const (
	scriptHead    = "#!lua\n"
	scriptHeadOOM = "#!lua flags=allow-oom\n"

	// read returns the stored record, stamp, mark and tombstone. A value that is too long
	// for its field comes back as "", which is never a valid field.
	//
	// entry returns the stamp, mark and tombstone under key, 0 for a missing field, and
	// the result of read. A record with an unreadable stamp counts as missing. If the
	// mark or the tombstone is unreadable, the whole entry is lost: the record alone
	// would revive a revoked token.
	//
	// has reports whether a caller who has seen a version may change the entry.
	//
	// keep postpones the expiry of key to life ms from now; 0 is an unknown life. left is
	// the key's PTTL from before the write. Our scripts leave no key without expiry (-1).
	scriptEntry = `
local idle, lost, day = 34560000000, 2592000000, 86400000
local function number(text)
  if not text then return 0 end
  local n = string.match(text, '^%d+$') and tonumber(text)
  return n and n < 9007199254740992 and n
end
local function read(key)
  local function field(name, longest)
    if redis.call('HSTRLEN', key, name) > longest then return '' end
    return redis.call('HMGET', key, name)[1]
  end
  return {field('r', 4194304), field('s', 16), field('m', 16), field('g', 16)}
end
local function entry(key)
  local v = read(key)
  local stamp, mark, gone = number(v[2]), number(v[3]), number(v[4])
  if mark and gone then return stamp or 0, mark, gone, v end
  redis.call('DEL', key)
  return 0, 0, 0, {false, false, false, false}
end
local function has(stamp, gone, seen)
  if stamp > 0 then return stamp == seen end
  return gone == 0 or gone == seen
end
local function text(number) return string.format('%.0f', number) end
local function keep(key, left, life)
  if life == 0 or left == -1 then
    redis.call('HSET', key, 'i', '1')
    life = math.max(life, idle)
  end
  if life > left then redis.call('PEXPIRE', key, text(life)) end
end
`
)

// KEYS: tokens. A key of another type counts as an empty entry. A key with less than a
// day to live keeps its expiry: Loads would have postponed an expiry of 400 days before.
var loadScript = redis.NewScript(scriptHeadOOM + scriptEntry + `
local found = {}
for i, key in ipairs(KEYS) do
  local unknown = redis.pcall('HSTRLEN', key, 'i')
  if type(unknown) == 'table' then
    if string.sub(unknown.err, 1, 9) ~= 'WRONGTYPE' then return unknown end
    found[i] = {false, false, false, false}
  else
    found[i] = read(key)
    local left = redis.call('PTTL', key)
    if left == -1 or unknown > 0 and left > day and left < idle - day then keep(key, left, idle) end
  end
end
return found
`)

// The first field of an answer of saveScript and deleteScript. A record, a stamp, a
// mark and a tombstone follow.
const (
	seenOther = int64(iota) // nothing changed: the entry has another version than the caller saw
	changed
	full // nothing changed: there is no higher stamp
)

// KEYS: the token, the token's ancestors. ARGV: the version seen; the floor; the useful
// life of the record and the life of the token, in ms, 0 for ever; the record; the
// record's Keep.
//
// A key has to outlive each token that the key's mark may revoke: the tokens saved under
// the key, and their descendants under other keys. So saving a token postpones the expiry
// of the token's ancestors. A floor above 0 on a missing key means that the entry was
// lost. The life of the lost tokens is unknown, so the key lives for at least 30 days.
var saveScript = redis.NewScript(scriptHead + scriptEntry + `
local seen, floor = tonumber(ARGV[1]), tonumber(ARGV[2])
local stamp, mark, gone, v = entry(KEYS[1])
if not has(stamp, gone, seen) then return {0, v[1], v[2], v[3], v[4]} end
stamp = math.max(stamp, mark, gone, floor) + 1
if stamp >= 9007199254740992 then return {2, false, false, false, false} end

local left, life = redis.call('PTTL', KEYS[1]), tonumber(ARGV[3])
redis.call('HSET', KEYS[1], 'r', ARGV[5], 's', text(stamp), 'k', ARGV[6])
if left == -2 and floor > 0 and life > 0 then life = math.max(life, lost) end
keep(KEYS[1], left, life)
for i = 2, #KEYS do
  left = redis.call('PTTL', KEYS[i])
  if left ~= -2 then keep(KEYS[i], left, tonumber(ARGV[4])) end
end
return {1, false, text(stamp), text(mark), text(gone)}
`)

// KEYS: the token. ARGV: the stamp, the channel, the message. A key that revokeScript
// creates lives for 30 days, since the life of the revoked tokens is unknown. A process
// that still knows the mark then writes the mark again.
var revokeScript = redis.NewScript(scriptHeadOOM + scriptEntry + `
local _, mark = entry(KEYS[1])
local left = redis.call('PTTL', KEYS[1])
if tonumber(ARGV[1]) > mark then
  redis.call('HSET', KEYS[1], 'm', ARGV[1])
  if left < 0 then keep(KEYS[1], left, lost) end
  redis.call('PUBLISH', ARGV[2], ARGV[3])
end
`)

// KEYS: the token. ARGV: the version seen, the channel, the message.
// The tombstone lives for 30 days, the Keep of the deleted record, or the rest of the
// record's known life, whichever is longest.
var deleteScript = redis.NewScript(scriptHeadOOM + scriptEntry + `
local key, seen = KEYS[1], tonumber(ARGV[1])
local stamp, mark, gone, v = entry(key)
if not has(stamp, gone, seen) then return {0, v[1], v[2], v[3], v[4]} end
gone = math.max(seen, mark, gone) + 1
if gone >= 9007199254740992 then return {2, false, false, false, false} end

local life = lost
if redis.call('HSTRLEN', key, 'k') <= 16 then
  life = math.max(life, number(redis.call('HMGET', key, 'k')[1]) or 0)
end
if redis.call('HSTRLEN', key, 'i') == 0 then
  life = math.max(life, redis.call('PTTL', key))
end
redis.call('DEL', key)
redis.call('HSET', key, 'm', text(mark), 'g', text(gone))
redis.call('PEXPIRE', key, text(life))
redis.call('PUBLISH', ARGV[2], ARGV[3])
return {1, false, false, text(mark), text(gone)}
`)

// holder returns the owner of the lock: false for a free lock, and "" for a foreign
// owner, since our owners have names of 26 letters. For a key of another type holder
// returns the error of the server, too.
const scriptHolder = `
local function holder()
  local length = redis.pcall('STRLEN', KEYS[1])
  if type(length) == 'table' then return '', length end
  if length == 0 then return false end
  return length <= 64 and redis.call('GET', KEYS[1]) or ''
end
`

// KEYS: the lock. ARGV: the owner, the lease in ms. Returns 1 if the owner has the lock,
// even if from an earlier call: go-redis sends a command again after a lost answer.
//
// A lock of this package expires within an hour. A lock with a later expiry or none,
// restored from a copy or written by another program, gets a tenth of a lease. If the
// owner is alive after all, the next renewal finds the lock gone.
var lockScript = redis.NewScript(scriptHead + scriptHolder + `
local owner, wrong = holder()
if owner and owner ~= ARGV[1] then
  local left = redis.call('PTTL', KEYS[1])
  if left < 0 or left > 3600000 then redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[2] / 10)) end
  return wrong or 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
`)

// KEYS: the lock. ARGV: the owner, the lease in ms. Returns 1 if the owner
// still has the lock.
var renewScript = redis.NewScript(scriptHeadOOM + scriptHolder + `
local owner, wrong = holder()
if owner ~= ARGV[1] then return wrong or 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
`)

// KEYS: the lock. ARGV: the owner. Returns 1 if the owner had the lock.
var unlockScript = redis.NewScript(scriptHeadOOM + scriptHolder + `
local owner, wrong = holder()
if owner ~= ARGV[1] then return wrong or 0 end
return redis.call('DEL', KEYS[1])
`)

// KEYS: the failure. Returns the failure and the milliseconds left, or nothing. A failure
// without expiry comes from another program and is deleted.
var loadFailureScript = redis.NewScript(scriptHeadOOM + `
local length = redis.pcall('STRLEN', KEYS[1])
if type(length) == 'table' then
  if string.sub(length.err, 1, 9) ~= 'WRONGTYPE' then return length end
  return false
end
local left = redis.call('PTTL', KEYS[1])
if left == -1 then redis.call('DEL', KEYS[1]) end
if left < 0 or length > 65536 then return false end
return {redis.call('GET', KEYS[1]), left}
`)

// KEYS: an unused key. ARGV: a channel. Returns the commands of this package that the
// user may not use on the key and the channel, and changes nothing. Some servers that are
// compatible with Redis can't check permissions; then the list is empty.
const probeSource = scriptHeadOOM + `
local refused = {}
if not redis.acl_check_cmd then return refused end
local function try(...)
  local known, allowed = pcall(redis.acl_check_cmd, ...)
  if not known or not allowed then refused[#refused + 1] = (...) end
end
local key, channel = KEYS[1], ARGV[1]
try('HMGET', key, 'm')
try('HSET', key, 'm', '0')
try('HSTRLEN', key, 'm')
try('GET', key)
try('SET', key, '0')
try('STRLEN', key)
try('DEL', key)
try('PTTL', key)
try('PEXPIRE', key, '1')
try('PUBLISH', channel, '')
try('SUBSCRIBE', channel)
try('UNSUBSCRIBE', channel)
try('PING')
return refused
`

var probeScript = redis.NewScript(probeSource)
