// The subjects in the memory of a process, each with a ledger below the ledger of the
// shared steps, and which subjects are dropped. pipeline.go finds the subject of a context.

package requestforge

import (
	"cmp"
	"container/list"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/puzpuzpuz/xsync/v4"

	"github.com/requestforge/requestforge/internal/flight"
)

// subject is the state of one subject in a process, without a goroutine or a timer.
type subject struct {
	name    string        // see nameOf
	idle    *list.Element // of subjects.idle; guarded by subjects.mu
	callers int           // callers who may begin a flight; guarded likewise

	// The hot path reads short, moved and the first fields of the ledger, which are in one
	// line of cache: Go's objects of this size begin in the middle of a line.
	short  [40]byte      // the bytes of a short name; written once, before the subject is published
	moved  atomic.Uint64 // subjects.made when the subject came to the front of subjects.idle last
	ledger ledger

	flights                 []flight.Flight[*held] // of the subject's own steps
	fetchers, hooks, givens flight.Limit           // left behind
}

// subjectOfOne is a subject of a single step, in one allocation.
type subjectOfOne struct {
	subject
	entries [1]entry
	flights [1]flight.Flight[*held]
}

// call sets the name of the subject.
func (s *subject) call(name string) {
	if len(name) > len(s.short) {
		s.name = strings.Clone(name)
		return
	}
	s.name = unsafe.String(&s.short[0], copy(s.short[:], name))
}

// pinned reports whether dropping the subject would lose anything: a fetch under way, a
// logout not stored yet, or a refresh token stored nowhere else. alone says that nothing is
// stored elsewhere. The caller holds subjects.mu, so that no flight begins meanwhile.
func (s *subject) pinned(alone bool) bool {
	return s.callers > 0 || slices.ContainsFunc(s.ledger.own(), func(st *step) bool { return s.flight(st).Busy() }) || s.ledger.owing(alone)
}

// troubled reports whether dropping the subject would lose what its trouble has taught.
func (s *subject) troubled() bool {
	return s.fetchers.Busy() || s.hooks.Busy() || s.givens.Busy() || s.ledger.troubled()
}

// flight returns the flight of an own step of the subject.
func (s *subject) flight(st *step) *flight.Flight[*held] {
	return &s.flights[st.index-s.ledger.graph.shared]
}

// subjects are the subjects in memory.
//
// The invariant: an ID has at most one subject at a time, and a subject that has callers or
// is pinned stays. Beyond max, the subjects idle longest are dropped. If there are many, idle
// is measured in new subjects, with a precision of a quarter of max: a subject in use stays,
// however fast others come. The trouble of a dropped subject (rows of refusals, what they may
// cost, cool-downs, functions left behind) isn't forgotten at once: else an outage would never
// end where more subjects come in turn than are kept, and trouble of one would cost others
// more, the sooner it is dropped. A nil subjects is empty.
type subjects struct {
	graph    *graph
	up       *ledger
	max      int
	own      *MemoryStorage // the pipeline's own, which loses dropped subjects; nil: another storage
	counters *counters

	kept *xsync.Map[string, *subject] // by name; written under mu, read without

	made atomic.Uint64 // how many subjects have ever come; written under mu

	mu     sync.Mutex
	idle   list.List           // every subject, the last used first; guarded by mu
	past   map[string]*subject // dropped in trouble, by name; guarded by mu
	closed bool                // guarded by mu

	label  func(id string) string // the name of a subject in log records
	labels map[string]string      // by name, if the ID isn't the name; guarded by mu

	fetchers, hooks *flight.Limit // of all subjects, left behind
}

const (
	// Of more than exactSubjects the exact order of use isn't kept: it costs each use a
	// lock and a few lines of cache.
	exactSubjects = 100

	// dropTries bounds the search for a subject to drop.
	dropTries = 64

	// leastPast is how many dropped subjects in trouble are remembered at least; else max.
	leastPast = 1000
)

func newSubjects(g *graph, up *ledger, most int, own *MemoryStorage, c *counters, label func(id string) string) *subjects {
	return &subjects{graph: g, up: up, max: cmp.Or(most, defaultSubjects), own: own, counters: c, label: label, labels: make(map[string]string), past: make(map[string]*subject), kept: xsync.NewMap[string, *subject](), fetchers: flight.NewLimit(maxHangingInAll), hooks: flight.NewLimit(maxHangingInAll)}
}

// get returns the subject of a name, or nil.
func (ss *subjects) get(name string) *subject {
	s, _ := ss.kept.Load(name)
	return s
}

// use records a use of the subject. It never waits: among many concurrent callers the order
// of use says little.
func (ss *subjects) use(s *subject) {
	if ss.max > exactSubjects && ss.made.Load()-s.moved.Load() <= uint64(ss.max/4) || !ss.mu.TryLock() {
		return
	}
	defer ss.mu.Unlock()
	ss.moveLocked(s)
}

// moveLocked notes that the subject is the last used. A dropped subject is in no list, and so
// nothing moves.
func (ss *subjects) moveLocked(s *subject) {
	s.moved.Store(ss.made.Load())
	ss.idle.MoveToFront(s.idle)
}

// enter returns the subject of an ID, newly made if necessary, for a caller who may begin a
// flight until leave.
func (ss *subjects) enter(id string) *subject {
	name := nameOf(id)
	var made *subject // before the lock: an ID may be long
	var label string
	if ss.get(name) == nil {
		made = ss.make(name, id)
	}
	if name != id {
		label = ss.label(id)
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s := ss.get(name)
	if s == nil {
		if s = cmp.Or(ss.recallLocked(name), made); s == nil { // dropped a moment ago
			s = ss.make(name, id)
		}
		ss.kept.Store(s.name, s)
		if label != "" {
			ss.labels[s.name] = label
		}
		ss.made.Add(1)
		s.idle = ss.idle.PushFront(s)
		if ss.closed {
			flight.CloseAll(s.flights)
		}
	}
	s.callers++
	ss.moveLocked(s)
	ss.dropLocked()
	return s
}

// make returns a new subject. The name may be part of a request, so make copies the name to
// let the request go.
func (ss *subjects) make(name, id string) *subject {
	var s *subject
	if n := len(ss.graph.steps) - ss.graph.shared; n == 1 {
		one := new(subjectOfOne)
		s = &one.subject
		s.flights, s.ledger.entries = one.flights[:], one.entries[:]
	} else {
		s = &subject{flights: make([]flight.Flight[*held], n), ledger: ledger{entries: make([]entry, n)}}
	}
	s.call(name)
	s.fetchers.Set(maxHanging, ss.fetchers)
	s.hooks.Set(maxHanging, ss.hooks)
	s.givens.Set(maxHanging, nil) // a herd of one subject's given tokens may exceed the bound for all subjects
	s.ledger.begin(ss.graph, ss.up, keyOf(id))
	return s
}

// pin is enter for a subject at hand; false: the subject was dropped.
func (ss *subjects) pin(s *subject) bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if s.ledger.dropped.Load() {
		return false
	}
	s.callers++
	return true
}

// leave ends enter or pin.
func (ss *subjects) leave(s *subject) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s.callers--
	ss.dropLocked()
}

// rememberLocked keeps a dropped subject in trouble, without its tokens, and forgets any other
// if there are too many: whoever that is, some come back in time however many come in turn.
func (ss *subjects) rememberLocked(s *subject) {
	s.ledger.strip()
	if len(ss.past) >= max(leastPast, ss.max) {
		for name := range ss.past {
			delete(ss.past, name)
			break
		}
	}
	ss.past[s.name] = s
}

// recallLocked returns the subject of a name that was dropped in trouble, or nil.
func (ss *subjects) recallLocked(name string) *subject {
	s := ss.past[name]
	if s != nil {
		delete(ss.past, name)
		s.ledger.strip() // of what looks under way during the drop have brought
		s.ledger.recalled.Store(true)
		s.ledger.dropped.Store(false)
	}
	return s
}

// dropLocked drops the subjects idle longest, except pinned subjects, down to max. A pinned
// subject counts as used, so that the next search looks at other subjects.
func (ss *subjects) dropLocked() {
	for range dropTries {
		if ss.idle.Len() <= ss.max {
			return
		}
		s := ss.idle.Back().Value.(*subject)
		if s.pinned(ss.own != nil) {
			ss.moveLocked(s)
			continue
		}
		ss.idle.Remove(s.idle)
		ss.kept.Delete(s.name)
		delete(ss.labels, s.name)
		s.ledger.dropped.Store(true)
		ss.counters.evicted.Add(1)
		if ss.own != nil {
			for _, st := range s.ledger.own() {
				ss.own.drop(st.key + s.ledger.whose.suffix())
			}
		}
		if s.troubled() {
			ss.rememberLocked(s)
		}
	}
}

// all returns every subject.
func (ss *subjects) all() []*subject {
	if ss == nil {
		return nil
	}
	var all []*subject
	ss.kept.Range(func(_ string, s *subject) bool {
		all = append(all, s)
		return true
	})
	return all
}

// labelled returns every subject with a label.
func (ss *subjects) labelled(label string) []*subject {
	var found []*subject
	for _, s := range ss.all() {
		if ss.labelOf(s) == label {
			found = append(found, s)
		}
	}
	return found
}

// labelOf returns the label of a subject. A short name is the ID.
func (ss *subjects) labelOf(s *subject) string {
	if len(s.name) <= maxKept {
		return ss.label(s.name)
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.labels[s.name]
}

// len returns how many there are.
func (ss *subjects) len() int {
	if ss == nil {
		return 0
	}
	return ss.kept.Size()
}

// close ends fetches without waiting callers, now and later.
func (ss *subjects) close() {
	if ss == nil {
		return
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.closed = true
	for _, s := range ss.all() {
		flight.CloseAll(s.flights)
	}
}
