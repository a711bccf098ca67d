// The users: each with a session, and a browser that knows nothing of other tokens.

package main

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// atOnce is how many requests are under way at once.
const atOnce = 64

// crowd is the users, and what they have seen.
type crowd struct {
	client   *http.Client
	url      string       // of the gateway
	sessions []atomicText // by user

	asked   atomic.Int64
	others  atomic.Int64 // answers that were somebody else's
	refused atomic.Int64 // answers of 401 to a user with a session
	failed  atomic.Int64 // anything else that isn't an answer for that user
	late    atomic.Int64 // answers other than 401 to whoever had no session any more
}

// atomicText is a text that changes while others read it.
type atomicText = atomic.Pointer[string]

func name(i int) string { return fmt.Sprintf("user-%d@example.com", i) }

// login gives user i a new session.
func (c *crowd) login(r *realm, i int) {
	token := r.login(name(i))
	c.sessions[i].Store(&token)
}

// send sends a request with a session, and returns the status and the text of the answer,
// 0 for none.
func (c *crowd) send(method, path, session string) (status int, text string) {
	req, err := http.NewRequest(method, c.url+path, nil)
	if err != nil {
		return 0, ""
	}
	req.Header.Set("Authorization", "Bearer "+session)
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, ""
	}
	return resp.StatusCode, string(body)
}

// get lets user i ask a backend something, and judges the answer.
func (c *crowd) get(i int, audience string) {
	c.asked.Add(1)
	switch status, text := c.send("GET", "/"+audience+"/mine", *c.sessions[i].Load()); {
	case status == http.StatusUnauthorized:
		c.refused.Add(1)
	case status != http.StatusOK:
		c.failed.Add(1)
	case text != name(i):
		c.others.Add(1)
	}
}

// both lets user i ask both backends.
func (c *crowd) both(i int) {
	for _, audience := range audiences {
		c.get(i, audience)
	}
}

// logout ends the session of user i, and tries what it is still good for.
func (c *crowd) logout(i int) {
	session := *c.sessions[i].Load()
	c.asked.Add(1)
	if status, _ := c.send("POST", "/logout", session); status != http.StatusOK {
		c.failed.Add(1)
	}
	c.stranger(session)
}

// away logs user i out and in again, and lets the user ask on.
func (c *crowd) away(r *realm, i int) {
	c.logout(i)
	c.login(r, i)
	c.both(i)
}

// stranger sends a request with a token that is no session's.
func (c *crowd) stranger(token string) {
	c.asked.Add(1)
	if status, _ := c.send("GET", "/orders/mine", token); status != http.StatusUnauthorized {
		c.late.Add(1)
	}
}

// each calls do for the users from one to another, atOnce of them at a time.
func (c *crowd) each(from, to int, do func(i int)) {
	next := make(chan int)
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := from; i < to; i++ {
		next <- i
	}
	close(next)
	wg.Wait()
}
