// The simulator's counters and log, which contain no tokens. The configuration is
// in server.go.

package authtest

import (
	"maps"
	"net/http"
	"slices"
	"time"
)

// Stats is a snapshot of a Simulator's counters.
type Stats struct {
	// Steps has an entry for every step, by name.
	Steps map[string]StepStats

	// API counts the requests to the API.
	API Count

	// FamiliesKilled counts reuses of a spent refresh token. Each reuse revoked all
	// tokens that descend from the same login.
	FamiliesKilled int

	// Paths counts the requests by path.
	Paths map[string]int
}

// StepStats are the counters of one step.
type StepStats struct {
	Fetches   Count // requests for a token by credentials and parents
	Refreshes Count // requests for a token by refresh token

	Live        int // live access tokens
	LiveRefresh int // live refresh tokens

	Ended int // sessions ended by a later login; see Step.MaxSessions
}

// count returns the counters of refreshes or of fetches.
func (c *StepStats) count(refresh bool) *Count {
	if refresh {
		return &c.Refreshes
	}
	return &c.Fetches
}

// Count counts requests by outcome. A request counts as attempted when the request
// arrives, and in another field when the outcome is decided.
type Count struct {
	Attempted int
	OK        int // a step granted a token, the API accepted a token
	Refused   int // refused by the rules of the protocol
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

// Outcome is the outcome of a request.
type Outcome string

// The outcomes.
const (
	Granted   Outcome = "granted"   // a step gave out a token
	Accepted  Outcome = "accepted"  // the API accepted the token, or needed no token
	Refused   Outcome = "refused"   // a step or the API said no
	Forbidden Outcome = "forbidden" // the API took the token and said insufficient_scope
	Failed    Outcome = "failed"    // a Fault, or the server was down
)

// Event is a request in the log.
type Event struct {
	Time    time.Time // of the decision, by the test's clock
	Step    string    // "" for the API
	Refresh bool      // a refresh token was to be redeemed
	Method  string
	Path    string
	Outcome Outcome

	// Token names the granted or accepted token without revealing the token:
	// "user-3" is the third token of step user.
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

// Log returns the events, oldest first: the last 10,000 requests.
func (s *Simulator) Log() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events[max(0, len(s.events)-maxEvents):])
}

// log records a request. The caller holds s.mu.
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

// stepRequest counts a request to a step when the request arrives. stepRequest
// returns the request's fault, and whether the auth server is down.
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

// apiRequest counts a request to the API when the request arrives, and returns the
// request's number and fault.
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
