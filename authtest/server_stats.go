// What the simulator has seen: counters and a log, neither with a token in it.
// server.go is the front.

package authtest

import (
	"maps"
	"net/http"
	"slices"
	"time"
)

// Stats is a snapshot of a Simulator's counters.
type Stats struct {
	// Steps has an entry for every step, by its name.
	Steps map[string]StepStats

	// API counts the requests to the API.
	API Count

	// FamiliesKilled is how often a refresh token that had been used
	// before was used again, which revoked all that came of its login.
	FamiliesKilled int

	// Paths counts the requests by path.
	Paths map[string]int
}

// StepStats are the counters of one step.
type StepStats struct {
	Fetches   Count // requests for a token by credentials and parents
	Refreshes Count // requests for a token by refresh token

	Live        int // access tokens that are good now
	LiveRefresh int // refresh tokens that are good now
}

// count returns the counters of one of the two kinds of request.
func (c *StepStats) count(refresh bool) *Count {
	if refresh {
		return &c.Refreshes
	}
	return &c.Fetches
}

// Count counts requests by outcome. A request is counted as attempted when it
// arrives and in one of the other fields when that is decided.
type Count struct {
	Attempted int
	OK        int // a step granted a token, the API accepted one
	Refused   int // no, for the reasons that the protocol has
	Forbidden int // the API's 403 for insufficient scope
	Failed    int // answered by a Fault, or not at all
}

func (c *Count) add(o Outcome) {
	switch o {
	case Granted, Accepted:
		c.OK++
	case Refused:
		c.Refused++
	case Forbidden:
		c.Forbidden++
	case Failed:
		c.Failed++
	}
}

// Outcome is what became of a request.
type Outcome string

// The outcomes.
const (
	Granted   Outcome = "granted"   // a step gave out a token
	Accepted  Outcome = "accepted"  // the API took the token, or needed none
	Refused   Outcome = "refused"   // a step or the API said no
	Forbidden Outcome = "forbidden" // the API took the token and said insufficient_scope
	Failed    Outcome = "failed"    // a Fault, or the server was down
)

// Event is one request in the log.
type Event struct {
	Time    time.Time // when it was decided, by the test's clock
	Step    string    // "" for the API
	Refresh bool      // a refresh token was to be redeemed
	Method  string
	Path    string
	Outcome Outcome

	// Token names the token that was granted or accepted, without giving
	// it away: "user-3" is the third one of step user.
	Token string

	// Reason says why a request was refused or failed.
	Reason string
}

// maxEvents bounds the log, so that a benchmark doesn't fill the memory.
const maxEvents = 10_000

// Stats returns a snapshot of the counters.
func (s *Simulator) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	snap := s.stats
	snap.Steps = maps.Clone(s.stats.Steps)
	snap.Paths = maps.Clone(s.stats.Paths)
	now := time.Now()
	for _, t := range s.tokens {
		if t.spent || s.dead(t, now) != "" {
			continue
		}
		c := snap.Steps[t.step.Name]
		if t.refresh {
			c.LiveRefresh++
		} else {
			c.Live++
		}
		snap.Steps[t.step.Name] = c
	}
	return snap
}

// Log returns what happened, oldest first: the last 10,000 requests.
func (s *Simulator) Log() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events[max(0, len(s.events)-maxEvents):])
}

// log notes one request. The caller holds s.mu.
func (s *Simulator) log(r *http.Request, st *step, refresh bool, o Outcome, t *token, reason string) {
	e := Event{Time: time.Now(), Refresh: refresh, Method: r.Method, Path: r.URL.Path, Outcome: o, Reason: reason}
	if st != nil {
		e.Step = st.Name
	}
	if t != nil {
		e.Token = t.label
	}
	if len(s.events) == 2*maxEvents {
		s.events = slices.Clone(s.events[maxEvents:])
	}
	s.events = append(s.events, e)
}

// stepRequest counts a request to a step as it arrives, and returns the fault
// it meets, and whether the auth server is down.
func (s *Simulator) stepRequest(r *http.Request, at route, a ask) (f Fault, down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Paths[r.URL.Path]++
	c := s.stats.Steps[at.step.Name]
	defer func() { s.stats.Steps[at.step.Name] = c }()
	n := c.count(a.refresh)
	n.Attempted++
	if s.down {
		n.add(Failed)
		s.log(r, at.step, a.refresh, Failed, nil, "the auth server is down")
		return Fault{}, true
	}
	f = s.nextFault(at.step)
	if f.unanswered() {
		n.add(Failed)
		s.log(r, at.step, a.refresh, Failed, nil, f.reason())
	}
	return f, false
}

// apiRequest counts a request to the API as it arrives, and returns its number
// and the fault it meets.
func (s *Simulator) apiRequest(r *http.Request) (int, Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Paths[r.URL.Path]++
	s.stats.API.Attempted++
	f := s.nextFault(nil)
	if f.unanswered() {
		s.stats.API.add(Failed)
		s.log(r, nil, false, Failed, nil, f.reason())
	}
	return s.stats.API.Attempted, f
}

func (s *Simulator) countPath(r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Paths[r.URL.Path]++
}
