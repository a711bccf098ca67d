// Where tokens live, and how one is written down. What makes a token live or
// dead is pipeline.go's.

package requestforge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/requestforge/requestforge/internal/redact"
)

// maxStamp is the highest stamp and the highest mark. Above it a store that
// knows only floating-point numbers (Lua in Redis, JSON elsewhere) would
// begin to round.
const maxStamp = 1<<53 - 1

// A Record is a token as a [Storage] keeps it, with what decides whether it
// is live.
//
// Printed, logged or encoded as JSON a Record shows no token. To store one
// use [Record.MarshalBinary].
type Record struct {
	// Key is the key that the record is saved under. Whoever calls Save
	// sets it; a Storage keeps it like any other field. A record that
	// comes back under another key is a miss, not a token.
	Key string

	// Token is what was fetched. A record without one can't be saved.
	//
	// Extra holds JSON values. They come back as encoding/json decodes
	// them, with each number as the [json.Number] that was saved, so a Go
	// int comes back as a json.Number and a struct as a map.
	Token *Token

	// Stamp orders the records of one key; the Storage gives it. In a
	// call of Save it is a floor instead: the highest stamp or mark of
	// this key that the caller knows of, so that stamps keep rising
	// even if the Storage has lost everything. It is below 2^53.
	Stamp uint64

	// Lineage is the stamp of each ancestor that the token was made from,
	// by the ancestor's key; where several paths meet, the lowest. Stamps
	// are below 2^53. Nil for a step without parents.
	Lineage map[string]uint64

	// Issued is when the token was fetched.
	Issued time.Time

	// Keep is how long the record is of use after its token has expired:
	// as long as the refresh token in it may be. Zero or negative means
	// until the record is replaced, and so does a token without expiry.
	Keep time.Duration
}

// An Entry is what a [Storage] holds under one key. The zero Entry means
// that the key is unknown.
type Entry struct {
	// Record is the record saved last, nil if there is none. It may be
	// expired or revoked.
	Record *Record

	// Mark is the low-water mark: records with this stamp or a lower one
	// are revoked. Zero means that nothing was.
	Mark uint64
}

// A Storage keeps, under each key, the newest token of one step and the
// step's low-water mark. Many processes may share what it stores.
//
// Most programs want [MemoryStorage] or one of those in the modules
// redisstorage and filestorage. The rules below are for who writes another;
// TestStorage in package authtest checks an implementation against them.
//
//   - All methods may be called concurrently, with any keys.
//   - Save and Revoke of one key are atomic, between processes too: of all
//     Saves with the same seen one stores its record, and each of the others
//     returns that record.
//   - Stamps of one key strictly increase, and each is above the mark of its
//     time. Marks never fall. Both stay below 2^53: a call that would leave
//     that range is an error and changes nothing.
//   - Record and mark live and vanish together, by Delete or otherwise. A
//     mark that is lost while its record stays revives a revoked token.
//   - Neither expiry nor Revoke removes a record: its refresh token may still
//     be of use. It may be dropped, its mark with it, once Keep is positive
//     and the token's Expiry lies more than Keep in the past.
//   - A record comes back as it was saved, in every field except Stamp, and
//     leaves nothing of the record before it. [Record.MarshalBinary] makes
//     bytes that do this. Other encodings tend to lose integers in Extra
//     above 2^53, or token bytes that aren't UTF-8.
//   - What the caller passed or was given is the caller's to change: a
//     Storage neither keeps nor returns a token or a map that it shares, and
//     changes none.
//   - ctx bounds each call, whatever the store does. If it is done already,
//     the call may fail or answer, but must not hang.
//   - An error may name a key, never anything of a token.
//
// A [Pipeline] gets around a Storage that fails or hangs; the price is a
// fetch. It can't notice one that answers wrongly. If Load reads from a
// replica that lags, revoked tokens are used again until it has caught up. If
// Save isn't atomic, two processes go on with different refresh tokens of one
// session, and many auth servers end a session for that.
//
// # Optional interfaces, and wrappers
//
// A Storage may also be a [Locker], a [Watcher] and a [FailureStorage]. A
// [Pipeline] finds each of the three by type assertion on the Storage and on
// what its method Unwrap() Storage returns, if there is such a method, and so
// on; the first match is used.
//
// So a Storage that wraps another one, to encrypt records or to count calls,
// implements Unwrap to let a Pipeline use the locks, pushes and shared failures
// of the wrapped Storage. Unwrap returns the same Storage each time. A wrapper
// with Unwrap must pass keys on unchanged: a Pipeline locks and watches in the
// wrapped Storage the very keys that it loads through the wrapper. A wrapper that
// changes keys has no Unwrap, nor embeds a Storage with one; it implements the
// three interfaces itself or does without. Without Unwrap a wrapper hides the
// interfaces that it doesn't implement.
type Storage interface {
	// Load returns what is stored under keys: exactly one entry a key, in
	// the order of keys, the zero Entry for an unknown key. A key that is
	// named twice is answered twice. All keys should take one round trip.
	Load(ctx context.Context, keys ...string) ([]Entry, error)

	// Save stores r under key, with the stamp
	//
	//	max(stamp of the stored record, mark, r.Stamp) + 1
	//
	// if the stored record still has the stamp seen; a missing record
	// has stamp 0. It returns what is stored then: r with its new
	// stamp, or the record of whoever was faster, which the caller uses
	// instead of its own. If the record seen was deleted meanwhile,
	// nothing is stored and the entry returned has no record.
	Save(ctx context.Context, key string, r Record, seen uint64) (Entry, error)

	// Revoke raises the mark of key to stamp, if it is lower, whether or
	// not there is a record. It removes nothing.
	Revoke(ctx context.Context, key string, stamp uint64) error

	// Delete removes the records of keys and their marks. An unknown key
	// is no error.
	Delete(ctx context.Context, keys ...string) error
}

// A Locker is a [Storage] that can keep other processes from fetching a token
// while one does. A [Pipeline] spends a stored refresh token only while it holds
// the lock of that step. It finds the Locker by type assertion on the Storage and
// on what its method Unwrap() Storage returns.
//
//   - At most one lease of a key is held at a time, by whoever it may be: two
//     calls from one process exclude each other like any others.
//   - The locks of different keys have nothing to do with each other, nor
//     with what is stored under the same key.
//   - TryLock never waits for the holder.
//   - Where holders can die without a word (another process may), a lease
//     ends by itself a while after its holder was last heard of.
type Locker interface {
	// TryLock locks key and returns a lease. If somebody holds the lock
	// it returns false at once, and a nil Lease. ctx bounds the call, not
	// the lease.
	TryLock(ctx context.Context, key string) (Lease, bool, error)
}

// A Lease is a lock that is held. Its methods may be called concurrently.
type Lease interface {
	// Done returns a channel that is closed once the lock is lost before
	// Unlock: somebody else may hold it from then on. It is nil if that
	// can't happen. What it does after Unlock is not specified.
	Done() <-chan struct{}

	// Unlock releases the lock, if this lease still holds it. It never
	// touches a lock that somebody else holds; further calls do nothing.
	Unlock(ctx context.Context) error
}

// A Watcher is a [Storage] that tells a process what others have revoked,
// while its own token would still look live. Over any other Storage a [Pipeline]
// looks itself, every half minute. It finds the Watcher by type assertion on the
// Storage and on what its method Unwrap() Storage returns.
type Watcher interface {
	// Watch calls changed with each of keys whose mark has risen or that
	// was deleted, soon after, whoever did it. Each time that it begins to
	// listen, or may have missed something, it calls changed with "",
	// which stands for all of them. It returns when ctx ends, or with an
	// error when it can't go on; the caller then calls it again after a
	// while. Calls of changed are one after another and quick.
	Watch(ctx context.Context, keys []string, changed func(key string)) error
}

// A FailureStorage is a [Storage] that lets processes share failures, so that
// a wrong secret in fifty of them is one request to the auth server a
// cool-down. A [Pipeline] finds the FailureStorage by type assertion on the
// Storage and on what its method Unwrap() Storage returns.
type FailureStorage interface {
	// LoadFailure returns what is remembered under key, with Left as it
	// is by now. The zero Failure means nothing, or nothing any more.
	LoadFailure(ctx context.Context, key string) (Failure, error)

	// SaveFailure remembers f under key for f.Left, instead of whatever
	// was there. A zero or negative Left forgets it.
	SaveFailure(ctx context.Context, key string, f Failure) error
}

// A Failure is what processes share of an [AuthError]. It holds no secret.
type Failure struct {
	// Fingerprint stands for the configuration of the step that failed,
	// and reveals nothing of it. A failure of another one is ignored.
	Fingerprint string

	StatusCode int
	Code       string
	Permanent  bool

	// Left is how long until the next try is due. It is a duration, not
	// a time, since clocks differ.
	Left time.Duration
}

// A MemoryStorage is a [Storage] and [Locker] within one process. The zero
// value is ready to use; it must not be copied after first use.
//
// It keeps one record and one mark a key until Delete, whatever has expired.
// Records are kept as [Record.MarshalBinary] writes them, so a token comes
// back the same as from a shared Storage. A context that is done when the
// call begins is an error, and the call does nothing.
type MemoryStorage struct {
	mu sync.Mutex // guards the maps; nothing of the caller's runs under it

	entries map[string]*memoryEntry // made lazily; an entry is replaced, never changed, so it may be read without mu
	leases  map[string]*memoryLease // made lazily; only those held
}

type memoryEntry struct {
	// data returns the record's encoding, in which only the stamp is of no
	// meaning; nil if there is no record. It is a function because those
	// print as an address, whatever the verb and whatever they are in.
	data  func() []byte
	stamp uint64 // the record's; 0: none
	mark  uint64
}

// NewMemoryStorage returns an empty MemoryStorage.
func NewMemoryStorage() *MemoryStorage { return &MemoryStorage{} }

// Load implements [Storage].
func (m *MemoryStorage) Load(ctx context.Context, keys ...string) ([]Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	found := make([]*memoryEntry, len(keys))
	m.mu.Lock()
	for i, key := range keys {
		found[i] = m.entries[key]
	}
	m.mu.Unlock()

	entries := make([]Entry, len(keys))
	for i, e := range found {
		var err error
		if entries[i], err = e.open(); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// Save implements [Storage].
func (m *MemoryStorage) Save(ctx context.Context, key string, r Record, seen uint64) (Entry, error) {
	if err := ctx.Err(); err != nil {
		return Entry{}, err
	}
	data, err := r.MarshalBinary()
	if err != nil {
		return Entry{}, err
	}
	e, err := m.swap(key, data, r.Stamp, seen)
	if err != nil {
		return Entry{}, err
	}
	return e.open()
}

// swap is the atomic part of Save.
func (m *MemoryStorage) swap(key string, data []byte, floor, seen uint64) (*memoryEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.entries[key]
	if old == nil {
		old = new(memoryEntry)
	}
	if old.stamp != seen {
		return old, nil
	}
	top := max(old.stamp, old.mark, floor)
	if top >= maxStamp {
		return nil, errRecordStamp
	}
	e := &memoryEntry{data: func() []byte { return data }, stamp: top + 1, mark: old.mark}
	m.put(key, e)
	return e, nil
}

// Revoke implements [Storage].
func (m *MemoryStorage) Revoke(ctx context.Context, key string, stamp uint64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if stamp > maxStamp {
		return errRecordStamp
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var e memoryEntry
	if old := m.entries[key]; old != nil {
		e = *old
	}
	e.mark = max(e.mark, stamp)
	m.put(key, &e)
	return nil
}

// Delete implements [Storage].
func (m *MemoryStorage) Delete(ctx context.Context, keys ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range keys {
		delete(m.entries, key)
	}
	return nil
}

// TryLock implements [Locker]. The lease lasts until Unlock.
func (m *MemoryStorage) TryLock(ctx context.Context, key string) (Lease, bool, error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leases[key] != nil {
		return nil, false, nil
	}
	if m.leases == nil {
		m.leases = make(map[string]*memoryLease)
	}
	l := &memoryLease{storage: m, key: key}
	m.leases[key] = l
	return l, true, nil
}

// put needs m.mu.
func (m *MemoryStorage) put(key string, e *memoryEntry) {
	if m.entries == nil {
		m.entries = make(map[string]*memoryEntry)
	}
	m.entries[key] = e
}

// open returns a copy of what e holds. e may be nil.
func (e *memoryEntry) open() (Entry, error) {
	if e == nil {
		return Entry{}, nil
	}
	if e.data == nil {
		return Entry{Mark: e.mark}, nil
	}
	r := new(Record)
	if err := r.UnmarshalBinary(e.data()); err != nil {
		return Entry{}, err
	}
	r.Stamp = e.stamp
	return Entry{Record: r, Mark: e.mark}, nil
}

type memoryLease struct {
	storage *MemoryStorage
	key     string
}

// Done returns nil: nothing but Unlock ends the lease.
func (l *memoryLease) Done() <-chan struct{} { return nil }

// Unlock pays no heed to its context. It has nothing to wait for, and a lease
// that it left would never end.
func (l *memoryLease) Unlock(context.Context) error {
	m := l.storage
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leases[l.key] == l {
		delete(m.leases, l.key)
	}
	return nil
}

// The encoding of a record is recordPrefix, which is its version, and then
// JSON. JSON because it can be read in twenty years and grows by a field
// without pain; within it strings go as []byte, since a JSON string would
// replace what isn't UTF-8, and times as integers, since RFC 3339 ends with
// the year 9999. gob would be shorter here but writes maps in any order.
const recordPrefix = "rf1:"

// maxRecordSize bounds an encoded record, in bytes. A fetcher reads 1 MiB at
// most, and base64 or escapes don't make four of that in practice.
const maxRecordSize = 4 << 20

type recordWire struct {
	Key     []byte         `json:"key"`
	Stamp   uint64         `json:"stamp"`
	Token   *tokenWire     `json:"token"`
	Lineage []ancestorWire `json:"lineage"` // by key
	Issued  *instantWire   `json:"issued"`
	Keep    time.Duration  `json:"keep"`
}

type tokenWire struct {
	Access  []byte         `json:"access"`
	Type    []byte         `json:"type"`
	Refresh []byte         `json:"refresh"`
	Expiry  *instantWire   `json:"expiry"`
	Extra   map[string]any `json:"extra"`
}

type ancestorWire struct {
	Key   []byte `json:"key"`
	Stamp uint64 `json:"stamp"`
}

// instantWire is a time of any year. The zero Time goes as null.
type instantWire struct {
	Sec  int64 `json:"s"`
	Nsec int64 `json:"ns"`
}

// No error of the encoding says what is in the record, so none of them wraps
// one of encoding/json's, which quote what they stumble on.
var (
	errRecordStamp   = errors.New("requestforge: storage: a stamp is not below 2^53")
	errRecordToken   = errors.New("requestforge: record: no token")
	errRecordSize    = fmt.Errorf("requestforge: record: larger than %d MiB", maxRecordSize>>20)
	errRecordDepth   = errors.New("requestforge: record: Extra is nested too deeply")
	errRecordVersion = errors.New("requestforge: record: not a record, or of an unknown version")
	errRecordDamaged = errors.New("requestforge: record: damaged")
)

// MarshalBinary encodes r, secrets included: it is for a [Storage], and for
// nothing that people read. (encoding/gob uses it, too.)
//
// It is exact. [Record.UnmarshalBinary] returns every byte of key and token,
// every digit of a number in Extra, and times as the same instant, in UTC. Two
// equal records have the same encoding, with one version of Go. A value in
// Extra that is neither JSON nor can be made so, or a string there that isn't
// UTF-8, is an error, which names the key of Extra. So are a record without a
// token, a stamp of 2^53 or above, and one that makes more than 4 MiB.
func (r Record) MarshalBinary() ([]byte, error) {
	if r.Token == nil {
		return nil, errRecordToken
	}
	if r.Stamp > maxStamp {
		return nil, errRecordStamp
	}
	w := recordWire{
		Key:   []byte(r.Key),
		Stamp: r.Stamp,
		Token: &tokenWire{
			Access:  []byte(r.Token.AccessToken),
			Type:    []byte(r.Token.TokenType),
			Refresh: []byte(r.Token.RefreshToken),
			Expiry:  newInstantWire(r.Token.Expiry),
			Extra:   r.Token.Extra,
		},
		Issued: newInstantWire(r.Issued),
		Keep:   r.Keep,
	}
	if r.Lineage != nil {
		w.Lineage = make([]ancestorWire, 0, len(r.Lineage))
	}
	for _, key := range slices.Sorted(maps.Keys(r.Lineage)) {
		if r.Lineage[key] > maxStamp {
			return nil, errRecordStamp
		}
		w.Lineage = append(w.Lineage, ancestorWire{Key: []byte(key), Stamp: r.Lineage[key]})
	}

	body, err := json.Marshal(w)
	if err != nil {
		return nil, extraError(r.Token.Extra, func(v any) bool {
			_, err := json.Marshal(v)
			return err == nil
		})
	}
	// Only now, because this would never end in a value that holds itself.
	if !extraIsUTF8(r.Token.Extra) {
		return nil, extraError(r.Token.Extra, extraIsUTF8)
	}
	if len(recordPrefix)+len(body) > maxRecordSize {
		return nil, errRecordSize
	}
	// encoding/json reads no deeper than 10,000 levels, but writes any.
	if !json.Valid(body) {
		return nil, errRecordDepth
	}
	return append([]byte(recordPrefix), body...), nil
}

// UnmarshalBinary decodes what [Record.MarshalBinary] has written. Anything
// else is an error that tells nothing of the content, and leaves r as it was.
func (r *Record) UnmarshalBinary(data []byte) error {
	if len(data) > maxRecordSize {
		return errRecordSize
	}
	body, ok := bytes.CutPrefix(data, []byte(recordPrefix))
	if !ok {
		return errRecordVersion
	}
	var w recordWire
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	dec.DisallowUnknownFields()
	if dec.Decode(&w) != nil || dec.InputOffset() != int64(len(body)) {
		return errRecordDamaged
	}
	if w.Token == nil {
		return errRecordToken
	}
	expiry, ok1 := w.Token.Expiry.time()
	issued, ok2 := w.Issued.time()
	if !ok1 || !ok2 {
		return errRecordDamaged
	}
	if w.Stamp > maxStamp {
		return errRecordStamp
	}
	var lineage map[string]uint64
	if w.Lineage != nil {
		lineage = make(map[string]uint64, len(w.Lineage))
	}
	for _, a := range w.Lineage {
		if a.Stamp > maxStamp {
			return errRecordStamp
		}
		if _, dup := lineage[string(a.Key)]; dup {
			return errRecordDamaged
		}
		lineage[string(a.Key)] = a.Stamp
	}
	*r = Record{
		Key: string(w.Key),
		Token: &Token{
			AccessToken:  string(w.Token.Access),
			TokenType:    string(w.Token.Type),
			RefreshToken: string(w.Token.Refresh),
			Expiry:       expiry,
			Extra:        w.Token.Extra,
		},
		Stamp:   w.Stamp,
		Lineage: lineage,
		Issued:  issued,
		Keep:    w.Keep,
	}
	return nil
}

// String describes r without its token.
func (r Record) String() string {
	token, expiry := "<nil>", time.Time{}
	if r.Token != nil {
		token, expiry = redact.Mask, r.Token.Expiry
	}
	return fmt.Sprintf("Record{Key:%q Token:%s Expiry:%s Stamp:%d Lineage:%v Issued:%s Keep:%s}",
		r.Key, token, expiry.Format(time.RFC3339Nano), r.Stamp, r.Lineage, r.Issued.Format(time.RFC3339Nano), r.Keep)
}

// Format writes r.String, whatever the verb.
func (r Record) Format(f fmt.State, _ rune) { io.WriteString(f, r.String()) }

// LogValue returns r.String.
func (r Record) LogValue() slog.Value { return slog.StringValue(r.String()) }

// MarshalJSON returns r.String as a JSON string: JSON gets into logs. To
// store a record use [Record.MarshalBinary].
func (r Record) MarshalJSON() ([]byte, error) { return json.Marshal(r.String()) }

// extraError names the first key of extra whose value isn't ok.
func extraError(extra map[string]any, ok func(v any) bool) error {
	for _, key := range slices.Sorted(maps.Keys(extra)) {
		if !utf8.ValidString(key) || !ok(extra[key]) {
			return fmt.Errorf("requestforge: record: Extra[%q] (%T) can't be stored as JSON", key, extra[key])
		}
	}
	return errors.New("requestforge: record: Extra can't be stored as JSON")
}

// extraIsUTF8 looks for strings in the JSON value v that encoding/json would
// silently change.
func extraIsUTF8(v any) bool {
	switch v := v.(type) {
	case string:
		return utf8.ValidString(v)
	case []any:
		return !slices.ContainsFunc(v, func(v any) bool { return !extraIsUTF8(v) })
	case map[string]any:
		for key, v := range v {
			if !utf8.ValidString(key) || !extraIsUTF8(v) {
				return false
			}
		}
	}
	return true
}

func newInstantWire(t time.Time) *instantWire {
	if t.IsZero() {
		return nil
	}
	return &instantWire{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

func (i *instantWire) time() (time.Time, bool) {
	if i == nil {
		return time.Time{}, true
	}
	return time.Unix(i.Sec, i.Nsec).UTC(), 0 <= i.Nsec && i.Nsec < 1e9
}
