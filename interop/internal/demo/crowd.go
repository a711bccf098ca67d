// Many users of one pipeline, and what must not happen to them.

package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/interop/servers"
)

// User is who a request is for, as the program's middleware has verified.
type User struct {
	Issuer, Name string
	Token        *requestforge.Token // that came with the request
}

type userKey struct{}

// UserOf returns the user of a request's context. There may be none.
func UserOf(ctx context.Context) User {
	u, _ := ctx.Value(userKey{}).(User)
	return u
}

// SubjectOf is a PipelineConfig.Subject.
func SubjectOf(ctx context.Context) (string, error) {
	u := UserOf(ctx)
	return requestforge.SubjectID(u.Issuer, u.Name), nil
}

// Given is a Step.Given.
func Given(ctx context.Context) (*requestforge.Token, error) { return UserOf(ctx).Token, nil }

// NewGrantTap returns a Tap that calls a token request by its grant ("token-exchange"),
// one to resource "resource", and another by its path.
func NewGrantTap(out io.Writer, resource string) *Tap {
	return NewTap(out, func(req *http.Request) string {
		if req.URL.String() == resource {
			return "resource"
		}
		if req.GetBody != nil {
			if body, err := req.GetBody(); err == nil {
				text, _ := io.ReadAll(body)
				if form, _ := url.ParseQuery(string(text)); form.Has("grant_type") {
					grant := form.Get("grant_type")
					return grant[strings.LastIndexByte(grant, ':')+1:]
				}
			}
		}
		return req.URL.Path
	})
}

// Crowd is three users of one pipeline, each of whom comes with a token of their own.
type Crowd struct {
	Home     *servers.Server // where they log in
	Resource *servers.Server // whose resource says whose token it got
	Tap      *Tap
	Tokens   *requestforge.Pipeline
	Client   *http.Client                   // sends through Tap, with Tokens
	Own      func(access, id string) string // the token that they come with

	// Shared is what the first user's call costs beside Login, which is what each
	// user's first costs. Renewal is what a token costs that was revoked at the
	// resource, and Denied what it costs to be refused at home for the first time, as
	// Tap has it. Later it costs one token exchange.
	Shared, Login, Renewal, Denied []string
}

// Tell lets the users call the resource in turn and all at once, has one's token revoked,
// another one locked out, and a third come with tokens that are of no use. The error is nil
// if each call was its user's, if exactly those failed that should have, at once, and if
// nobody's trouble had anybody else send anything but their call.
func (c Crowd) Tell(ctx context.Context) error {
	ann, bob, cy := c.Home.Users.Names[0], c.Home.Users.Names[1], c.Home.Users.Names[2]
	everyone := []string{ann, bob, cy}
	refused := fmt.Sprint("resource ", map[bool]int{true: http.StatusUnauthorized, false: http.StatusForbidden}[c.Resource.Refused == nil])
	ok := []string{"resource 200"}
	all := func(users []string, call func(string) error) error {
		for _, user := range users {
			if err := call(user); err != nil {
				return err
			}
		}
		return nil
	}
	call := func(user string) error { return c.call(ctx, user) }

	c.Tap.Say("Three users come, each with a token of their own.")
	if err := all(everyone, call); err != nil {
		return err
	}
	once := slices.Concat(c.Login, ok)
	if err := c.Tap.Compare(slices.Concat(c.Shared, once, once, once)...); err != nil {
		return err
	}

	c.Tap.Say("They come again, in turn and all at once, from new logins. That costs nothing.")
	if err := all(everyone, call); err != nil {
		return err
	}
	if err := c.atOnce(ctx, everyone, 10); err != nil {
		return err
	}
	if err := c.Tap.Compare(slices.Repeat(ok, 33)...); err != nil {
		return err
	}

	c.Tap.Say("%s's token is revoked at the resource. Nobody is told.", ann)
	if err := c.revoke(ctx, ann); err != nil {
		return err
	}
	if err := all(everyone, call); err != nil {
		return err
	}
	if err := c.Tap.Compare(slices.Concat([]string{refused}, c.Renewal, ok, ok, ok)...); err != nil {
		return err
	}

	c.Tap.Say("%s is locked out at home, and logged out here.", bob)
	if err := c.Home.Users.Lock(ctx, bob); err != nil {
		return err
	}
	if err := c.forget(ctx, bob); err != nil {
		return err
	}
	for range 2 { // each time from a new login, which might be of more use
		if err := c.fails(ctx, bob, time.Hour); err != nil {
			return err
		}
	}
	if err := all([]string{ann, cy}, call); err != nil {
		return err
	}
	if err := c.Tap.Compare(slices.Concat(c.Denied, []string{"token-exchange 400"}, ok, ok)...); err != nil {
		return err
	}

	c.Tap.Say("%s's tokens are forgotten. A token that has expired is no use, and neither is none; a good one is.", cy)
	if err := c.forget(ctx, cy); err != nil {
		return err
	}
	for _, life := range []time.Duration{-time.Second, 0} {
		if err := c.fails(ctx, cy, life); err != nil {
			return err
		}
	}
	if err := c.Tap.Compare(); err != nil {
		return err
	}
	if err := all([]string{cy, ann}, call); err != nil {
		return err
	}
	return c.Tap.Compare(slices.Concat(once, ok)...)
}

// as is the context of a request of the user, from a new login, whose token has so long
// to live. 0 means that the request comes without one.
func (c Crowd) as(ctx context.Context, user string, life time.Duration) (context.Context, error) {
	u := User{Issuer: c.Home.Issuer, Name: user}
	if life != 0 {
		access, id, err := c.Home.Users.Login(ctx, user)
		if err != nil {
			return nil, err
		}
		u.Token = &requestforge.Token{AccessToken: c.Own(access, id), Expiry: time.Now().Add(life)}
	}
	return context.WithValue(ctx, userKey{}, u), nil
}

// call returns an error unless the resource answers the user, as that user.
func (c Crowd) call(ctx context.Context, user string) error {
	as, err := c.as(ctx, user, time.Hour)
	if err != nil {
		return err
	}
	return c.get(as)
}

func (c Crowd) get(ctx context.Context) error {
	user := UserOf(ctx).Name
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Resource.ResourceURL, nil)
	if err != nil {
		return err
	}
	resp, err := c.Client.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", user, err)
	}
	defer resp.Body.Close()
	var answer struct {
		Subject string `json:"sub"`
	}
	err = json.NewDecoder(resp.Body).Decode(&answer)
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s got %s", user, resp.Status)
	}
	if err == nil && answer.Subject != user {
		return fmt.Errorf("%s got the answer of %q", user, answer.Subject)
	}
	return err
}

// atOnce has each user call n times, all at once.
func (c Crowd) atOnce(ctx context.Context, users []string, n int) error {
	errs := make([]error, n*len(users))
	var wg sync.WaitGroup
	for i := range errs {
		as, err := c.as(ctx, users[i%len(users)], time.Hour)
		if err != nil {
			return err
		}
		wg.Go(func() { errs[i] = c.get(as) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// fails returns an error unless the user's call is one of the pipeline's.
func (c Crowd) fails(ctx context.Context, user string, life time.Duration) error {
	as, err := c.as(ctx, user, life)
	if err != nil {
		return err
	}
	err = c.get(as)
	var auth *requestforge.AuthError
	if !errors.As(err, &auth) {
		return fmt.Errorf("%s's call should be an error of the login; it is %v", user, err)
	}
	c.Tap.Say("    %s: %v", user, auth)
	return nil
}

// forget is the user's logout.
func (c Crowd) forget(ctx context.Context, user string) error {
	as, err := c.as(ctx, user, time.Hour)
	if err != nil {
		return err
	}
	return c.Tokens.Forget(as)
}

// revoke has the resource's server revoke what the pipeline sends for the user.
func (c Crowd) revoke(ctx context.Context, user string) error {
	as, err := c.as(ctx, user, time.Hour)
	if err != nil {
		return err
	}
	tok, err := c.Tokens.Token(as)
	if err != nil {
		return err
	}
	return NewWire(io.Discard, c.Resource).Revoke(ctx, c.Resource.ClientID, c.Resource.ClientSecret, tok.AccessToken)
}
