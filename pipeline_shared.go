// What processes with one storage share: tokens, revocations (also of tokens that still
// look live here) and failures. pipeline_store.go bounds the calls of the storage.

package requestforge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge/internal/flight"
)

var errForgot = errors.New("everything was forgotten while the token was being fetched")

// shared synchronizes the ledger of the shared steps, or of a subject, with the storage.
// Immutable: each caller of a subject gets a new shared over the subject's ledger.
type shared struct {
	graph    *graph
	ledger   *ledger
	up       *shared // of the shared steps; nil: this value belongs to the shared steps
	records  *records
	store    *store
	events   eventLog
	counters *counters
	news     func(l *ledger) // called when there may be a reason to look at the storage later
}

// below returns the shared for the ledger of a subject.
func (sh *shared) below(l *ledger, events eventLog) *shared {
	own := *sh
	own.up, own.ledger, own.events = sh, l, events
	own.records = &records{graph: sh.graph, owner: l, suffix: l.whose.suffix(), ahead: sh.records.ahead}
	return &own
}

// pulled is the result of a pull: the present version of the first step's entry, and the
// epochs at the beginning and the end, which differ if the pull brought news of a logout.
type pulled struct {
	version  uint64
	from, to int
}

// pull loads the entries of steps and takes them over, unless the process forgets
// meanwhile. It writes back marks and tombstones that the storage has lost or never got.
// Steps may belong to the ledger above, except the first.
func (sh *shared) pull(ctx context.Context, steps ...*step) (pulled, error) {
	asks := []*ask{sh.ask(steps)}
	if sh.up != nil && sh.store.shared && len(asks[0].steps) < len(steps) { // else the ledger above knows all entries
		asks = append(asks, sh.up.ask(steps))
	}
	if err := sh.store.loadFor(ctx, asks); err != nil {
		return pulled{}, err
	}
	if len(asks) > 1 { // the shared tokens come before tokens made from them
		if _, err := asks[1].take(ctx); err != nil {
			return pulled{}, err
		}
	}
	p, err := asks[0].take(ctx)
	if err == nil {
		sh.news(sh.ledger)
	}
	return p, err
}

// ask is what a ledger asks of the storage.
type ask struct {
	sh      *shared
	steps   []*step
	begun   int // epoch
	entries []Entry
}

// ask returns the question of sh's ledger: its own steps among steps.
func (sh *shared) ask(steps []*step) *ask {
	own := slices.DeleteFunc(slices.Clone(steps), func(s *step) bool { return !sh.ledger.owns(s.index) })
	return &ask{sh: sh, steps: own, begun: sh.ledger.now()}
}

// take takes over the entries, which are loaded.
func (a *ask) take(ctx context.Context) (pulled, error) {
	sh, now := a.sh, time.Now()
	found := make([]finding, len(a.steps))
	for i, s := range a.steps {
		found[i] = sh.find(ctx, s, a.entries[i], now)
	}
	lacks, epoch, ok := sh.ledger.takeOver(a.begun, found)
	if !ok {
		return pulled{}, errForgot
	}
	for _, l := range lacks {
		// store counts errors, and the next load finds the same lack.
		if l.mark > 0 {
			_ = sh.mark(ctx, l.step, l.mark)
		}
		if l.bury {
			if e, err := sh.bury(ctx, l.step, l.seen); err == nil {
				a.entries[slices.Index(a.steps, l.step)] = e
			}
		}
	}
	return pulled{a.entries[0].Version(), a.begun, epoch}, nil
}

// loadFor loads the entries for asks, in one call.
func (s *store) loadFor(ctx context.Context, asks []*ask) error {
	var keys []string
	for _, a := range asks {
		keys = append(keys, a.sh.keys(a.steps)...)
	}
	entries, err := s.load(ctx, keys...)
	if err != nil {
		return err
	}
	for _, a := range asks {
		a.entries, entries = entries[:len(a.steps):len(a.steps)], entries[len(a.steps):]
	}
	return nil
}

// key returns the key of a step in the storage.
func (sh *shared) key(s *step) string { return sh.records.key(s) }

// keys returns the keys of steps in the storage.
func (sh *shared) keys(steps []*step) []string {
	keys := make([]string, len(steps))
	for i, s := range steps {
		keys[i] = sh.key(s)
	}
	return keys
}

// buryTries is how often a Forget begins again because another process has logged
// in meanwhile.
const buryTries = 8

var errNotGone = errors.New("others keep logging in")

// bury replaces an entry of s that has the version seen, or a newer version, by a
// tombstone. It returns the entry stored then.
func (sh *shared) bury(ctx context.Context, s *step, seen uint64) (Entry, error) {
	_, e, err := sh.remove(ctx, s, Entry{Gone: seen})
	return e, err
}

// remove is bury for a loaded entry. before is the entry that the tombstone replaced.
func (sh *shared) remove(ctx context.Context, s *step, found Entry) (before, now Entry, err error) {
	seen := found.Version()
	if seen == 0 {
		seen = sh.ledger.topOf(s) // the storage may have lost entries that peers still hold
	}
	for range buryTries {
		e, err := sh.store.delete(ctx, sh.key(s), seen)
		if err != nil {
			sh.ledger.buried(s, Entry{})
			return Entry{}, e, err
		}
		if sh.ledger.buried(s, e) {
			return found, e, nil
		}
		sh.hear(ctx, s, e, false)
		found, seen = e, e.Version()
	}
	return Entry{}, Entry{}, errNotGone
}

// hear records the stamps in an entry without a usable record, see ledger.hear.
func (sh *shared) hear(ctx context.Context, s *step, e Entry, logout bool) {
	sh.ledger.hear([]finding{sh.find(ctx, s, e, time.Now())}, logout)
}

// forget replaces all entries of the ledger's steps by tombstones. A tombstone that can't
// be written stays due: each later look tries again. forget returns the replaced entries,
// in the order of the steps; nil if nothing could be loaded.
func (sh *shared) forget(ctx context.Context) (removed []Entry, err error) {
	steps := sh.ledger.own()
	defer sh.news(sh.ledger)
	entries, err := sh.store.load(ctx, sh.keys(steps)...)
	if err != nil {
		return nil, fmt.Errorf("requestforge: this process has forgotten, others may not know yet: %w", err)
	}
	removed = make([]Entry, len(steps))
	for i, s := range steps {
		sh.hear(ctx, s, entries[i], true)
	}
	var errs []error
	for i, s := range steps {
		if mark := max(entries[i].Mark, sh.ledger.topOf(s)); mark > entries[i].Version() && entries[i].Version() > 0 {
			// Known tokens may be above the stored entry: the tombstone has to be above
			// those tokens, too.
			_ = sh.mark(ctx, s, mark)
		}
		if removed[i], _, err = sh.remove(ctx, s, entries[i]); err != nil {
			errs = append(errs, fmt.Errorf("requestforge: step %q: this process has forgotten, others may not know yet: %w", s.Name, err))
		}
	}
	return removed, errors.Join(errs...)
}

// find reads the entry of a step.
func (sh *shared) find(ctx context.Context, s *step, e Entry, now time.Time) finding {
	f := finding{step: s}
	if v := e.Version(); v <= maxStamp {
		f.version = v
	}
	if e.Mark <= maxStamp {
		f.mark = e.Mark
	}
	if e.Gone <= maxStamp {
		f.gone = e.Gone
	}
	if e.Record == nil {
		return f
	}
	var err error
	if f.tok, err = sh.records.read(s, e.Record, now); err != nil {
		sh.ignored(ctx, s, err)
	}
	return f
}

// ignored counts and logs an unusable stored record.
func (sh *shared) ignored(ctx context.Context, s *step, reason error) {
	sh.counters.badRecords.Add(1)
	sh.events.log(ctx, slog.LevelWarn, "stored record ignored", s, slog.Any("reason", reason))
}

// revoke stores a mark that the ledger has raised.
func (sh *shared) revoke(ctx context.Context, b blame) error {
	sh.counters.invalidations.Add(1)
	sh.events.log(ctx, slog.LevelInfo, "token invalidated", b.step, slog.Uint64("stamp", b.stamp))
	return sh.mark(ctx, b.step, b.stamp)
}

// mark stores the mark of s. After a failure, a later look writes the mark.
func (sh *shared) mark(ctx context.Context, s *step, stamp uint64) error {
	err := sh.store.revoke(ctx, sh.key(s), stamp)
	if sh.ledger.told(s, stamp, err == nil); err != nil {
		sh.news(sh.ledger)
	}
	return err
}

// printPatience is how long a caller waits for the beginning of the slow hash that tells
// whether a peer's failure is about the same configuration. With many steps failing at
// once, the hash may begin after minutes, since slow hashes run one at a time; then the
// auth server is asked again. Once begun, the hash is waited for: even on a slow CPU, one
// wrong secret costs one request.
const printPatience = 500 * time.Millisecond

// peerFailure returns a failure of s left by another process, and remembers the failure. It
// ignores failures older than the last logout, and failures of other secrets than the
// present secrets of this process. Calls that ignore ctx count towards hanging.
func (sh *shared) peerFailure(ctx context.Context, s *step, hanging *flight.Limit) *AuthError {
	if sh.store.failures == nil || len(s.givens) > 0 { // who gave which token is unknown
		return nil
	}
	peer, err := sh.store.loadFailure(ctx, sh.key(s))
	if err != nil || peer.Left <= 0 {
		return nil
	}
	read, same := sh.sameAs(ctx, s, peer, hanging)
	if !same {
		return nil
	}
	now, left := time.Now(), min(peer.Left, max(maxRetryAfter, sh.graph.maxCoolDown))
	fail := &failure{err: peer.reported(s.Name), at: now, until: now.Add(left), read: read, ended: new(atomic.Bool)}
	fail.err.Subject = sh.events.about
	sh.ledger.failWith(s, fail, sh.store.timeout)
	sh.events.log(ctx, slog.LevelWarn, "step cools down with another process", s, slog.Duration("for", left))
	return fail.again(now)
}

// sameAs reports whether this process would send the same request as the failed peer, and
// with which changing secrets: a peer doesn't say whether it has logged in or refreshed.
func (sh *shared) sameAs(ctx context.Context, s *step, peer Failure, hanging *flight.Limit) (read reading, same bool) {
	gone, due := sh.ledger.tombstone(s)
	if due {
		return reading{}, false
	}
	tried := make(map[sum]bool, 2)
	for _, secrets := range []*secrets{s.secrets, s.refreshSecrets} {
		read := secrets.bounded(ctx, hanging)
		if read.bad || tried[read.sum] {
			continue
		}
		tried[read.sum] = true
		ours, err := sh.fingerprint(ctx, s, read.sum)
		if err == nil && peer.Fingerprint == printAfter(ours, gone) {
			return read, true
		}
	}
	return reading{}, false
}

// printAfter is the print of a failure after the logout gone.
func printAfter(print string, gone uint64) string {
	if gone == 0 {
		return print
	}
	return print + "-" + strconv.FormatUint(gone, 10)
}

// fingerprint is the print of s, if the slow hash begins within printPatience.
func (sh *shared) fingerprint(ctx context.Context, s *step, secrets sum) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.AfterFunc(printPatience, func() {
		if !s.print.begun.Load() {
			cancel()
		}
	})
	defer timer.Stop()
	return s.fingerprint(ctx, secrets)
}

// shareFailure leaves a failure of s for other processes, and calls done when they can see
// the failure, or if the slow hash doesn't begin within printPatience. Callers waiting for
// the step get their error before, unless the step's fingerprint is known already: callers
// never wait for a slow hash. A failure to read secrets isn't shared.
func (sh *shared) shareFailure(ctx context.Context, s *step, f *failure, done func()) {
	if sh.store.failures == nil || len(s.givens) > 0 || f.read.bad {
		done()
		return
	}
	share := func(ctx context.Context) {
		defer done()
		ours, err := s.fingerprint(ctx, f.read.sum)
		if err != nil {
			return
		}
		sh.store.saveFailure(ctx, sh.key(s), Failure{
			Fingerprint: printAfter(ours, f.gone),
			StatusCode:  f.err.StatusCode, Code: f.err.Code, Permanent: f.err.Permanent,
			Left: f.until.Sub(f.at),
		})
	}
	if s.print.ready(f.read.sum) {
		share(ctx)
		return
	}
	go func() {
		ctx := context.WithoutCancel(ctx)
		if _, err := sh.fingerprint(ctx, s, f.read.sum); err != nil {
			done()
			done = func() {}
		}
		share(ctx)
	}()
}
