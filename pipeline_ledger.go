// What this process knows of the tokens of a pipeline, and the only lock on it.
// There is no I/O here, no logging, no waiting and no clock: the time comes in
// as an argument. How a token is got is pipeline_fetch.go's.

package requestforge

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge/internal/bucket"
)

// Refusals may invalidate tokens so many times at once, and once more each
// dropEvery.
const (
	bucketSize = 3
	dropEvery  = 10 * time.Second
)

// ledger is what this process knows of the tokens of a graph's steps, for one
// identity. The invariants, which hold whenever mu is free:
//
//   - A mark never falls, and no stamp that was ever heard of is above the top
//     of its step.
//   - The token known of a step is the one with the highest stamp that was
//     heard of.
//   - The token that is served without the lock is live by the ledger's own
//     marks. By the marks of the ledger above it was live when it was checked,
//     and the reader sees if those marks have changed since.
//   - What was begun in an earlier epoch changes nothing but marks and tops.
//
// Every method takes the ledger from one such state to the next; those named
// Locked are steps of it and expect mu to be held. A ledger calls nothing of an
// application's.
type ledger struct {
	graph *graph

	// up holds the steps above those of this ledger, where several ledgers
	// share them; nil: none. A step that another ledger holds has the mark 0
	// here, which every stamp is above.
	up *ledger

	coolDown, maxCoolDown time.Duration

	// marks is replaced as a whole, under mu, when a mark rises. Whoever reads
	// the pointer has one consistent vector, and can see by the pointer alone
	// whether anything has risen since.
	marks atomic.Pointer[stamps]

	served []atomic.Pointer[held] // by step.index; written under mu, read without

	mu       sync.Mutex
	entries  []entry // by step.index; guarded by mu, as is all below
	bucket   bucket.Bucket
	refusals int // in a row, of tokens that nothing ever accepted
	epoch    int // how often everything was forgotten
}

// entry is what a ledger knows of one step.
type entry struct {
	top      uint64 // the highest stamp or mark ever heard of
	stored   uint64 // stamp of the record in the storage, when last looked at
	token    *held  // the newest token known, live or not; nil: none
	spent    uint64 // refresh tokens up to this stamp must not be sent again
	failures failures
	fetching bool // a flight of the step is under way
}

// newLedger returns an empty ledger below up, which may be nil.
func newLedger(g *graph, up *ledger, coolDown, maxCoolDown time.Duration) *ledger {
	l := &ledger{
		graph: g, up: up, coolDown: coolDown, maxCoolDown: maxCoolDown,
		served:  make([]atomic.Pointer[held], len(g.steps)),
		entries: make([]entry, len(g.steps)),
		bucket:  bucket.Full(bucketSize, dropEvery),
	}
	l.marks.Store(new(make(stamps, len(g.steps))))
	return l
}

// lock locks l and returns what it knows of s.
func (l *ledger) lock(s *step) *entry {
	l.mu.Lock()
	return &l.entries[s.index]
}

// view returns the marks that decide about the tokens of l: its own, and those
// of the ledger above, nil if there is none.
func (l *ledger) view() (own, up *stamps) {
	if l.up != nil {
		up = l.up.marks.Load()
	}
	return l.marks.Load(), up
}

// live reports whether every stamp of h is above its mark.
func (l *ledger) live(h *held) bool {
	own, up := l.view()
	return h.stamps.above(*own) && (up == nil || h.stamps.above(*up))
}

// ready returns the token of s if it is served and nothing has been revoked
// since it was checked, without the lock. Whether the token has expired is for
// the caller to say.
func (l *ledger) ready(s *step) *held {
	h := l.served[s.index].Load()
	if h != nil && l.up != nil && l.up.marks.Load() != h.checked.Load() {
		return nil
	}
	return h
}

// usable reports whether h may be handed out to somebody who wants tokens above
// floor.
func (l *ledger) usable(h *held, floor stamps, now time.Time) bool {
	return h.fresh(now) && l.live(h) && h.stamps.above(floor)
}

// current returns the token of s if it may be handed out, else nil.
func (l *ledger) current(s *step, floor stamps, now time.Time) *held {
	e := l.lock(s)
	defer l.mu.Unlock()
	if e.token == nil || !l.usable(e.token, floor, now) {
		return nil
	}
	l.serveLocked(e.token)
	return e.token
}

// tops returns a floor that only tokens newer than all those of now are above.
func (l *ledger) tops() stamps {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.topsLocked()
}

func (l *ledger) topsLocked() stamps {
	v := make(stamps, len(l.entries))
	for i := range l.entries {
		v[i] = l.entries[i].top
	}
	return v
}

// serveLocked serves h without the lock, if it is live.
func (l *ledger) serveLocked(h *held) {
	own, up := l.view() // before the check that they stand for
	if h.stamps.above(*own) && (up == nil || h.stamps.above(*up)) {
		h.checked.Store(up)
		l.served[h.step.index].Store(h)
	}
}

// raiseLocked lifts the mark of s to stamp, and with it kills what was made from
// the tokens below. It reports whether that changed anything.
func (l *ledger) raiseLocked(s *step, stamp uint64) bool {
	marks := *l.marks.Load()
	if stamp <= marks[s.index] {
		return false
	}
	l.marks.Store(new(marks.raised(s, stamp, len(marks))))
	l.entries[s.index].top = max(l.entries[s.index].top, stamp)
	for i := range l.served {
		if h := l.served[i].Load(); h != nil && !l.live(h) {
			l.served[i].Store(nil)
		}
	}
	return true
}

// keepLocked makes h the token of its step, unless a newer one is known. Of two
// with one stamp, which a storage that has lost its stamps can give out, the one
// heard of last is in the storage.
func (l *ledger) keepLocked(h *held) {
	for i, stamp := range h.stamps {
		if stamp != unrelated {
			l.entries[i].top = max(l.entries[i].top, stamp)
		}
	}
	e := &l.entries[h.step.index]
	if e.token != nil && e.token.stamp() > h.stamp() {
		return
	}
	e.token = h
	l.serveLocked(h)
}

// revoke makes the tokens of s up to stamp dead, and all that was made from
// them. It reports whether that changed anything.
func (l *ledger) revoke(s *step, stamp uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.raiseLocked(s, stamp)
}

// revokeAll makes every token of s dead that was ever heard of.
func (l *ledger) revokeAll(s *step) (b blame, raised bool) {
	e := l.lock(s)
	defer l.mu.Unlock()
	b = blame{s, e.top}
	return b, l.raiseLocked(s, e.top)
}

// forget makes every token and refresh token dead that was ever heard of, and
// begins a new epoch.
func (l *ledger) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch++
	l.refusals = 0
	for i := range l.entries {
		e := &l.entries[i]
		// Marks and tops stay: they hold no secret, and they keep a token
		// that is on its way back from anywhere from being live.
		l.entries[i] = entry{top: e.top, spent: e.top, fetching: e.fetching}
		l.raiseLocked(l.graph.steps[i], e.top)
		l.served[i].Store(nil)
	}
}

// now returns the epoch.
func (l *ledger) now() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch
}

// A loading is what a ledger was when a load from the storage began.
type loading struct {
	epoch int
	tops  stamps
}

// beginLoad goes before a load from the storage.
func (l *ledger) beginLoad() loading {
	l.mu.Lock()
	defer l.mu.Unlock()
	return loading{l.epoch, l.topsLocked()}
}

// A finding is what a load has found of a step.
type finding struct {
	step *step
	mark uint64
	tok  *held // nil: none, or none of use
	gone bool  // the step's key was deleted, and there is nothing under it
}

// A lostMark is a mark that the storage doesn't have.
type lostMark struct {
	step *step
	mark uint64
}

// takeOver takes over what a load has found, and returns the marks that the
// storage has lost. If everything was forgotten since the load began, it changes
// nothing and returns false.
func (l *ledger) takeOver(begun loading, found []finding) (lost []lostMark, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoch != begun.epoch {
		return nil, false
	}
	for _, f := range found {
		if f.gone {
			// A logout. Nothing is left for the mark to kill, so it isn't
			// written back.
			l.raiseLocked(f.step, begun.tops[f.step.index])
			continue
		}
		l.raiseLocked(f.step, f.mark)
		if mark := (*l.marks.Load())[f.step.index]; f.mark < mark {
			lost = append(lost, lostMark{f.step, mark})
		}
		if f.tok != nil && !l.entries[f.step.index].token.same(f.tok) {
			l.keepLocked(f.tok)
		}
	}
	return lost, true
}

// saw notes the stamp of the record in the storage, 0 for none. Only the flight
// of s says so: what others load may be older than what that flight has saved.
func (l *ledger) saw(s *step, stamp uint64) {
	e := l.lock(s)
	defer l.mu.Unlock()
	e.stored = stamp
}

// A saving is what a flight needs to save a new token.
type saving struct {
	floor    uint64 // the new stamp has to be above
	stored   uint64 // stamp of the record to be replaced
	previous *held  // the token known before; nil: none
}

// beginSave goes before a save of a new token of s. It returns false if
// everything was forgotten since the epoch.
func (l *ledger) beginSave(s *step, epoch int) (saving, bool) {
	e := l.lock(s)
	defer l.mu.Unlock()
	return saving{e.top, e.stored, e.token}, l.epoch == epoch
}

// stampSaved gives h, which nobody else knows yet, the stamp that the storage
// gave when it saved, and takes over the mark that was stored beside.
func (l *ledger) stampSaved(h *held, mark, stamp uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.raiseLocked(h.step, mark)
	h.stamps[h.step.index] = stamp
	l.entries[h.step.index].stored = stamp
}

// stampUnsaved gives h, which nobody else knows yet, a stamp of this process's
// own. It can cost one fetch more, when the storage comes back with another token
// of that stamp; it can't revive a dead one.
func (l *ledger) stampUnsaved(h *held) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h.stamps[h.step.index], h.unsaved = l.entries[h.step.index].top+1, true
}

// keep makes h the token of its step, whose failures are over. If
// everything was forgotten since the epoch, it changes nothing and returns false.
func (l *ledger) keep(h *held, epoch int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoch != epoch {
		return false
	}
	l.keepLocked(h)
	e := &l.entries[h.step.index]
	e.failures.over()
	return true
}

// drop makes h dead, and its refresh token, whatever becomes of them in the
// storage.
func (l *ledger) drop(h *held) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.raiseLocked(h.step, h.stamp())
	l.spendLocked(h)
}

// refreshable returns the newest token of s if its refresh token may be sent,
// else nil.
func (l *ledger) refreshable(s *step) *held {
	e := l.lock(s)
	defer l.mu.Unlock()
	if e.token == nil || e.token.tok.RefreshToken == "" || e.token.stamp() <= e.spent {
		return nil
	}
	return e.token
}

// spend notes that the refresh token of h must not be sent again.
func (l *ledger) spend(h *held) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spendLocked(h)
}

func (l *ledger) spendLocked(h *held) {
	e := &l.entries[h.step.index]
	e.spent = max(e.spent, h.stamp())
}

// cooling returns the failure of s that is still remembered, or nil.
func (l *ledger) cooling(s *step, now time.Time) *AuthError {
	e := l.lock(s)
	defer l.mu.Unlock()
	if !e.failures.cur.lasts(now) {
		return nil
	}
	return e.failures.cur.again(now)
}

// fail remembers err, the outcome of a fetch of s. It returns the failure and how
// many there were in a row.
func (l *ledger) fail(s *step, err *AuthError, now time.Time) (*failure, int) {
	e := l.lock(s)
	defer l.mu.Unlock()
	wait := coolDown(err, e.failures.inRow, l.coolDown, l.maxCoolDown)
	e.failures.add(&failure{err, now, now.Add(wait)})
	return e.failures.cur, e.failures.inRow
}

// crashed notes a failure of s that isn't remembered: the next call tries at once.
func (l *ledger) crashed(s *step, err *AuthError, now time.Time) {
	e := l.lock(s)
	defer l.mu.Unlock()
	e.failures.last = &failure{err, now, now}
}

// failWith remembers a failure of s that another process had. The storage may
// return the failure that this process saved itself, with an end later by up to
// slack.
func (l *ledger) failWith(s *step, f *failure, slack time.Duration) {
	e := l.lock(s)
	defer l.mu.Unlock()
	e.failures.replace(f, slack)
}

// inherit makes the failure of a parent that of s, so that callers fail without a
// flight until the parent is due again.
func (l *ledger) inherit(s, parent *step, now time.Time) {
	e := l.lock(s)
	defer l.mu.Unlock()
	if f := l.entries[parent.index].failures.cur; f.lasts(now) {
		e.failures.cur, e.failures.last = f, f
	}
}

// mayBlame reports whether a refusal by the auth server of s may be blamed on the
// parents.
func (l *ledger) mayBlame(s *step, parents []*held, now time.Time) bool {
	e := l.lock(s)
	defer l.mu.Unlock()
	return e.failures.mayBlame(parents, now)
}

// blamedInVain notes when newer parents of s changed nothing; the zero time: they work.
func (l *ledger) blamedInVain(s *step, at time.Time) {
	e := l.lock(s)
	defer l.mu.Unlock()
	e.failures.vain = at
}

// accepted notes that a server has taken a token: refusals aren't in a row any
// more.
func (l *ledger) accepted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refusals = 0
}

// findLocked returns what this ledger knows of a token: by its origin, else by its
// value if it is the leaf's newest. nil: the token is a stranger's.
func (l *ledger) findLocked(tok *Token) *held {
	s := l.graph.leaf
	h, ours := tok.origin().(*held)
	if ours = ours && h.owner == owner(l) && h.tok.AccessToken == tok.AccessToken; ours {
		s = h.step
	}
	// A save whose answer was lost gives one token two stamps; the newer one
	// would live on if the older were refused.
	if t := l.entries[s.index].token; t != nil && t.tok.AccessToken == tok.AccessToken {
		return t
	}
	if ours {
		return h
	}
	return nil
}

// replacedLocked reports whether a newer token of the step is live, which is not
// to suffer for the refusal of h.
func (l *ledger) replacedLocked(h *held) bool {
	t := l.entries[h.step.index].token
	return t != nil && t.stamp() > h.stamp() && l.live(t)
}

// doubt returns the step of a refused token if the refusal would revoke an
// ancestor, and by that the newer tokens of peers. Where a peer has renewed the
// token, the server may have revoked the old one by that, before this process
// ever used it. So the storage has to be asked first: a newer token explains the
// refusal, and no ancestor is to blame.
func (l *ledger) doubt(rejected *Token, now time.Time) *step {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.findLocked(rejected)
	if h == nil || h.accepted() || !l.live(h) || l.replacedLocked(h) {
		return nil
	}
	if len(l.graph.blamed(h.step).levels) == 1 || l.bucket.Empty(now) {
		return nil
	}
	return h.step
}

// A blame is a step whose tokens up to a stamp were found to be bad.
type blame struct {
	step  *step
	stamp uint64
}

// refuse finds the tokens to blame for the refusal of a token, and makes them
// dead. It returns the step as ignored, and blames nobody, if there were too many
// refusals.
func (l *ledger) refuse(rejected *Token, now time.Time) (blamed []blame, ignored *step) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.findLocked(rejected)
	switch {
	case h == nil || !l.live(h):
		return nil, nil
	case l.replacedLocked(h):
		// That costs nothing, and the refused token stays dead even if a
		// storage that has lost its stamps gives its stamp out again.
		l.raiseLocked(h.step, h.stamp())
		return nil, nil
	case !l.bucket.Take(now):
		return nil, h.step
	}
	levels := l.graph.blamed(h.step).levels
	level := 0
	if !h.accepted() {
		l.refusals++
		level = min(l.refusals, len(levels)-1)
	}
	for _, s := range levels[level] {
		stamp := h.stamps[s.index]
		if stamp == unrelated {
			stamp = h.stamp()
		}
		if l.raiseLocked(s, stamp) {
			blamed = append(blamed, blame{s, stamp})
		}
	}
	return blamed, nil
}

// refund gives back what one refusal took of the bucket, once a replay has shown
// that the refusal was real.
func (l *ledger) refund() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bucket.Give(1)
}

// setFetching notes whether a flight of s is under way.
func (l *ledger) setFetching(s *step, on bool) {
	e := l.lock(s)
	defer l.mu.Unlock()
	e.fetching = on
}

// facts is what a ledger knows of one step at one instant.
type facts struct {
	token    *held // nil: none
	live     bool
	fetching bool
	failure  *failure // that is still remembered; nil: none
	last     *failure // the last one, remembered or not; nil: none
}

// facts returns what is known of every step, by step.index.
func (l *ledger) facts(now time.Time) []facts {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]facts, len(l.entries))
	for i := range l.entries {
		e := &l.entries[i]
		all[i] = facts{token: e.token, fetching: e.fetching, last: e.failures.last}
		all[i].live = e.token != nil && l.usable(e.token, nil, now)
		if e.failures.cur.lasts(now) {
			all[i].failure = e.failures.cur
		}
	}
	return all
}
