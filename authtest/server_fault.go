// Faults on request. The configuration is in server.go.

package authtest

import (
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"time"
)

// Fault is a failure of a request. The zero Fault changes nothing.
//
// With a Status, RetryAfter, Body or HTML, the fault is the answer, and the request
// isn't examined. With Hang there is no answer. Any other fault affects only the
// answer: the request is served as usual, so the token is issued or the refresh
// token spent, but the answer is late, slow or cut off.
type Fault struct {
	// Times is how many requests the fault strikes. 0 means all, until
	// Fail or FailAPI is called again.
	Times int

	// Status is the status of the answer. 0 means 503 with a RetryAfter,
	// else 200.
	Status int

	// RetryAfter is sent as a header, in whole seconds, rounded up. 0
	// means no header; for a date use Header.
	RetryAfter time.Duration

	// Header holds further fields of the answer. Header alone doesn't make a fault.
	Header http.Header

	// Body is the body of the answer and ContentType its type. "" means
	// an empty JSON object, and application/json. HTML is a proxy's error
	// page instead of both.
	Body        string
	ContentType string
	HTML        bool

	// Delay is how long the request waits before anything else happens.
	Delay time.Duration

	// Hang leaves the request without an answer until its context ends.
	Hang bool

	// Drop closes the connection before the answer, and Reset in the middle of the
	// answer's body, so that the client can't know the outcome.
	Drop  bool
	Reset bool

	// Drip is a pause before each byte of the answer's body.
	Drip time.Duration
}

// Fail makes a step's requests, including refreshes, meet faults: the first fault
// as often as its Times says, then the next fault. Fail replaces the faults of an
// earlier call; without faults, the step works again. Fail panics if a fault has a
// negative duration or count, or an invalid status.
func (s *Simulator) Fail(step string, faults ...Fault) { s.setFaults(s.step(step), faults) }

// FailAPI is like Fail, for the API.
func (s *Simulator) FailAPI(faults ...Fault) { s.setFaults(nil, faults) }

// Down makes the auth server unreachable: every connection to a step's path
// is closed without an answer, or refused in the case of Transport. The API
// isn't affected. False brings it back.
func (s *Simulator) Down(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *Simulator) setFaults(st *step, faults []Fault) {
	for _, f := range faults {
		if f.Times < 0 || f.Delay < 0 || f.Drip < 0 || f.RetryAfter < 0 {
			panic("authtest: a fault with a negative count or duration")
		}
		if f.Status != 0 && (f.Status < 200 || f.Status > 599) {
			panic(fmt.Sprintf("authtest: a fault with status %d", f.Status))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[st] = slices.Clone(faults)
}

// nextFault returns the fault of the next request to st. The caller holds s.mu.
func (s *Simulator) nextFault(st *step) Fault {
	queue := s.faults[st]
	if len(queue) == 0 {
		return Fault{}
	}
	f := queue[0]
	if f.Times == 1 {
		s.faults[st] = queue[1:]
	} else if f.Times > 1 {
		queue[0].Times--
	}
	return f
}

// canned reports whether the fault is the answer.
func (f Fault) canned() bool {
	return f.Status != 0 || f.RetryAfter > 0 || f.Body != "" || f.HTML
}

// unanswered reports whether the request is never looked at.
func (f Fault) unanswered() bool { return f.canned() || f.Hang }

func (f Fault) status() int {
	switch {
	case f.Status != 0:
		return f.Status
	case f.RetryAfter > 0:
		return http.StatusServiceUnavailable
	}
	return http.StatusOK
}

func (f Fault) reason() string {
	if f.Hang {
		return "fault: hang"
	}
	return fmt.Sprintf("fault: status %d", f.status())
}

// serve answers with next, changed by f.
func (f Fault) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	pause(r, f.Delay)
	if f.Hang {
		// Read the body, since only then net/http notices that the client has left.
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
	if f.canned() {
		next = http.HandlerFunc(f.answer)
	}
	if !f.Drop && !f.Reset && f.Drip == 0 {
		next.ServeHTTP(w, r)
		return
	}

	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r)
	if f.Drop {
		panic(http.ErrAbortHandler)
	}
	body := rec.Body.Bytes()
	maps.Copy(w.Header(), rec.Header())
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(rec.Code)
	if f.Reset {
		body = body[:len(body)/2]
	}
	flush := http.NewResponseController(w)
	if f.Drip == 0 {
		w.Write(body)
	} else {
		for i := range body {
			flush.Flush()
			pause(r, f.Drip)
			w.Write(body[i : i+1])
		}
	}
	if f.Reset {
		flush.Flush()
		panic(http.ErrAbortHandler)
	}
}

// answer writes the fault's own answer.
func (f Fault) answer(w http.ResponseWriter, r *http.Request) {
	body, kind := f.Body, f.ContentType
	if body == "" {
		body = "{}"
	}
	if kind == "" {
		kind = "application/json"
	}
	if f.HTML {
		kind = "text/html; charset=utf-8"
		body = fmt.Sprintf("<!DOCTYPE html>\n<html><body><h1>%d %s</h1></body></html>\n", f.status(), http.StatusText(f.status()))
	}
	w.Header().Set("Content-Type", kind)
	if f.RetryAfter > 0 {
		seconds := int64(math.Ceil(f.RetryAfter.Seconds()))
		w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	maps.Copy(w.Header(), f.Header)
	w.WriteHeader(f.status())
	io.WriteString(w, body)
}

// pause waits for d, or gives the request up if its context ends first.
func pause(r *http.Request, d time.Duration) {
	if d == 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
		panic(http.ErrAbortHandler)
	}
}
