// What this process knows of a pipeline's tokens, and the only lock on that
// knowledge. This file has no I/O, no logging, no waiting and no clock: the time
// comes in as an argument. pipeline_fetch.go gets the tokens.

package requestforge

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge/internal/bucket"
)

// Refusals may invalidate tokens bucketSize times at once, and once more each
// dropEvery.
const (
	bucketSize = 3
	dropEvery  = 10 * time.Second
)

// ledger holds what this process knows of the tokens of a graph's steps, for one
// identity. Whenever mu is free, these invariants hold:
//
//   - A mark never falls. The top of a step is at least as high as each stamp
//     and mark of the step that the process has heard of.
//   - The token kept for a step has the highest stamp of all tokens heard of.
//   - A token that is served without the lock is live by the ledger's own
//     marks. The token was live by the marks of the ledger above when it was
//     checked, and a reader sees whether those marks have changed since.
//   - A load, save or fetch that began in an earlier epoch changes nothing but
//     marks and tops.
//
// Every method takes the ledger from one consistent state to the next. Methods
// named Locked are parts of such a change and expect mu to be held. A ledger
// never calls a function of the application.
type ledger struct {
	graph *graph

	// up is the ledger of the ancestors that several ledgers share; nil: every
	// step is in this ledger. A step of another ledger has the mark 0 here,
	// below every stamp.
	up *ledger

	coolDown, maxCoolDown time.Duration

	// marks is replaced as a whole, under mu, when a mark rises. A reader of
	// the pointer has one consistent vector, and a changed pointer means that
	// a mark has risen since.
	marks atomic.Pointer[stamps]

	served []atomic.Pointer[held] // by step.index; written under mu, read without

	mu       sync.Mutex
	entries  []entry // by step.index; guarded by mu, as is all below
	bucket   bucket.Bucket
	refusals int // in a row, of tokens that nothing ever accepted
	epoch    int // how often everything was forgotten
}

// entry holds what a ledger knows of one step.
type entry struct {
	top      uint64 // the highest stamp or mark heard of
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

// lock locks l and returns the entry of s.
func (l *ledger) lock(s *step) *entry {
	l.mu.Lock()
	return &l.entries[s.index]
}

// view returns the marks that decide about the tokens of l: its own, and the marks
// of the ledger above, nil without such a ledger.
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

// ready returns the token of s without the lock, if the token is served and no
// shared mark has risen since the check. The caller checks the expiry.
func (l *ledger) ready(s *step) *held {
	h := l.served[s.index].Load()
	if h != nil && l.up != nil && l.up.marks.Load() != h.checked.Load() {
		return nil
	}
	return h
}

// usable reports whether h may be handed out to a caller who wants a token above
// floor.
func (l *ledger) usable(h *held, floor stamps, now time.Time) bool {
	return h.fresh(now) && l.live(h) && h.stamps.above(floor)
}

// current returns the token of s if the token is usable, else nil.
func (l *ledger) current(s *step, floor stamps, now time.Time) *held {
	e := l.lock(s)
	defer l.mu.Unlock()
	if e.token == nil || !l.usable(e.token, floor, now) {
		return nil
	}
	l.serveLocked(e.token)
	return e.token
}

// tops returns a floor that only tokens newer than every present token are above.
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
	own, up := l.view() // before the check, so that checked never is newer than the check
	if h.stamps.above(*own) && (up == nil || h.stamps.above(*up)) {
		h.checked.Store(up)
		l.served[h.step.index].Store(h)
	}
}

// raiseLocked lifts the mark of s to stamp, which kills the tokens of s up to
// stamp and all tokens made from them. It reports whether the mark was lower.
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

// keepLocked makes h the token of its step, unless a newer token is known. A
// storage that has lost its stamps can give one stamp to two tokens; the token
// heard of last is the one in the storage, and is kept.
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

// revoke kills the tokens of s up to stamp, and all tokens made from them. It
// reports whether the mark was lower.
func (l *ledger) revoke(s *step, stamp uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.raiseLocked(s, stamp)
}

// revokeAll kills every token of s that the process has heard of.
func (l *ledger) revokeAll(s *step) (b blame, raised bool) {
	e := l.lock(s)
	defer l.mu.Unlock()
	b = blame{s, e.top}
	return b, l.raiseLocked(s, e.top)
}

// forget kills every token and refresh token that the process has heard of, and
// begins a new epoch.
func (l *ledger) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch++
	l.refusals = 0
	for i := range l.entries {
		e := &l.entries[i]
		// Marks and tops hold no secret and stay, so that a token on its
		// way back from a fetch or a storage is dead on arrival.
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

// A loading is the state of a ledger when a load from the storage began.
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

// A finding is what a load found under the key of a step.
type finding struct {
	step *step
	mark uint64
	tok  *held // nil: no record, or a useless one
	gone bool  // the key was deleted and is still empty
}

// A lostMark is a mark that the storage doesn't have.
type lostMark struct {
	step *step
	mark uint64
}

// takeOver takes over the findings of a load, and returns the marks that the
// storage has lost. If everything was forgotten since the load began, takeOver
// changes nothing and returns false.
func (l *ledger) takeOver(begun loading, found []finding) (lost []lostMark, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoch != begun.epoch {
		return nil, false
	}
	for _, f := range found {
		if f.gone {
			// A logout by a peer. The storage has no token left for the
			// mark to kill, so the mark isn't written back.
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

// saw notes the stamp of the record in the storage, 0 for no record. Only the
// flight of s calls saw: other loads may be older than the flight's own save.
func (l *ledger) saw(s *step, stamp uint64) {
	e := l.lock(s)
	defer l.mu.Unlock()
	e.stored = stamp
}

// A saving says how a flight has to save a new token.
type saving struct {
	floor    uint64 // the new stamp has to be higher
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

// stampSaved gives h, not kept yet, the stamp that the storage gave, and takes over
// the mark stored beside the record.
func (l *ledger) stampSaved(h *held, mark, stamp uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.raiseLocked(h.step, mark)
	h.stamps[h.step.index] = stamp
	l.entries[h.step.index].stored = stamp
}

// stampUnsaved gives h, not kept yet, a stamp that this process makes up. Such a
// stamp can cost one fetch more, if the storage comes back with another token of
// the same stamp. The stamp can't revive a dead token.
func (l *ledger) stampUnsaved(h *held) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h.stamps[h.step.index], h.unsaved = l.entries[h.step.index].top+1, true
}

// keep makes h the token of its step and ends the step's failures. If everything
// was forgotten since the epoch, keep changes nothing and returns false.
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

// drop kills h and its refresh token here, even if the storage keeps them.
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

// cooling returns the failure of s while the step cools down, else nil.
func (l *ledger) cooling(s *step, now time.Time) *AuthError {
	e := l.lock(s)
	defer l.mu.Unlock()
	if !e.failures.cur.lasts(now) {
		return nil
	}
	return e.failures.cur.again(now)
}

// fail remembers err, the outcome of a fetch of s. It returns the failure and the
// number of failures in a row.
func (l *ledger) fail(s *step, err *AuthError, now time.Time) (*failure, int) {
	e := l.lock(s)
	defer l.mu.Unlock()
	wait := coolDown(err, e.failures.inRow, l.coolDown, l.maxCoolDown)
	e.failures.add(&failure{err, now, now.Add(wait)})
	return e.failures.cur, e.failures.inRow
}

// crashed notes err for State alone. The step doesn't cool down.
func (l *ledger) crashed(s *step, err *AuthError, now time.Time) {
	e := l.lock(s)
	defer l.mu.Unlock()
	e.failures.last = &failure{err, now, now}
}

// failWith remembers a peer's failure of s. The storage may return the failure
// that this process saved itself, with an end later by up to slack.
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

// mayBlame reports whether the parents may be blamed for a refusal by the auth
// server of s.
func (l *ledger) mayBlame(s *step, parents []*held, now time.Time) bool {
	e := l.lock(s)
	defer l.mu.Unlock()
	return e.failures.mayBlame(parents, now)
}

// blamedInVain notes when newer parents of s changed nothing. The zero time means
// that the parents work.
func (l *ledger) blamedInVain(s *step, at time.Time) {
	e := l.lock(s)
	defer l.mu.Unlock()
	e.failures.vain = at
}

// accepted notes that a server has taken a token, which ends a row of refusals.
func (l *ledger) accepted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refusals = 0
}

// findLocked returns the held token of tok: by its origin, else by its value if tok
// is the leaf's newest. nil means that tok is a stranger's.
func (l *ledger) findLocked(tok *Token) *held {
	s := l.graph.leaf
	h, ours := tok.origin().(*held)
	if ours = ours && h.owner == owner(l) && h.tok.AccessToken == tok.AccessToken; ours {
		s = h.step
	}
	// A save whose answer was lost gives one token two stamps. The refusal
	// counts for the newer stamp, or the token would live on.
	if t := l.entries[s.index].token; t != nil && t.tok.AccessToken == tok.AccessToken {
		return t
	}
	if ours {
		return h
	}
	return nil
}

// replacedLocked reports whether a newer token of the step is live. A newer token
// must not suffer for the refusal of h.
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

// refuse finds the tokens to blame for the refusal of a token, and kills them.
// After too many refusals refuse blames nobody and returns the step as ignored.
func (l *ledger) refuse(rejected *Token, now time.Time) (blamed []blame, ignored *step) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.findLocked(rejected)
	switch {
	case h == nil || !l.live(h):
		return nil, nil
	case l.replacedLocked(h):
		// The mark costs nothing. The refused token then stays dead even if
		// a storage that has lost its stamps gives the stamp out again.
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

// refund gives one drop back to the bucket, after a replay has shown that a refusal
// was real.
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

// facts are what State shows of one step.
type facts struct {
	token    *held // nil: none
	live     bool
	fetching bool
	failure  *failure // that is still remembered; nil: none
	last     *failure // the last one, remembered or not; nil: none
}

// facts returns the facts of every step, by step.index, all of one instant.
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
