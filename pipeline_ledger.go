// The knowledge of this process about a pipeline's tokens, and the only lock on that
// knowledge. This file has no I/O, no logging, no waiting and no clock: times are
// arguments. pipeline_fetch.go gets the tokens.

package requestforge

import (
	"sync"
	"sync/atomic"
	"time"
)

// ledger holds the knowledge of this process about the tokens of steps: the shared steps,
// or the steps of one subject. Whenever mu is free, these invariants hold:
//
//   - A mark never falls. The top of a step is at least as high as each stamp and mark of
//     the step known to the process.
//   - The token kept for a step has the highest stamp of all known tokens.
//   - A token served without the lock is live by the ledger's own marks. The token was
//     live by the marks of the ledger above at the time of the check, and a reader sees
//     whether those marks have changed since.
//   - A load, save or fetch from an earlier epoch changes nothing but marks and tops. An
//     epoch ends when the process forgets, when the process learns of a tombstone that
//     kills its knowledge, and when the subject is dropped from memory or comes back.
//   - A tombstone never falls. All tokens and refresh tokens up to the tombstone are dead.
//   - The ledger of a subject changes nothing in the ledger above except to add stamps and
//     marks it has learned, until a server has accepted a token of the subject that proves
//     more. A subject's suspicion of a shared token is a mark in the subject's ledger.
//
// Every method takes the ledger from one consistent state to the next. Methods named Locked
// are parts of such a change and expect mu to be held. A ledger never calls a function of
// the application.
type ledger struct {
	// The fields of the hot path come first. served is the token of the first own step, if
	// served without the lock; further are the tokens of the remaining own steps. Written
	// under mu.
	served atomic.Pointer[held]

	// up is the ledger of the shared steps, above the ledgers of the subjects; nil: the
	// ledger itself is the ledger of the shared steps, which often are all steps.
	up *ledger

	graph   *graph
	further *[]atomic.Pointer[held] // nil: own is one step

	entries []entry // of own; each guarded by mu

	// marks is replaced as a whole, under mu, when a mark rises. A reader of the pointer
	// has one consistent vector, and a changed pointer means that a mark has risen since.
	// The mark of a shared step is the subject's suspicion of the step's tokens; 0, below
	// every stamp, means no suspicion.
	marks atomic.Pointer[stamps]

	unmarked *stamps    // the marks at first, for all ledgers below, too
	whose    subjectKey // zero: nobody's, the steps are shared

	dropped  atomic.Bool // from memory, with the subject
	recalled atomic.Bool // after the drop; the storage may have news, of a logout or of a login, that this ledger missed

	mu    sync.Mutex
	epoch int // how often everything was forgotten; guarded by mu
}

// newLedger returns an empty ledger of the shared steps.
func newLedger(g *graph) *ledger {
	l := &ledger{unmarked: new(make(stamps, len(g.steps))), entries: make([]entry, g.shared)}
	l.begin(g, nil, subjectKey{})
	return l
}

// begin makes l, which has zero entries and nothing else, an empty ledger below up.
func (l *ledger) begin(g *graph, up *ledger, whose subjectKey) {
	l.graph, l.up, l.whose = g, up, whose
	if up != nil {
		l.unmarked = up.unmarked
	}
	l.marks.Store(l.unmarked)
	if n := len(l.own()) - 1; n > 0 {
		l.further = new(make([]atomic.Pointer[held], n))
	}
}

// key identifies the owner of l's tokens.
func (l *ledger) key() subjectKey { return l.whose }

// own are the steps of l.
func (l *ledger) own() []*step {
	if l.up == nil {
		return l.graph.steps[:l.graph.shared]
	}
	return l.graph.steps[l.graph.shared:]
}

// owns reports whether the step with an index belongs to l.
func (l *ledger) owns(index int) bool { return (index >= l.graph.shared) == (l.up != nil) }

// servedOf returns where the token of s is that is served without the lock.
func (l *ledger) servedOf(s *step) *atomic.Pointer[held] {
	if s.place == 0 {
		return &l.served
	}
	return &(*l.further)[s.place-1]
}

// entry returns the entry of the step of l with an index.
func (l *ledger) entry(index int) *entry {
	if l.up != nil {
		index -= l.graph.shared
	}
	return &l.entries[index]
}

// lock locks l and returns the entry of s.
func (l *ledger) lock(s *step) *entry {
	l.mu.Lock()
	return l.entry(s.index)
}

// view returns the marks that decide about the tokens of l: its own marks, and the marks of
// the ledger above, nil without a ledger above.
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

// ready returns the token of s that is served without the lock, unless a shared mark has
// risen since the check. The caller checks the expiry.
func (l *ledger) ready(s *step) *held {
	h := l.servedOf(s).Load()
	if h != nil && l.up != nil && l.up.marks.Load() != h.checked.Load() {
		return nil
	}
	return h
}

// usable reports whether a caller may have h who wants a token above floor.
func (l *ledger) usable(h *held, floor stamps, now time.Time) bool {
	return h.fresh(now) && l.live(h) && h.stamps.above(floor)
}

// at returns the result of f for the entry of s, under the lock.
func at[T any](l *ledger, s *step, f func(e *entry) T) T {
	e := l.lock(s)
	defer l.mu.Unlock()
	return f(e)
}

// locked returns the result of f, called under the lock.
func locked[T any](l *ledger, f func() T) T {
	l.mu.Lock()
	defer l.mu.Unlock()
	return f()
}

// current returns the token of s if the token is usable, else nil.
func (l *ledger) current(s *step, floor stamps, now time.Time) *held {
	e := l.lock(s)
	defer l.mu.Unlock()
	if e.token == nil || !l.usable(e.token, floor, now) {
		return nil
	}
	l.serveLocked(e.token)
	e.token.use(now)
	return e.token
}

// tops returns a floor below all tokens newer than the present tokens of l.
func (l *ledger) tops() stamps {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := make(stamps, len(l.graph.steps))
	for _, s := range l.own() {
		v[s.index] = l.entry(s.index).top
	}
	return v
}

// topOf returns the highest stamp or mark of s heard of.
func (l *ledger) topOf(s *step) uint64 {
	e := l.lock(s)
	defer l.mu.Unlock()
	return e.top
}

// newest returns the newest token of s known, live or not, or nil.
func (l *ledger) newest(s *step) *held {
	e := l.lock(s)
	defer l.mu.Unlock()
	return e.token
}

// serveLocked serves h without the lock, if h is live.
func (l *ledger) serveLocked(h *held) {
	own, up := l.view() // before the check, so that checked is never newer than the check
	if h.stamps.above(*own) && (up == nil || h.stamps.above(*up)) {
		h.checked.Store(up)
		l.servedOf(h.step).Store(h)
	}
}

// raiseLocked lifts the mark of s to stamp, which kills the tokens of s up to stamp and all
// tokens made from them. It reports whether the mark was lower.
func (l *ledger) raiseLocked(s *step, stamp uint64) bool {
	marks := *l.marks.Load()
	if stamp <= marks[s.index] {
		return false
	}
	l.marks.Store(new(marks.raised(s, stamp, len(marks))))
	if l.owns(s.index) {
		e := l.entry(s.index)
		e.top = max(e.top, stamp)
	}
	for _, s := range l.own() {
		served := l.servedOf(s)
		if h := served.Load(); h != nil && !l.live(h) {
			served.Store(nil)
		}
	}
	return true
}

// keepLocked makes h the token of its step, unless a newer token is known. A storage
// without its stamps can give one stamp to two tokens; the last token is then the token in
// the storage, and is kept.
func (l *ledger) keepLocked(h *held) {
	l.hearLocked(h)
	e := l.entry(h.step.index)
	if e.token != nil && e.token.stamp() > h.stamp() {
		return
	}
	e.token = h
	l.serveLocked(h)
}

// hearLocked records the stamps of h, also in the ledger above: the two locks are always
// taken in this order.
func (l *ledger) hearLocked(h *held) {
	for i, stamp := range h.stamps {
		if stamp != unrelated && l.owns(i) {
			e := l.entry(i)
			e.top = max(e.top, stamp)
		}
	}
	if l.up != nil {
		l.up.mu.Lock()
		defer l.up.mu.Unlock()
		l.up.hearLocked(h)
	}
}

// hear records all stamps and marks of a load without usable tokens. At the beginning of a
// logout a tombstone is old; else a tombstone may be news.
func (l *ledger) hear(found []finding, logout bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range found {
		if !logout {
			l.buryLocked(f.step, f.gone)
		}
		l.entry(f.step.index).hear(f)
		if f.tok != nil {
			l.hearLocked(f.tok)
		}
	}
}

// revoke kills the tokens of s up to stamp, and all tokens made from them, after newer
// tokens have worked. It reports whether the mark was lower.
func (l *ledger) revoke(s *step, stamp uint64) bool {
	e := l.lock(s)
	defer l.mu.Unlock()
	raised := l.raiseLocked(s, stamp)
	if raised && e.refusals.buckets != nil && e.refusals.suspected >= stamp {
		e.refusals.refund()
	}
	return raised
}

// revokeAll kills every known token of s.
func (l *ledger) revokeAll(s *step) (b blame, raised bool) {
	e := l.lock(s)
	defer l.mu.Unlock()
	b = blame{s, e.top}
	return b, l.raiseLocked(s, e.top)
}

// ends returns h as a token no longer needed. No logout has ended h yet.
func (l *ledger) ends(h *held, now time.Time) ending { return ending{h, h.fresh(now) && l.live(h)} }

// forget kills all known tokens and refresh tokens, and begins a new epoch. The storage
// doesn't know yet, see buried. forget returns the tokens that were kept.
func (l *ledger) forget(now time.Time) (known []ending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch++
	for _, s := range l.own() {
		if h := l.entry(s.index).token; h != nil {
			known = append(known, l.ends(h, now))
		}
	}
	for _, s := range l.own() {
		e := l.entry(s.index)
		e.due, e.tried, e.refusals.row, e.refusals.vain = true, false, 0, false
		l.endLocked(s, e.top)
	}
	return known
}

// endLocked kills all tokens and refresh tokens of s up to stamp, and drops them and the
// failures of s. Marks and tops hold no secret and stay, so that a token on its way back
// from a fetch or a storage is dead on arrival.
func (l *ledger) endLocked(s *step, stamp uint64) {
	l.raiseLocked(s, stamp)
	l.entry(s.index).end(stamp)
}

// buried takes over an entry of s returned by a Delete of this process, the zero Entry
// after an error. It returns false if the tombstone is still due.
func (l *ledger) buried(s *step, e Entry) bool {
	k := l.lock(s)
	defer l.mu.Unlock()
	k.tried = true
	if e.Record != nil || e.Gone == 0 {
		return false
	}
	k.gone, k.due = max(k.gone, e.Gone), false
	l.endLocked(s, e.Gone)
	return true
}

// buryLocked takes over a tombstone in the storage. A tombstone above the known tombstone
// is a logout by a peer: all knowledge of s dies, a fetch under way comes to nothing, and
// so does a token with a stamp made up by this process. A due tombstone stays due, unless
// the found tombstone may be the due tombstone.
func (l *ledger) buryLocked(s *step, gone uint64) {
	e := l.entry(s.index)
	if gone <= e.gone {
		return
	}
	e.gone, e.due = gone, e.due && !e.tried
	if e.top > 0 || e.fetching {
		l.epoch++
	}
	if h := e.token; h != nil && h.unsaved {
		gone = max(gone, h.stamp())
	}
	l.endLocked(s, gone)
}

// wanted returns the floor for the parents of a new token that has to be above floor,
// including the subject's suspicions.
func (l *ledger) wanted(floor stamps) stamps {
	if l.up == nil {
		return floor
	}
	marks := *l.marks.Load()
	for _, s := range l.up.own() {
		if mark := marks[s.index]; mark > 0 {
			floor = floor.raised(s, mark, len(marks))
		}
	}
	return floor
}

// suspect reports whether a subject may ask for tokens newer than the stamps in v of shared
// steps. Suspecting a token that was suspected or replaced before costs nothing.
func (l *ledger) suspect(v stamps, steps []*step, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range steps {
		if !l.owns(s.index) {
			continue
		}
		e, stamp := l.entry(s.index), v[s.index]
		e.refusals.fill()
		if stamp < e.top || stamp <= e.refusals.suspected {
			continue
		}
		if !e.refusals.take(now) {
			return false
		}
		e.refusals.suspected = stamp
	}
	return true
}

// now returns the epoch.
func (l *ledger) now() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch
}

// takeOver takes over the findings of a load. It returns the stamps and marks missing in
// the storage, and the epoch, a new epoch after a logout by a peer. If the process has
// forgotten since the load began, takeOver changes nothing and returns false.
func (l *ledger) takeOver(begun int, found []finding) (lacks []lack, epoch int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoch != begun {
		return nil, 0, false
	}
	for _, f := range found {
		l.buryLocked(f.step, f.gone)
		e := l.entry(f.step.index)
		if n, ok := e.unburied(f); ok {
			lacks = append(lacks, n)
			if f.tok != nil {
				l.hearLocked(f.tok)
			}
			continue
		}
		l.raiseLocked(f.step, f.mark)
		if mark := (*l.marks.Load())[f.step.index]; max(f.mark, f.gone) < mark {
			lacks = append(lacks, lack{step: f.step, mark: mark})
		} else {
			e.untold = false
		}
		if f.tok != nil && !e.token.same(f.tok) {
			l.keepLocked(f.tok)
		}
	}
	return lacks, l.epoch, true
}

// saw notes the version of the entry in the storage, for the flight of s alone: other loads
// may be older than the flight's own save.
func (l *ledger) saw(s *step, version uint64) {
	e := l.lock(s)
	defer l.mu.Unlock()
	e.stored = version
}

// beginSave precedes a save of a new token of s. It returns false if the process has
// forgotten since the epoch.
func (l *ledger) beginSave(s *step, epoch int) (saving, bool) {
	e := l.lock(s)
	defer l.mu.Unlock()
	return saving{e.top, e.stored, e.token}, l.epoch == epoch
}

// stampSaved gives h, not kept yet, the stamp from the storage, and takes over the marks
// stored beside the record. A tombstone is no longer due, since writing it would hit the new
// login; unless the process has forgotten since the epoch, and with that the login.
func (l *ledger) stampSaved(h *held, epoch int, saved Entry) {
	e := l.lock(h.step)
	defer l.mu.Unlock()
	l.raiseLocked(h.step, saved.Mark)
	h.stamps[h.step.index] = saved.Record.Stamp
	e.stored, e.due = saved.Record.Stamp, e.due && l.epoch != epoch
}

// tombstone returns the highest known tombstone of s, and whether a tombstone is due. While
// due, the stored record of s may be older than the logout and must not be used.
func (l *ledger) tombstone(s *step) (gone uint64, due bool) {
	e := l.lock(s)
	defer l.mu.Unlock()
	return e.gone, e.due
}

// meet takes over the tombstone and the mark of an entry of s that the storage has returned
// instead of saving, and notes the entry's version.
func (l *ledger) meet(s *step, found Entry) {
	e := l.lock(s)
	defer l.mu.Unlock()
	l.buryLocked(s, found.Gone)
	l.raiseLocked(s, found.Mark)
	e.stored = found.Version()
	e.top = max(e.top, e.stored)
}

// stampUnsaved gives h, not kept yet, a stamp made up by this process. Such a stamp can
// cost a fetch, if the storage has another token of the same stamp, but can't revive a dead
// token.
func (l *ledger) stampUnsaved(h *held) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h.stamps[h.step.index], h.unsaved = l.entry(h.step.index).top+1, true
}

// keep makes h the token of its step and ends the step's failures. If the process has
// forgotten since the epoch, keep changes nothing and returns false.
func (l *ledger) keep(h *held, epoch int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoch != epoch {
		l.hearLocked(h)
		return false
	}
	l.keepLocked(h)
	e := l.entry(h.step.index)
	e.failures.over(h.step.Name)
	if !h.loaded && h.refreshSum() == e.spentSum {
		e.spentSum = 0 // the server has given the refresh token again
	}
	if !h.unsaved {
		e.due = false // the tombstone would hit the later login
	}
	return true
}

// drop kills h and its refresh token in this process, even if the storage keeps them.
func (l *ledger) drop(h *held) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.raiseLocked(h.step, h.stamp())
	l.entry(h.step.index).spend(h.stamp())
}

// told notes whether the storage has taken a mark of s. An answer about a lower mark than the
// present says nothing of the present.
func (l *ledger) told(s *step, mark uint64, ok bool) {
	e := l.lock(s)
	defer l.mu.Unlock()
	e.untold = !ok || e.untold && mark < (*l.marks.Load())[s.index]
}

// setFetching notes whether a flight of s is under way.
func (l *ledger) setFetching(s *step, on bool) {
	e := l.lock(s)
	defer l.mu.Unlock()
	e.fetching = on
}

// facts returns the facts of every step of l, in order, all of one instant.
func (l *ledger) facts(now time.Time) []facts {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]facts, len(l.entries))
	for i := range l.entries {
		all[i] = l.entries[i].facts(now)
		all[i].live = all[i].token != nil && l.usable(all[i].token, nil, now)
	}
	return all
}
