// Which answers mean that a token is bad. auth_transport.go acts on a refusal.

package requestforge

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/requestforge/requestforge/internal/challenge"
	"github.com/requestforge/requestforge/internal/roundtrip"
)

// A refuser says which answers refuse a token: AuthTransport.Refused and RefusedStatus.
type refuser struct {
	ask  func(*http.Response) bool
	also []int
}

// refused reports whether resp means that tok is bad, and notes on tok if resp
// means the opposite.
func (r refuser) refused(tok *Token, resp *http.Response) bool {
	var bad bool
	if r.ask != nil {
		roundtrip.Show(resp, func(shown *http.Response) { bad = r.ask(shown) })
	} else {
		status := resp.StatusCode == http.StatusUnauthorized || slices.Contains(r.also, resp.StatusCode)
		bad = status && challenged(resp) == challenge.Refused
	}
	if !bad && accepts(resp) {
		tok.accept()
	}
	return bad
}

// usual reports whether resp says nothing new of tok, which a server has accepted before.
// By far most answers are usual.
func (r refuser) usual(tok *Token, resp *http.Response) bool {
	return r.ask == nil && resp.StatusCode < 400 && tok.taken()
}

// check returns the mistakes in the fields that define a refusal.
func (r refuser) check() (errs []error) {
	if r.ask != nil && len(r.also) > 0 {
		errs = append(errs, errors.New("RefusedStatus is set, and so is Refused, which decides alone; leave one of them out"))
	}
	for _, status := range r.also {
		if status < 400 || status > 599 {
			errs = append(errs, fmt.Errorf("RefusedStatus has %d; where an answer that isn't an error refuses, Refused has to read it", status))
		}
	}
	return errs
}

// accepts reports whether resp shows a good token.
func accepts(resp *http.Response) bool {
	return resp.StatusCode < 400 || challenged(resp) == challenge.Insufficient
}

// challenged returns the verdict of resp's challenges on the token. Challenges of answers
// other than 401 and 403 say nothing.
func challenged(resp *http.Response) challenge.Verdict {
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return challenge.VerdictOf(resp.Header)
	}
	return challenge.Refused
}
