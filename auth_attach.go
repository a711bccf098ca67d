// How a token gets onto an outgoing request: by the places, and by Prepare.
// auth_transport.go decides which requests get a token.

package requestforge

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"github.com/requestforge/requestforge/internal/cookieline"
	"github.com/requestforge/requestforge/internal/flight"
	"github.com/requestforge/requestforge/internal/loginjar"
	"github.com/requestforge/requestforge/internal/mistake"
	"github.com/requestforge/requestforge/internal/rawquery"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/roundtrip"
)

// attachment is the sum of AuthTransport.Attach, Prepare and OnConflict. Immutable.
type attachment struct {
	places  []Place
	header  spelling // the only place, if the place is a header for the access token; else ""
	bare    bool     // header gets the token without its type
	headers bool     // a place, or Prepare, needs a copy of the request's header
	replace bool     // a caller's own value in a place goes
	prepare func(out *http.Request, tok *Token) error
}

// newAttachment returns the attachment of the three fields, and their mistakes for tokens of
// src.
func newAttachment(src TokenSource, attach []Place, prepare func(*http.Request, *Token) error, replace bool) (attachment, []error) {
	a := attachment{places: slices.Clone(attach), replace: replace, prepare: prepare, headers: prepare != nil}
	if attach == nil {
		a.places = []Place{{Header: "Authorization"}}
	}
	if len(a.places) == 0 && prepare == nil {
		if c, ok := src.(interface{ keepsCookies() bool }); !ok || !c.keepsCookies() {
			return a, []error{errors.New("Attach is empty, Prepare nil, and the tokens of Source have no cookies, so that nothing would carry the token; leave Attach out for Authorization")}
		}
		return a, nil
	}
	errs := a.check()
	for i := range a.places {
		p := &a.places[i]
		p.Header = string(p.spelling())
		a.headers = a.headers || p.Query == ""
	}
	if len(a.places) == 1 && prepare == nil {
		if p := a.places[0]; p.Header != "" && p.Value == "" && p.Text == "" && p.Scheme == "" {
			a.header, a.bare = p.spelling(), p.Bare || p.Header != "Authorization"
		}
	}
	return a, errs
}

// check returns the mistakes in the places.
func (a *attachment) check() (errs []error) {
	type key struct{ header, query, cookie string }
	seen := make(map[key]bool)
	for i, p := range a.places {
		for _, err := range p.check() {
			errs = append(errs, fmt.Errorf("Attach[%d], %s: %w", i, p.name(), err))
		}
		k := key{string(p.spelling()), p.Query, p.Cookie}
		if seen[k] {
			errs = append(errs, fmt.Errorf("Attach[%d], %s: is there twice", i, p.name()))
		}
		seen[k] = true
	}
	return errs
}

// conflict returns the place with a value of the caller's own, "" without such a place.
func (a *attachment) conflict(req *http.Request) string {
	if req.URL.User != nil {
		return "user information in the URL"
	}
	if a.header != "" { // the usual case
		if a.header.in(req.Header) {
			return a.places[0].name()
		}
		return ""
	}
	for i := range a.places {
		if p := &a.places[i]; p.taken(req) {
			return p.name()
		}
	}
	return ""
}

// single returns the ready-made value of the header, if the header is the only place.
func (a *attachment) single(tok *Token) (value string, ok bool) {
	if a.header == "" || tok.jar != nil {
		return "", false
	}
	value, err := tok.headerValue(a.bare)
	return value, err == nil
}

// put puts tok onto out, a copy of req, by the places and by Prepare. values makes the
// values of a header out of a single value. After an error the body of out is closed.
func (a *attachment) put(out, req *http.Request, tok *Token, values func(string) []string) error {
	if value, ok := a.single(tok); ok {
		out.Header = a.header.put(req.Header, values(value), a.replace)
		return nil
	}
	_, err := tok.headerValue(false)
	if err == nil {
		err = a.putEach(out, req, tok, values)
	}
	if err != nil {
		roundtrip.CloseBody(out)
	}
	return err
}

// putEach is put where there is more to do than to set one header.
func (a *attachment) putEach(out, req *http.Request, tok *Token, values func(string) []string) error {
	if a.headers || tok.jar != nil || req.Header == nil {
		if out.Header = maps.Clone(req.Header); out.Header == nil {
			out.Header = make(http.Header)
		}
	}
	for i := range a.places {
		if err := a.places[i].put(out, tok, a.replace, values); err != nil {
			return err
		}
	}
	if tok.jar != nil {
		putLogin(out, tok.jar, values)
	}
	if len(a.places) == 0 && a.prepare == nil && tok.jar.Len() == 0 {
		return mistake.Final(fmt.Errorf("requestforge: Attach is empty, and the token%s has no cookies: nothing would carry it", tok.ofStep()))
	}
	if a.prepare == nil {
		return nil
	}
	u := *out.URL
	out.URL = &u
	for name, values := range out.Header {
		out.Header[name] = slices.Clone(values)
	}
	err := prepared(a.prepare, out, tok)
	if out.Header == nil { // see exchange.request
		out.Header = make(http.Header)
	}
	return err
}

// putLogin puts the cookies of a login onto out, as far as their domains and paths say
// so. They come after those of the places, which are as old as the token: an API may have
// renewed them.
func putLogin(out *http.Request, jar *loginjar.Jar, values func(string) []string) {
	var cookies []cookieline.Cookie
	for _, c := range jar.Cookies(out.URL) {
		if pair := c.String(); pair != "" {
			cookies = append(cookies, cookieline.Cookie{Name: c.Name, Pair: pair})
		}
	}
	putCookies(out.Header, values, cookies...)
}

// prepared lets a Prepare change out. A body that Prepare replaces is closed. A panic of
// Prepare is an error.
func prepared(prepare func(*http.Request, *Token) error, out *http.Request, tok *Token) (err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		if value := recover(); value != nil {
			err = mistake.Final(fmt.Errorf("requestforge: Prepare: %w", &flight.PanicError{Value: value}))
		} else {
			roundtrip.CloseBody(out) // runtime.Goexit
		}
	}()
	body := showBody(out)
	defer func() {
		if used := body.settle(out); used != nil && err == nil {
			err = used
		}
	}()
	err = prepare(out, tok)
	returned = true
	if err != nil {
		return mistake.Final(fmt.Errorf("requestforge: Prepare: %w", redact.Words(err)))
	}
	return nil
}

// shownBody is a request's body while Prepare has the request in hand. The address of the
// shownBody shows afterwards whether Prepare has replaced the body: bodies themselves may be
// of a type that can't be compared.
type shownBody struct {
	body    io.ReadCloser
	getBody func() (io.ReadCloser, error)
	used    bool // Prepare may have read some of the body
	closed  bool
	asked   bool // settle looks for the owner of GetBody
	ours    bool // the answer
}

func showBody(out *http.Request) *shownBody {
	if out.Body == nil || out.Body == http.NoBody {
		return nil
	}
	b := &shownBody{body: out.Body, getBody: out.GetBody}
	out.Body = b
	if b.getBody != nil {
		out.GetBody = b.get
	}
	return b
}

func (b *shownBody) Read(p []byte) (int, error) {
	b.used = true
	return b.body.Read(p)
}

func (b *shownBody) Close() error {
	if b.closed {
		return nil
	}
	b.closed = true
	return b.body.Close()
}

func (b *shownBody) get() (io.ReadCloser, error) {
	if b.asked {
		b.ours = true
		return nil, errors.ErrUnsupported
	}
	b.used = true // a body kept as it streams past goes to the last reader
	return b.getBody()
}

var errUsedBody = mistake.Final(errors.New("requestforge: Prepare has read the request's body, which can't be had again: it is longer than MaxReplayBody, or was left half read; raise MaxReplayBody, or let Prepare set another Body"))

// settle gives the shown body to out, from its first byte, if out still has the shownBody.
// Else the body is closed, and GetBody removed, which net/http would call by itself.
func (b *shownBody) settle(out *http.Request) error {
	if b == nil {
		return nil
	}
	if out.Body != io.ReadCloser(b) {
		b.Close()
		b.forget(out)
		return nil
	}
	out.Body, out.GetBody = b.body, b.getBody
	if !b.used && !b.closed {
		return nil
	}
	if b.getBody == nil {
		return errUsedBody
	}
	fresh, err := b.getBody()
	if err != nil || fresh == nil {
		return errUsedBody
	}
	b.Close()
	out.Body = fresh
	return nil
}

// forget takes the way to have the body that was shown from out.
func (b *shownBody) forget(out *http.Request) {
	if b.getBody == nil || out.GetBody == nil {
		return
	}
	b.asked = true
	if other, _ := out.GetBody(); b.ours {
		out.GetBody = nil
	} else if other != nil {
		other.Close()
	}
}

// addsQuery reports whether something may be put into a request's query.
func (a *attachment) addsQuery() bool {
	return a.prepare != nil || slices.ContainsFunc(a.places, func(p Place) bool { return p.Query != "" })
}

// unquery removes the parameters that the query of sent has and the query of asked lacks
// from the URLs in the header of resp, whose server has sent the query back: the caller's
// next hop gets no token.
func unquery(resp *http.Response, sent, asked *url.URL) {
	if sent.RawQuery == asked.RawQuery {
		return
	}
	var added []rawquery.Param
	for _, name := range []string{"Location", "Content-Location", "Link"} {
		lines := resp.Header[name]
		if len(lines) == 0 {
			continue
		}
		if added == nil {
			added = rawquery.Added(sent.RawQuery, asked.RawQuery)
			resp.Header = maps.Clone(resp.Header) // the map may be someone else's too
		}
		clean := make([]string, len(lines))
		for i, line := range lines {
			if name == "Link" {
				clean[i] = rawquery.StripLinks(line, added)
			} else {
				clean[i] = rawquery.Strip(line, added)
			}
		}
		resp.Header[name] = clean
	}
}
