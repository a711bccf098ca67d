// The pipeline against a model of its one idea, written from the words in
// Pipeline's doc comment: stamps, lineage, low-water marks. Two pipelines, as
// if in two processes, share a storage in which everything goes wrong
// (pipeline_model_storage_test.go). Now and then one of them is replaced by a
// pipeline of another identity (pipeline_model_process_test.go). What holds of
// sessions, whose they are and which refresh tokens may be sent, is
// pipeline_model_session_test.go's.

package requestforge_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	rf "github.com/requestforge/requestforge"
)

// modelParents is the graph: two paths meet in root.
var modelParents = map[string][]string{"root": nil, "a": {"root"}, "b": {"root"}, "leaf": {"a", "b"}}

var modelLives = map[string]time.Duration{"root": 100 * time.Second, "a": 3 * time.Minute, "b": 5 * time.Minute, "leaf": 10 * time.Minute}

var modelSteps = slices.Sorted(maps.Keys(modelParents))

// modelToken is a token as a process knows it.
type modelToken struct {
	step    string
	stamp   uint64
	lineage map[string]uint64 // stamps of its ancestors
	expiry  time.Time
	with    marks // known for certain when the token became known
	heard   time.Time
}

// marks are stamps by step.
type marks map[string]uint64

// and returns the higher ones of m and others.
func (m marks) and(others ...marks) marks {
	all := maps.Clone(m)
	for _, o := range others {
		for s, stamp := range o {
			all[s] = max(all[s], stamp)
		}
	}
	return all
}

// model is what one process knows by the rules, from what it did and from
// what its storage told it.
//
// A process has two goroutines and timers, and several of them may run at one
// instant of the bubble. What the storage tells one of them the model knows
// before the pipeline does, and another one may be handed a token in between. So
// a token is held only to what its process knew for certain: what was known
// before this instant, what came with the token, and what the goroutine itself
// did before it asked.
type model struct {
	w        *world
	name     string
	identity string // of the step that w.differs names

	// All guarded by w.mu.
	marks    marks                   // all that is known
	top      marks                   // the highest stamp or mark ever heard of
	instant  time.Time               // of the last change of marks and top
	before   marks                   // marks before that instant
	topThen  marks                   // top before that instant
	over     map[string]time.Time    // by step: sessions that began no later have ended, as far as the process has heard
	overThen map[string]time.Time    // over before that instant
	newerAt  time.Time               // when newer was set last
	changes  int                     // calls that may change what is live: begun
	ended    int                     // and ended
	tokens   map[string][]modelToken // by access token; one that was saved with its answer lost can have two stamps
	good     map[*rf.Token]bool      // that a server has accepted
	calm     bool                    // a server has accepted a token for the first time, and none was refused since
	loads    int                     // calls of Load
	last     *rf.Token               // handed out last
	newer    bool                    // a leaf above last was heard of
	fail     map[string]func() bool  // faults of the storage, by operation
	leases   map[string]*modelLease  // the last one of each step
	owes     map[string]bool         // steps whose tombstone may not be in the storage
	tried    map[string]bool         // steps with a Delete since the last logout
	maybe    marks                   // stamps that the process may have made up
	may      marks                   // marks that the process may know
	tries    map[string]int          // of its Save that are left, by access token
}

func newModel(w *world, name, identity string) *model {
	return &model{
		w: w, name: name, identity: identity,
		marks: marks{}, top: marks{}, maybe: marks{}, may: marks{}, tries: map[string]int{},
		over: map[string]time.Time{}, leases: map[string]*modelLease{},
		tokens: map[string][]modelToken{}, good: map[*rf.Token]bool{},
		fail: map[string]func() bool{}, owes: map[string]bool{}, tried: map[string]bool{},
	}
}

// world is what the processes share, and the first thing that went wrong.
type world struct {
	mu      sync.Mutex
	n       map[string]int      // tokens made, by step
	made    map[string][]string // by access token: those it was made from
	fetches int
	steps   int
	wrong   string
	history []string // in order

	differs string               // the step whose identity changes; "": none
	grants  map[string]*grant    // by access token
	keys    map[string]string    // that were used, with whose tokens they have
	keeps   bool                 // the storage loses nothing
	lost    map[string]bool      // keys whose content the storage has lost, at least once
	unsure  map[string]bool      // keys at which a process that had a tombstone due has found one
	tombs   map[string]time.Time // by content of a key and tombstone: sessions that began no later have ended
	leases  map[string]*modelLease
	steals  int      // leases that are going to be lost
	answers []string // of the auth server to the next refreshes; none: granted
}

func newWorld(differs string) *world {
	return &world{
		differs: differs,
		n:       map[string]int{}, made: map[string][]string{}, grants: map[string]*grant{},
		keys: map[string]string{}, lost: map[string]bool{}, unsure: map[string]bool{}, tombs: map[string]time.Time{}, leases: map[string]*modelLease{},
	}
}

func (w *world) note(format string, args ...any) {
	w.history = append(w.history, fmt.Sprintf("%8.3f  ", time.Since(epoch2000).Seconds())+fmt.Sprintf(format, args...))
}

// epoch2000 is when time begins in a bubble.
var epoch2000 = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func (w *world) fault(format string, args ...any) {
	if w.wrong == "" {
		w.wrong = fmt.Sprintf(format, args...)
		w.note("WRONG: %s", w.wrong)
	}
}

// settle makes what changed at an earlier instant certain.
func (m *model) settle() {
	if now := time.Now(); !now.Equal(m.instant) {
		m.instant, m.before, m.topThen, m.overThen = now, maps.Clone(m.marks), maps.Clone(m.top), maps.Clone(m.over)
	}
}

func (m *model) hear(step string, stamp uint64) {
	m.settle()
	m.top[step] = max(m.top[step], stamp)
}

func (m *model) mark(step string, stamp uint64) {
	m.hear(step, stamp)
	m.marks[step] = max(m.marks[step], stamp)
}

// learn notes a token that came with marks.
func (m *model) learn(access string, t modelToken, with marks) {
	m.hear(t.step, t.stamp)
	t.with, t.heard = m.before.and(with), time.Now()
	for s, stamp := range t.lineage {
		m.hear(s, stamp)
	}
	m.tokens[access] = append(m.tokens[access], t)
	if t.step == "leaf" && (m.last == nil || access != m.last.AccessToken) {
		m.newer, m.newerAt = true, time.Now()
	}
}

// live is the rule: every stamp in the lineage is above its mark.
func (m marks) live(t modelToken) bool {
	if t.stamp <= m[t.step] {
		return false
	}
	for s, stamp := range t.lineage {
		if stamp <= m[s] {
			return false
		}
	}
	return true
}

// change runs a call that may change what is live, and reports whether no other
// one of the process ran beside it.
func (m *model) change(call func()) (alone bool) {
	m.w.mu.Lock()
	m.changes++
	begun, ended := m.changes, m.ended
	m.w.mu.Unlock()
	call()
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.ended++
	return begun == ended+1 && m.changes == begun
}

// lineage is the other rule: that of all parents, the lowest where paths meet.
// Of a parent with two stamps pick says which.
func (m *model) lineage(parents []string, pick func(a, b uint64) uint64) map[string]uint64 {
	lowest := map[string]uint64{}
	note := func(s string, stamp uint64) {
		if old, ok := lowest[s]; !ok || stamp < old {
			lowest[s] = stamp
		}
	}
	for _, p := range parents {
		known := m.tokens[p]
		stamps := map[string]uint64{}
		for i, t := range known {
			all := maps.Clone(t.lineage)
			if all == nil {
				all = map[string]uint64{}
			}
			all[t.step] = t.stamp
			for s, stamp := range all {
				if i > 0 {
					stamp = pick(stamps[s], stamp)
				}
				stamps[s] = stamp
			}
		}
		for s, stamp := range stamps {
			note(s, stamp)
		}
	}
	return lowest
}

// What a Pipeline hands out is live by the marks that its process knows, what
// is live is not fetched again, stamps rise, and a lineage is that of all
// ancestors: whatever happens in whatever order, in two processes at once.
func TestPipelineAgreesWithItsModel(t *testing.T) {
	t.Parallel()
	checkPipeline(t)
}

func checkPipeline(t *testing.T) {
	steps, fetches := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		var scripts [][]modelOp
		for range 4 {
			scripts = append(scripts, rapid.SliceOfN(modelOps, 4, 24).Draw(rt, "script"))
		}
		w := newWorld(rapid.SampledFrom(append([]string{""}, modelSteps...)).Draw(rt, "differs"))
		w.keeps = rapid.Bool().Draw(rt, "keeps")
		synctest.Test(t, func(t *testing.T) { w.run(t, scripts) })
		steps, fetches = steps+w.steps, fetches+w.fetches
		if w.wrong != "" {
			rt.Fatalf("%s\n%s", w.wrong, strings.Join(w.history, "\n"))
		}
	})
	t.Logf("%d steps, %d fetches", steps, fetches)
}
