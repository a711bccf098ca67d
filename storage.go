// The contract of a storage, and its optional interfaces. The storage within one process is
// in storage_memory.go, a record and its encoding are in storage_record.go. pipeline.go
// decides whether a stored token is live.

package requestforge

import (
	"context"
	"time"
)

// An Entry, which few but authors of storages need, is the data that a [Storage] holds
// under a key. The zero Entry means that the key is unknown.
type Entry struct {
	// Record is the record saved last, or nil without a record. The record may be expired or
	// revoked.
	Record *Record

	// Mark is the low-water mark: records with a stamp up to Mark are revoked. Zero means
	// that no record was revoked.
	Mark uint64

	// Gone is the tombstone of the last logout: tokens with a stamp up to Gone, and the
	// refresh tokens in them, are dead, and a Save from before the logout stores nothing.
	// Zero means that the Storage remembers no logout.
	Gone uint64
}

// Version is what a Save or a Delete has to have seen to change the entry: the
// stamp of the record, without a record the tombstone, and 0 if the key is
// unknown.
func (e Entry) Version() uint64 {
	if e.Record != nil {
		return e.Record.Stamp
	}
	return e.Gone
}

// A Storage, whose methods few but authors of storages need, keeps, under each key, the
// newest token of a step, the step's low-water mark and the tombstone of the step's last
// logout. Many processes may share a Storage.
//
// Most programs use [MemoryStorage], or a storage of the modules redisstorage and
// filestorage. The rules below are for authors of other storages; TestStorage in package
// authtest checks an implementation against the rules.
//
//   - All methods may be called concurrently, with any keys.
//   - Save, Revoke and Delete of a key are atomic, between processes too: among all Saves and
//     Deletes with the same seen exactly one succeeds, and each of the others returns the
//     entry that the successful call has stored.
//   - Stamps of a key strictly increase, and each stamp is above the mark and the tombstone of
//     its time. Marks and tombstones never fall. All stay below 2^53: a call that would leave
//     the range returns an error and changes nothing.
//   - A record and its mark live and vanish together. Losing a mark while the record stays
//     would revive a revoked token.
//   - Neither expiry nor Revoke removes a record, since the refresh token may still be of use.
//     A Storage may drop a record together with its mark in two cases: if Keep is positive and
//     the token's Expiry lies more than Keep in the past; and if the record has not been
//     loaded for a year, since a tenant may be gone.
//   - A tombstone is kept for 30 days after its Delete, or for the Keep of the deleted record
//     if Keep is longer, and as long as there is a record: until then an older refresh token
//     may be of use somewhere. A mark without a record is kept for 30 days.
//   - A record comes back as saved, in every field except Stamp, and leaves nothing of the
//     record before. [Record.MarshalBinary] encodes records without loss. Other encodings tend
//     to lose integers in Extra above 2^53, or token bytes that aren't UTF-8.
//   - The caller may change all arguments and results after a call: a Storage keeps no token
//     or map of an argument, returns no token or map that the Storage keeps, and modifies no
//     argument.
//   - ctx bounds each call, whatever the store does. If ctx is done already, the call may fail
//     or answer, but must not hang.
//   - An error may name a key, but never quotes any part of a token.
//
// A [Pipeline] works around a Storage that fails or hangs, at the price of a fetch, but can't
// notice wrong answers. If Load reads from a replica that lags, revoked tokens are used again
// until the replica has caught up. If Save isn't atomic, two processes go on with different
// refresh tokens of the same session, and many auth servers end such a session.
//
// # Optional interfaces, and wrappers
//
// A Storage may also be a [Locker], a [Watcher] and a [FailureStorage]. A [Pipeline] finds
// each of the three by type assertion on the Storage, and then on the result of the Storage's
// method Unwrap() Storage, if there is such a method, and so on; the first match is used.
//
// So a Storage that wraps another Storage, to encrypt records or to count calls, implements
// Unwrap to let a Pipeline use the locks, pushes and shared failures of the wrapped Storage.
// Unwrap returns the same Storage each time. A wrapper with Unwrap must pass keys on
// unchanged: a Pipeline locks and watches in the wrapped Storage the very keys that the
// Pipeline loads through the wrapper. A wrapper that changes keys must not have Unwrap or
// embed a Storage with Unwrap; such a wrapper implements the three interfaces itself or does
// without. Without Unwrap a wrapper hides the interfaces that the wrapper doesn't implement.
type Storage interface {
	// Load returns the entries of keys: exactly one entry for each key, in the order of keys,
	// and the zero Entry for an unknown key. A repeated key gets an entry each time. All keys
	// should take one round trip.
	Load(ctx context.Context, keys ...string) ([]Entry, error)

	// Save stores r under key, with the stamp
	//
	//	max(stamp of the stored record, Mark, Gone, r.Stamp) + 1
	//
	// if the entry still has the version seen (see [Entry.Version]), or if the Storage has
	// lost the entry, so that there is neither a record nor a tombstone. Save returns the
	// entry after the call: r with the new stamp, or the entry of a faster caller, whose
	// record the caller uses instead of r. An entry without a record means a logout.
	Save(ctx context.Context, key string, r Record, seen uint64) (Entry, error)

	// Revoke raises the mark of key to stamp, if the mark is lower, with or without a record.
	// Revoke removes nothing.
	Revoke(ctx context.Context, key string, stamp uint64) error

	// Delete is a logout. Delete removes the record of key and sets Gone to
	//
	//	max(seen, Mark, Gone) + 1
	//
	// if the entry still has the version seen, or if there is neither a record nor a
	// tombstone. Otherwise Delete changes nothing: another caller has logged in or out
	// meanwhile, and the caller decides again. Delete returns the entry after the call; a
	// record in the entry means that nothing was deleted.
	Delete(ctx context.Context, key string, seen uint64) (Entry, error)
}

// A Locker, which few but authors of storages need, is a [Storage] that can keep other
// processes from fetching a token while one process fetches. A [Pipeline] spends a stored
// refresh token only while the Pipeline holds the lock of the step. A Pipeline finds the
// Locker by type assertion on the Storage and on the result of its method Unwrap()
// Storage.
//
//   - At most one lease of a key is held at a time: two calls from the same process exclude
//     each other like calls from two processes.
//   - The locks of different keys are independent of each other, and of the entries under the
//     same keys.
//   - TryLock never waits for the holder.
//   - Where holders can die silently, as another process may, a lease ends by itself some time
//     after the last sign of its holder.
type Locker interface {
	// TryLock locks key and returns a lease. If the lock is held, TryLock returns false at
	// once, and a nil Lease. ctx bounds the call, not the lease.
	TryLock(ctx context.Context, key string) (Lease, bool, error)
}

// A Lease, which few but authors of storages need, is a held lock. The methods may be
// called concurrently.
type Lease interface {
	// Done returns a channel that is closed if the lock is lost before Unlock: from then on
	// another caller may hold the lock. Done returns nil if the lock can't be lost. The
	// channel's state after Unlock is not specified.
	Done() <-chan struct{}

	// Unlock releases the lock, if this lease still holds the lock. Unlock never releases a
	// lock held by another lease; further calls do nothing.
	Unlock(ctx context.Context) error
}

// A Watcher, which few but authors of storages need, is a [Storage] that tells a process
// which tokens other processes have revoked, while the process's own token would still
// look live. A [Pipeline] then loads the entry at once, and after that at most four times
// a second. Over a Storage without a Watcher, a Pipeline loads only on its own schedule,
// every half minute. A Pipeline finds the Watcher by type assertion on the Storage and on
// the result of its method Unwrap() Storage.
type Watcher interface {
	// Watch begins to listen for changes of keys, and of every key that consists of an
	// element of keys, a slash and at least one more byte, without a colon after the slash:
	// the tokens of subjects are stored under such keys. So a pipeline names its steps, once,
	// however many subjects the pipeline serves.
	//
	// Watch returns at once. The Storage listens in the background, for all its pipelines
	// together, and begins again after a failure. Watch calls
	//
	//	changed(key, nil)  soon after the mark of a key has risen or its
	//	                   record was deleted, by any process; key is the
	//	                   whole key that has changed, a subject's too
	//	changed("", nil)   each time that the Storage has begun to listen,
	//	                   or may have missed a change
	//	changed("", err)   when the Storage can't listen for now
	//
	// from any goroutine. Calls of changed return at once. The calls end soon after stop was
	// called. stop returns at once, too, and may be called more than once.
	Watch(keys []string, changed func(key string, err error)) (stop func())
}

// A FailureStorage, which few but authors of storages need, is a [Storage] that lets
// processes share failures. So if fifty processes have the same wrong secret, the auth
// server gets one request for each cool-down. A [Pipeline] finds the FailureStorage by
// type assertion on the Storage and on the result of its method Unwrap() Storage.
type FailureStorage interface {
	// LoadFailure returns the failure under key, with the present value of Left. The zero
	// Failure means that there is no failure, or no longer.
	LoadFailure(ctx context.Context, key string) (Failure, error)

	// SaveFailure remembers f under key for f.Left, in place of an earlier failure. A zero or
	// negative Left removes the failure.
	SaveFailure(ctx context.Context, key string, f Failure) error
}

// A Failure, which few but authors of storages need, is the part of an [AuthError] that
// processes share. A Failure holds no secret.
type Failure struct {
	// Fingerprint stands for the configuration of the step that failed, and
	// for the last logout before, and reveals nothing of them. A failure of
	// another configuration, or from before a logout, is ignored.
	Fingerprint string

	StatusCode int
	Code       string
	Permanent  bool

	// Left is the time until the next try is due: a duration and not a point in time, since
	// clocks differ.
	Left time.Duration
}
