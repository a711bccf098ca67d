// The callers of the API: goroutines that share a client and know nothing of tokens.

package main

import (
	"context"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/requestforge/requestforge/authtest"
)

// callers is how many there are. In a busy act each of them sends many
// requests, one after another.
const callers, many = 8, 30

// crowd is the callers, and what they have seen.
type crowd struct {
	client                 *http.Client
	asked, refused, failed atomic.Int64
	first                  atomic.Pointer[failure] // that a caller saw; nil: none
}

// failure is a request that didn't end well.
type failure struct {
	req    *http.Request
	status int   // of the API's answer; 0: there was none
	err    error // nil: there was an answer
}

func (c *crowd) get(path string) {
	if c.failed.Load() > 0 {
		return // the story is over; no need to wait for more of the same
	}
	c.asked.Add(1)
	req, err := http.NewRequest(http.MethodGet, path, nil)
	if err != nil {
		panic(err) // the paths are the program's own
	}
	resp, err := c.client.Do(req)
	if err != nil {
		c.failed.Add(1)
		c.first.CompareAndSwap(nil, &failure{req: req, err: err})
		return
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		c.refused.Add(1)
	case err != nil || resp.StatusCode != http.StatusOK:
		c.failed.Add(1)
	default:
		return
	}
	c.first.CompareAndSwap(nil, &failure{req, resp.StatusCode, err})
}

// replayed is how many requests of the callers were replayed: the API's refusals,
// without the refusals that a caller has seen.
func (c *crowd) replayed(st authtest.Stats) int { return st.API.Refused - int(c.refused.Load()) }

// all lets every caller send a number of requests, and waits for the answers.
func (c *crowd) all(path string, each int) {
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				c.get(path)
			}
		})
	}
	wg.Wait()
}

// together lets every caller send a request, and holds the refusals back until
// the last request was refused, so that no request profits from an early new token.
func (c *crowd) together(srv *authtest.Server, path string) {
	gate := srv.HoldRefusals()
	answered, done := context.WithCancel(context.Background())
	go func() { c.all(path, 1); done() }()
	_ = gate.Await(answered, callers) // its error: they were answered, not refused
	gate.Open()
	<-answered.Done()
}
