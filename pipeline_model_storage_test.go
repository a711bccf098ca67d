// The storage of the model (pipeline_model_test.go), in which everything goes wrong.

package requestforge_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	rf "github.com/requestforge/requestforge"
)

const modelPrefix = "requestforge:"

// stepOf returns the step of a key, whatever the identity in it.
func stepOf(key string) string {
	step, _, _ := strings.Cut(strings.TrimPrefix(key, modelPrefix), "@")
	return step
}

// watched is the storage as one process sees it: it may fail, and tells the
// model what the process gets to know.
type watched struct {
	*lossy
	m *model
}

func (s *watched) failing(op string) error {
	if f := s.m.fail[op]; f != nil && f() {
		s.m.w.note("%s: %s fails", s.m.name, op)
		return errDisk
	}
	return nil
}

// errLate is what becomes of a call that lands after its caller has left.
var errLate = errors.New("late")

// modelDelays are how late a call may land: within StorageTimeout, so that only the
// answer is late, and long after.
var modelDelays = []time.Duration{100 * time.Millisecond, 700 * time.Millisecond, 5 * time.Second, 60 * time.Second}

// attempt makes a call of the storage, in which op may be what goes wrong. It needs
// w.mu, and gives that up while it waits. A call that is late returns just before its
// caller leaves, for the model to be told; leave then waits for that.
func attempt[T any](ctx context.Context, s *watched, op string, call func() (T, error)) (T, error) {
	w := s.m.w
	var zero T
	if err := s.failing(op); err != nil {
		return zero, err
	}
	if op == "TryLock" || s.failing("late "+op) == nil {
		val, err := call()
		if err == nil && op != "TryLock" {
			err = s.failing("its answer")
		}
		return val, err
	}
	end, ok := ctx.Deadline()
	if !ok {
		end = time.Now().Add(250 * time.Millisecond)
	}
	delay := modelDelays[len(w.history)%len(modelDelays)]
	go func() {
		time.Sleep(delay)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.note("%s: late %s lands", s.m.name, op)
		call()
	}()
	w.mu.Unlock()
	time.Sleep(time.Until(end) - time.Microsecond)
	w.mu.Lock()
	return zero, errLate
}

// leave gives up w.mu and waits for the end of a call that is late.
func (s *watched) leave(ctx context.Context, err *error) {
	s.m.w.mu.Unlock()
	if *err == errLate {
		<-ctx.Done()
		*err = ctx.Err()
	}
}

// told notes what the process is told of an entry, and returns the mark. While a
// tombstone is due, a mark may be the one that goes before, and be for the storage alone.
func (s *watched) told(key string, e rf.Entry) uint64 {
	m, step := s.m, stepOf(key)
	mark := e.Gone
	if !m.owes[step] {
		mark = max(mark, e.Mark)
	}
	m.mark(step, mark)
	m.maybe[step] = max(m.maybe[step], e.Mark) // a floor may know of that all the same
	m.may[step] = max(m.may[step], e.Mark)
	// A tombstone that is found while one of the process's own is due, and a Delete had
	// no answer, may be that one: the process can't know.
	if e.Gone > 0 && m.owes[step] && m.tried[step] {
		m.w.unsure[key] = true
	}
	if over := m.w.tombs[tomb(s.at(key), e.Gone)]; e.Gone > 0 && over.After(m.over[step]) {
		m.over[step] = over
	}
	return mark
}

func tomb(at string, gone uint64) string { return fmt.Sprintf("%s %d", at, gone) }

func (s *watched) Load(ctx context.Context, keys ...string) ([]rf.Entry, error) {
	m := s.m
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.loads++
	for _, key := range keys {
		m.w.keys[key] = m.w.whose(stepOf(key), m.identity)
	}
	if err := s.failing("Load"); err != nil {
		return nil, err
	}
	entries, err := s.lossy.Load(ctx, keys...)
	if err != nil {
		return nil, err
	}
	with := marks{}
	for i, e := range entries {
		with[stepOf(keys[i])] = s.told(keys[i], e)
	}
	for i, e := range entries {
		if r := e.Record; r != nil {
			t := modelToken{step: stepOf(keys[i]), stamp: r.Stamp, expiry: r.Token.Expiry, lineage: map[string]uint64{}}
			for key, stamp := range r.Lineage {
				t.lineage[stepOf(key)] = stamp
			}
			if !slices.ContainsFunc(m.tokens[r.Token.AccessToken], func(k modelToken) bool { return k.stamp == t.stamp }) {
				m.learn(r.Token.AccessToken, t, with)
			}
		}
	}
	return entries, nil
}

// saved is what becomes of a Save in the storage.
func (s *watched) saved(key string, r rf.Record, seen uint64) (rf.Entry, error) {
	e, err := s.lossy.Save(context.Background(), key, r, seen)
	if err == nil && e.Record != nil && e.Record.Token.AccessToken == r.Token.AccessToken {
		s.m.w.replaced(key, r.Token.AccessToken)
	}
	return e, err
}

func (s *watched) Save(ctx context.Context, key string, r rf.Record, seen uint64) (_ rf.Entry, err error) {
	m, step, access := s.m, stepOf(key), r.Token.AccessToken
	m.w.mu.Lock()
	defer s.leave(ctx, &err)
	lo := m.lineage(m.w.made[access], func(a, b uint64) uint64 { return min(a, b) })
	hi := m.lineage(m.w.made[access], func(a, b uint64) uint64 { return max(a, b) })
	t := modelToken{step: step, expiry: r.Token.Expiry, lineage: map[string]uint64{}}
	for key, stamp := range r.Lineage {
		s := stepOf(key)
		if stamp < lo[s] || stamp > hi[s] {
			m.w.fault("%s: %s has the lineage %v, want %v to %v", m.name, access, r.Lineage, lo, hi)
		}
		t.lineage[s] = stamp
	}
	if len(t.lineage) != len(hi) {
		m.w.fault("%s: %s has the lineage %v, want %v", m.name, access, r.Lineage, hi)
	}
	m.settle()
	if m.tries[access] == 0 { // the first try
		if r.Stamp < m.topThen[step] || r.Stamp > max(m.top[step], m.maybe[step]) {
			m.w.fault("%s: %s is saved with the floor %d, but %d is known", m.name, access, r.Stamp, m.top[step])
		}
		m.tries[access] = 1
		if slices.Contains(modelRefreshed, step) && m.leases[step].held() {
			m.tries[access] = 3
		}
	}

	e, err := attempt(ctx, s, "Save", func() (rf.Entry, error) { return s.saved(key, r, seen) })
	m.w.note("%s: save %s floor %d seen %d: %v", m.name, access, r.Stamp, seen, err)
	m.tries[access]--
	if err != nil && m.tries[access] > 0 {
		return e, err // the next try may get an answer
	}
	m.tries[access] = 0
	with := marks{step: max(e.Mark, e.Gone)}
	switch {
	case err != nil:
		with = nil                              // the answer was lost
		t.stamp = max(m.top[step], r.Stamp) + 1 // its own, and never told
	case e.Record == nil: // a logout came between
		s.told(key, e)
		return e, nil
	case e.Record.Token.AccessToken != access:
		s.told(key, e)
		if m.owes[step] {
			// A logout of this process may not be in the storage yet. Its
			// own token is used then, under a stamp that was never told.
			own := t
			own.stamp = max(m.top[step], e.Record.Stamp) + 1
			own.with = m.before
			m.tokens[access] = append(m.tokens[access], own)
			m.maybe[step] = max(m.maybe[step], own.stamp)
		}
		t = modelToken{step: step, stamp: e.Record.Stamp, expiry: e.Record.Token.Expiry, lineage: map[string]uint64{}}
		for key, stamp := range e.Record.Lineage {
			t.lineage[stepOf(key)] = stamp
		}
		access = e.Record.Token.AccessToken
	default:
		m.mark(step, e.Mark) // the tombstone is the one that was seen
		if t.stamp = e.Record.Stamp; t.stamp <= r.Stamp {
			m.w.fault("%s: %s got the stamp %d, not above %d", m.name, access, t.stamp, r.Stamp)
		}
	}
	m.learn(access, t, with)
	return e, err
}

func (s *watched) Revoke(ctx context.Context, key string, stamp uint64) (err error) {
	s.m.w.mu.Lock()
	defer s.leave(ctx, &err)
	if m := s.m; m.changes > m.ended || !m.owes[stepOf(key)] && !m.w.lost[key] {
		m.mark(stepOf(key), stamp) // whatever the storage says
	} // else it may be for the storage alone: a tombstone comes next, and has to be above
	s.m.may[stepOf(key)] = max(s.m.may[stepOf(key)], stamp)
	s.m.w.note("%s: revoke %s %d", s.m.name, stepOf(key), stamp)
	_, err = attempt(ctx, s, "Revoke", func() (struct{}, error) {
		return struct{}{}, s.lossy.Revoke(context.Background(), key, stamp)
	})
	return err
}

// deleted is what becomes of a Delete in the storage. over is when the last logout was
// that its caller knew of.
func (s *watched) deleted(key string, seen uint64, over time.Time) (rf.Entry, error) {
	e, err := s.lossy.Delete(context.Background(), key, seen)
	if err == nil && e.Record == nil {
		if at := tomb(s.at(key), e.Gone); over.After(s.m.w.tombs[at]) {
			s.m.w.tombs[at] = over
		}
		s.m.w.replaced(key, "")
	}
	s.m.w.note("%s: delete %s seen %d: gone %d, record %v", s.m.name, stepOf(key), seen, e.Gone, e.Record != nil)
	return e, err
}

func (s *watched) Delete(ctx context.Context, key string, seen uint64) (_ rf.Entry, err error) {
	m := s.m
	m.w.mu.Lock()
	defer s.leave(ctx, &err)
	over := m.over[stepOf(key)]
	m.tried[stepOf(key)] = true
	e, err := attempt(ctx, s, "Delete", func() (rf.Entry, error) { return s.deleted(key, seen, over) })
	if err == nil {
		s.told(key, e)
		if e.Record == nil {
			delete(m.owes, stepOf(key))
		}
	}
	return e, err
}

// modelLease is a lease of the storage's locks. All is guarded by world.mu.
type modelLease struct {
	w      *world
	key    string
	holder *model // nil: a process that isn't in the model
	since  time.Time
	lost   time.Time // zero: it isn't
	given  bool      // back
	done   chan struct{}
}

// held reports whether the holder may take the lease for its own. At the instant of
// the loss the holder may not have heard.
func (l *modelLease) held() bool {
	return l != nil && !l.given && (l.lost.IsZero() || l.lost.Equal(time.Now()))
}

func (l *modelLease) Done() <-chan struct{} { return l.done }

func (l *modelLease) Unlock(context.Context) error {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	l.given = true
	if l.w.leases[l.key] == l {
		delete(l.w.leases, l.key)
	}
	return nil
}

// lose takes a lease from its holder, for whoever comes next.
func (l *modelLease) lose() {
	if l.w.leases[l.key] == l {
		delete(l.w.leases, l.key)
		l.lost = time.Now()
		close(l.done)
		l.w.note("%s: the lease of %s is lost", l.holder.name, stepOf(l.key))
	}
}

func (s *watched) TryLock(ctx context.Context, key string) (_ rf.Lease, _ bool, err error) {
	m, w := s.m, s.m.w
	w.mu.Lock()
	defer s.leave(ctx, &err)
	if s.failing("late TryLock") != nil {
		delay := modelDelays[len(w.history)%len(modelDelays)]
		w.mu.Unlock()
		time.Sleep(delay)
		w.mu.Lock()
	}
	l, err := attempt(ctx, s, "TryLock", func() (*modelLease, error) {
		if w.leases[key] != nil {
			return nil, nil
		}
		l := &modelLease{w: w, key: key, holder: m, since: time.Now(), done: make(chan struct{})}
		w.leases[key], m.leases[stepOf(key)] = l, l
		if w.steals > 0 {
			w.steals--
			time.AfterFunc(100*time.Millisecond, func() {
				w.mu.Lock()
				defer w.mu.Unlock()
				l.lose()
			})
		}
		return l, nil
	})
	if l == nil {
		return nil, false, err
	}
	return l, true, nil
}
