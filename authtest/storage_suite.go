// The rules of requestforge.Storage as tests for any implementation. The
// documentation of requestforge.Storage states the rules; the files storage_*.go
// check the rules by subject.

package authtest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/internal/unwrap"
)

// TestStorage checks that a storage keeps the rules of [requestforge.Storage]. Each
// rule has a subtest, which names the rule and reports the breach. TestStorage also
// checks the rules of [requestforge.Locker] and [requestforge.Watcher] if a
// Pipeline would find a Locker or Watcher in the storage: by type assertion on the
// storage and on the results of its method Unwrap() Storage. Run TestStorage with
// the race detector.
//
// TestStorage calls newStorage once to look for a Locker and a Watcher, and then
// once for each subtest. newStorage returns a storage without the keys of earlier
// storages, and cleans up through t.Cleanup:
//
//	func TestMyStorage(t *testing.T) {
//		authtest.TestStorage(t, func(t *testing.T) requestforge.Storage {
//			return mystorage.New(t.TempDir())
//		})
//	}
//
// TestStorage makes some thousand calls, so its duration depends on the storage.
// Each call that hangs, or that the storage fails to make, adds half a minute. A
// lease has to last half a minute as well.
func TestStorage(t *testing.T, newStorage func(t *testing.T) requestforge.Storage) {
	s := newStorage(t)
	_, locker := unwrap.Find[requestforge.Locker](s)
	_, watcher := unwrap.Find[requestforge.Watcher](s)
	for _, rule := range storageRules {
		if rule.locker && !locker || rule.watcher && !watcher {
			continue
		}
		t.Run(rule.name, func(t *testing.T) {
			if err := rule.run(t.Context(), newStorage(t)); err != nil {
				t.Errorf("broken rule: %s\n%v", rule.text, err)
			}
		})
	}
}

// storageHang bounds the check of a rule; a longer check counts as hanging.
const storageHang = 30 * time.Second

// storageRule is a rule, and a check that returns how s breaks the rule.
type storageRule struct {
	name    string
	text    string
	locker  bool // only if there is a requestforge.Locker
	watcher bool // only if there is a requestforge.Watcher
	check   func(ctx context.Context, s requestforge.Storage) error
}

// run is check with a bound, also for a storage that ignores ctx.
func (rule storageRule) run(ctx context.Context, s requestforge.Storage) error {
	ctx, cancel := context.WithTimeout(ctx, storageHang)
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- rule.check(ctx, s) }()
	select {
	case err := <-result:
		return err
	case <-time.After(storageHang + time.Second):
		return errors.New("a call hangs, past the end of its context too")
	}
}

var storageRules = []storageRule{
	{
		name:  "MissingKey",
		text:  "an unknown key is a zero Entry and no error",
		check: storageMissingKey,
	},
	{
		name:  "RoundTrip",
		text:  "a record comes back as it was saved, in every field except Stamp",
		check: storageRoundTrip,
	},
	{
		name:  "Replace",
		text:  "a record leaves nothing of the record before it",
		check: storageReplace,
	},
	{
		name:  "ExpiredStays",
		text:  "an expired record stays, its refresh token may still be of use",
		check: storageExpiredStays,
	},
	{
		name:  "Order",
		text:  "Load returns exactly one entry a key, in the order of keys",
		check: storageOrder,
	},
	{
		name:  "OddKeys",
		text:  "any key works, and no key stands for another",
		check: storageOddKeys,
	},
	{
		name:  "Seen",
		text:  "Save stores only if the stored version is the one seen, and returns what is stored then",
		check: storageSeen,
	},
	{
		name:  "StampsRise",
		text:  "the stamp given is max(stored, mark, tombstone, floor) + 1",
		check: storageStampsRise,
	},
	{
		name:  "MarksNeverFall",
		text:  "a mark never falls, and Save leaves it alone",
		check: storageMarksNeverFall,
	},
	{
		name:  "RevokeUnknownKey",
		text:  "Revoke of an unknown key sets its mark",
		check: storageRevokeUnknownKey,
	},
	{
		name:  "RevokeKeepsRecord",
		text:  "Revoke removes and changes nothing but the mark",
		check: storageRevokeKeepsRecord,
	},
	{
		name:  "UnknownKeyTakesAnySeen",
		text:  "without a record and a tombstone, Save and Delete take any seen: the storage may have lost what was seen",
		check: storageUnknownKeyTakesAnySeen,
	},
	{
		name:  "Delete",
		text:  "Delete removes the record of its key, sets the tombstone to max(seen, mark, tombstone) + 1, and does nothing else",
		check: storageDelete,
	},
	{
		name:  "DeleteSeen",
		text:  "Delete deletes only if the stored version is the one seen, and returns what is stored then",
		check: storageDeleteSeen,
	},
	{
		name:  "SaveAfterDelete",
		text:  "a Save from before a logout, a first one too, stores nothing and returns the tombstone",
		check: storageSaveAfterDelete,
	},
	{
		name:  "LateDelete",
		text:  "a Delete from before a login doesn't end it",
		check: storageLateDelete,
	},
	{
		name:  "TombstonesNeverFall",
		text:  "a tombstone stays beside a later record and never falls, and every later stamp is above it",
		check: storageTombstonesNeverFall,
	},
	{
		name:  "TombstoneOutlivesRecords",
		text:  "a tombstone stays where the record beside it, or the one that it ended, may be dropped",
		check: storageTombstoneOutlivesRecords,
	},
	{
		name:  "ManyDeletes",
		text:  "Deletes of many keys at once are all heeded",
		check: storageManyDeletes,
	},
	{
		name:  "BadInput",
		text:  "a record without a token, or a stamp, mark or tombstone of 2^53 or above, is an error that changes nothing",
		check: storageBadInput,
	},
	{
		name:  "SavedIsCopied",
		text:  "what the caller does with a record after Save doesn't change what is stored, nor does Save change it",
		check: storageSavedIsCopied,
	},
	{
		name:  "LoadedIsCopied",
		text:  "what the caller does with an entry it was given doesn't change what is stored",
		check: storageLoadedIsCopied,
	},
	{
		name:  "ConcurrentSaves",
		text:  "of many Saves with the same seen one stores its record, and all return that one",
		check: storageConcurrentSaves,
	},
	{
		name:  "ConcurrentDeletes",
		text:  "of many Saves and Deletes with the same seen one is heeded, and all return what that one has stored",
		check: storageConcurrentDeletes,
	},
	{
		name:  "ConcurrentRevokes",
		text:  "a stamp is above every mark set before, and no mark is lost, however Save and Revoke interleave",
		check: storageConcurrentRevokes,
	},
	{
		name:  "DoneContext",
		text:  "a call whose context is done fails or answers, but doesn't hang",
		check: storageDoneContext,
	},
	{
		name:  "Unwrap",
		text:  "a storage with a method Unwrap() Storage passes keys on unchanged",
		check: storageUnwrap,
	},
	{
		name:   "LockExclusive",
		text:   "one lease of a key is held at a time; TryLock says false and returns no lease meanwhile",
		locker: true,
		check:  storageLockExclusive,
	},
	{
		name:   "LockAgain",
		text:   "a lock is free again after Unlock",
		locker: true,
		check:  storageLockAgain,
	},
	{
		name:   "LockOwner",
		text:   "Unlock releases the lock of its own lease only, once",
		locker: true,
		check:  storageLockOwner,
	},
	{
		name:   "LockKeys",
		text:   "a lock keeps nobody from other keys, nor from what is stored under its own",
		locker: true,
		check:  storageLockKeys,
	},
	{
		name:   "LockDone",
		text:   "Done stays open while the lock is held",
		locker: true,
		check:  storageLockDone,
	},
	{
		name:   "LockDoneContext",
		text:   "TryLock whose context is done fails or answers, but doesn't hang",
		locker: true,
		check:  storageLockDoneContext,
	},
	{
		name:    "Watch",
		text:    "Watch tells when it has begun, and then of each watched key whose mark has risen or whose record was deleted",
		watcher: true,
		check:   storageWatch,
	},
	{
		name:    "WatchSubjects",
		text:    "Watch tells, by its whole name, of each key that is a watched one followed by a slash and more",
		watcher: true,
		check:   storageWatchSubjects,
	},
}
