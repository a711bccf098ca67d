// The answer of an auth server to an HTTPFetcher: whether the answer is a refusal, and the
// places of the token's parts in the answer.

package requestforge

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/requestforge/requestforge/internal/html"
	"github.com/requestforge/requestforge/internal/httpname"
	"github.com/requestforge/requestforge/internal/loginjar"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/tokenjson"
)

const (
	maxResponse = 1 << 20  // of a token
	maxRefusal  = 64 << 10 // of an error code
)

// answer is a response, with the part of the body that was read.
type answer struct {
	resp *http.Response
	at   time.Time     // arrival of the header
	what string        // method and masked URL
	jar  *loginjar.Jar // with the cookies of the login; nil: the cookies aren't needed
	stay error         // the reason why the redirect in resp wasn't followed; nil: no redirect, or Client has decided

	body    []byte
	readErr error // the body broke off
}

// ok reports whether the status is 2xx.
func (a *answer) ok() bool { return 200 <= a.resp.StatusCode && a.resp.StatusCode <= 299 }

// read reads the body up to the bound and a byte more, which shows that the body is too
// large.
func (a *answer) read() {
	limit := int64(maxRefusal)
	if a.ok() || a.redirects() {
		limit = maxResponse
	}
	a.body, a.readErr = io.ReadAll(io.LimitReader(a.resp.Body, limit+1))
}

// whole returns an error unless the body was read to its end.
func (a *answer) whole() error {
	switch {
	case a.readErr != nil:
		return a.fail(fmt.Errorf("the response broke off: %w", redact.Cause(a.readErr)))
	case len(a.body) > maxResponse:
		return a.fail(errors.New("the response is larger than 1 MiB"))
	}
	return nil
}

// fail returns an error about an answer whose body gives no reason.
func (a *answer) fail(err error) *AuthError { return a.refuse(nil, err) }

// refuse returns an error about an answer whose body may give the reason.
func (a *answer) refuse(body []byte, err error) *AuthError {
	e := classify(a.resp, body, a.at, fmt.Errorf("%s: %w", a.what, err))
	e.answer = answerOf(a.resp, a.body)
	return e
}

// clock is when the answer came.
func (a *answer) clock() tokenjson.Clock {
	return tokenjson.Clock{Now: a.at, Date: loginjar.Date(a.resp)}
}

// shown is the response for a function of the program, which may read the body again.
func (a *answer) shown() *http.Response {
	resp := *a.resp
	resp.Body = io.NopCloser(bytes.NewReader(a.body))
	return &resp
}

// refused returns the answer's refusal, or nil if the answer may hold a token.
func (f *HTTPFetcher) refused(ans *answer) *AuthError {
	if f.Classify != nil {
		if said := f.Classify(ans.shown(), ans.body); said != nil {
			return ans.classified(*said)
		}
	}
	switch {
	case ans.ok(), ans.redirects() && (f.Read != nil || f.elsewhere(ans) != ""):
		return nil
	case ans.stay != nil:
		return ans.refuse(ans.body, fmt.Errorf("%w: %w", statusError(ans.resp.StatusCode), ans.stay))
	}
	return ans.refuse(ans.body, statusError(ans.resp.StatusCode))
}

// redirects reports whether the answer is a redirect that wasn't followed.
func (a *answer) redirects() bool {
	return 300 <= a.resp.StatusCode && a.resp.StatusCode <= 399 && a.resp.Header.Get("Location") != ""
}

// classified completes the AuthError of Classify. If Classify decides nothing, the code in
// the body decides whether the failure is permanent.
func (a *answer) classified(said AuthError) *AuthError {
	cause := cmp.Or(redact.Answer(said.Err, a.body, noURL), error(statusError(a.resp.StatusCode)))
	own := a.refuse(a.body, cause)
	own.RetryAfter = cmp.Or(said.RetryAfter, own.RetryAfter)
	own.StatusCode = cmp.Or(said.StatusCode, own.StatusCode)
	if said.Code != "" {
		own.Code = ""
		own.withCode(said.Code)
	}
	verdict := said.Temporary || said.Permanent || said.ParentRefused || said.RefreshRefused
	if verdict {
		own.Temporary, own.Permanent, own.ParentRefused, own.RefreshRefused = said.Temporary, said.Permanent, said.ParentRefused, said.RefreshRefused
	}
	if verdict || own.StatusCode < 400 { // a refusing status alone means no more than usual
		own.page, own.read = false, true // the program knows the sender and the meaning of the answer
	}
	return own
}

// token reads the token from an answer that isn't a refusal.
func (f *HTTPFetcher) token(ans *answer, in Input) (*Token, error) {
	var tok *Token
	var zero bool
	var err error
	if f.Read != nil {
		tok, err = f.byFunction(ans, in)
	} else {
		tok, zero, err = f.byFields(ans)
	}
	if err != nil {
		return nil, err
	}
	if ans.jar != nil {
		tok.jar = ans.jar // empty or not: the answer may have ended cookies of the token before
	}
	tok.TokenType = cmp.Or(tok.TokenType, f.TokenType)
	tok.AccessToken = strings.Trim(tok.AccessToken, tokenjson.Blanks)
	if f.splitScheme(tok); f.Read == nil {
		tokenjson.Scrub(tok.Extra, tok.AccessToken)
	}
	if zero && tok.Expiry.IsZero() && in.endsNow(tok.AccessToken, ans.at) {
		ended := ans.fail(errEnded)
		ended.Temporary = true
		return nil, ended
	}
	if err := f.keepHeaders(tok, ans.resp.Header); err != nil {
		return nil, ans.fail(err)
	}
	if err := tok.validate(); err != nil {
		bad := ans.fail(err)
		bad.RefreshRefused = in.rotates(tok)
		return nil, bad
	}
	return tok, nil
}

// errEnded is the error for a token that a server has handed out before and that ends now.
var errEnded = errors.New("the server hands out the token that it handed out before, which ends now")

// byFields reads the token by the fields. zero means that the lifetime is 0.
func (f *HTTPFetcher) byFields(ans *answer) (tok *Token, zero bool, err error) {
	read := f.fromField
	switch {
	case f.TokenHeader != "" || f.TokenCookie != "":
		read = f.fromHeader
	case f.TokenField == wholeBody:
		read = f.fromWhole
	}
	r, err := read(ans)
	if err != nil {
		return nil, false, err
	}
	return &Token{AccessToken: r.Token, TokenType: r.Type, RefreshToken: r.Refresh, Expiry: r.Expiry, Extra: r.Extra}, r.Zero, nil
}

// byFunction asks Read.
func (f *HTTPFetcher) byFunction(ans *answer, in Input) (*Token, error) {
	if err := ans.whole(); err != nil {
		return nil, err
	}
	tok, err := f.Read(in, ans.shown(), ans.body)
	if auth, ok := errors.AsType[*AuthError](err); ok && auth != nil && auth.Step == "" {
		said := *auth
		if err != error(auth) {
			said.Err = err // with the text that the function has put around the AuthError
		}
		return nil, ans.classified(said)
	}
	switch {
	case err != nil:
		return nil, ans.refuse(ans.body, fmt.Errorf("Read: %w", redact.Answer(err, ans.body, noURL)))
	case tok == nil:
		return nil, ans.fail(errors.New("Read returned no token"))
	}
	own := *tok // the function may return the same token many times
	own.prov = nil
	return &own, nil
}

// fields returns the paths for reading the body.
func (f *HTTPFetcher) fields() tokenjson.Fields {
	return tokenjson.Fields{Token: f.TokenField, Type: f.TypeField, Refresh: f.RefreshField, ExpiresIn: f.ExpiresInField, ExpiresAt: f.ExpiresAtField}
}

// fromHeader reads a token from a header or a cookie, and the token's other parts from a JSON
// body.
func (f *HTTPFetcher) fromHeader(ans *answer) (r tokenjson.Response, err error) {
	var expiry time.Time
	token := ""
	if f.TokenCookie != "" {
		c := ans.cookie(f.TokenCookie)
		if c == nil {
			return r, ans.missing(fmt.Errorf("the response sets no cookie %q", f.TokenCookie))
		}
		token, expiry = c.Value, loginjar.End(c, ans.at, loginjar.Date(ans.resp))
	} else {
		values := ans.resp.Header.Values(f.TokenHeader)
		switch {
		case len(values) == 0 || len(values) == 1 && values[0] == "":
			return r, ans.missing(fmt.Errorf("the response has no header %q", f.TokenHeader))
		case len(values) > 1:
			return r, ans.fail(fmt.Errorf("the response has %d headers %q", len(values), f.TokenHeader))
		}
		token = values[0]
	}
	body, err := f.beside(ans)
	if err != nil {
		return r, err
	}
	r, err = tokenjson.Beside(body, token, f.fields(), ans.clock())
	if err != nil {
		return r, ans.refuse(ans.body, err)
	}
	if !expiry.IsZero() && (r.Expiry.IsZero() || expiry.Before(r.Expiry)) {
		r.Expiry = expiry
	}
	return r, nil
}

// beside returns the body of an answer with the token elsewhere. A body that is too large
// holds no part of the token, unless the program has set a field; a broken body may have lost
// the expiry and the refresh token.
func (f *HTTPFetcher) beside(ans *answer) ([]byte, error) {
	err := ans.whole()
	switch named := f.TypeField + f.RefreshField + f.ExpiresInField + f.ExpiresAtField; {
	case err == nil:
		return ans.body, nil
	case ans.readErr == nil && named == "":
		return nil, nil
	}
	return nil, err
}

// missing returns an error about an answer without a token in the expected place.
func (a *answer) missing(err error) error {
	if a.ok() && isPage(a.resp.Header, a.body) {
		err = errHTML
	}
	return a.refuse(a.body, err)
}

// fromWhole reads the whole body as a token.
func (f *HTTPFetcher) fromWhole(ans *answer) (r tokenjson.Response, err error) {
	if err := ans.whole(); err != nil {
		return r, err
	}
	if html.Begins(ans.body) {
		return r, ans.fail(errHTML)
	}
	r, err = tokenjson.Whole(ans.body, ans.clock())
	if err != nil {
		return r, ans.refuse(ans.body, err)
	}
	// Only Bearer is surely a scheme here: a refusal in words, "Token expired", looks like a
	// token with a scheme.
	tok := &Token{AccessToken: r.Token, TokenType: f.TokenType}
	if splitScheme(tok, "Bearer"); strings.ContainsAny(tok.AccessToken, " \t\r\n<>") {
		return r, ans.fail(errors.New("the body is a text of several words, and no token"))
	}
	return r, nil
}

// fromField reads a token from a field of a JSON body.
func (f *HTTPFetcher) fromField(ans *answer) (r tokenjson.Response, err error) {
	if err := ans.whole(); err != nil {
		return r, err
	}
	if isPage(ans.resp.Header, ans.body) {
		return r, ans.fail(errHTML)
	}
	r, err = tokenjson.Parse(ans.body, f.fields(), ans.clock())
	if err != nil {
		// Some servers refuse with a 200.
		return r, ans.refuse(ans.body, err)
	}
	return r, nil
}

// splitScheme splits a scheme that a server has put before the token, and makes the scheme
// the token's type, so that the token doesn't get another scheme.
func (f *HTTPFetcher) splitScheme(tok *Token) {
	if strings.EqualFold(f.TokenHeader, "Authorization") {
		scheme, _, _ := strings.Cut(tok.AccessToken, " ")
		splitScheme(tok, scheme)
		return
	}
	splitScheme(tok, "Bearer", "Basic", "DPoP", "MAC", "Token")
}

// splitScheme splits tok if the scheme is among schemes, or equals tok's type.
func splitScheme(tok *Token, schemes ...string) {
	scheme, rest, ok := strings.Cut(tok.AccessToken, " ")
	if rest = strings.TrimLeft(rest, " "); !ok || rest == "" || strings.Contains(rest, " ") || !httpname.IsToken(scheme) {
		return
	}
	if slices.ContainsFunc(append(schemes, tok.TokenType), func(t string) bool { return strings.EqualFold(t, scheme) }) {
		tok.TokenType, tok.AccessToken = scheme, rest
	}
}

// keepHeaders puts the headers that KeepHeaders names into Extra. A stored Extra is JSON,
// which can hold only UTF-8, so other bytes are an error.
func (f *HTTPFetcher) keepHeaders(tok *Token, h http.Header) error {
	kept := map[string]any{}
	for _, name := range f.KeepHeaders {
		values := h.Values(name)
		if slices.ContainsFunc(values, func(v string) bool { return !utf8.ValidString(v) }) {
			return fmt.Errorf("the header %q, which KeepHeaders names, is not UTF-8; Read can convert and keep the value", name)
		}
		switch len(values) {
		case 0:
		case 1:
			kept[name] = values[0]
		default:
			all := make([]any, len(values))
			for i, v := range values {
				all[i] = v
			}
			kept[name] = all
		}
	}
	if len(kept) == 0 {
		return nil
	}
	for name, v := range tok.Extra { // which may be the program's own
		if _, ok := kept[name]; !ok {
			kept[name] = v
		}
	}
	tok.Extra = kept
	return nil
}

// elsewhere returns the token in the header or cookie that the fields name, or "".
func (f *HTTPFetcher) elsewhere(ans *answer) string {
	switch {
	case f.TokenHeader != "":
		return ans.resp.Header.Get(f.TokenHeader)
	case f.TokenCookie != "":
		if c := ans.cookie(f.TokenCookie); c != nil {
			return c.Value
		}
	}
	return ""
}

// cookie returns the last cookie of a name that the response, or a redirect before the
// response, has set and not taken back since; nil if there is none. Taking back a cookie
// affects only the cookie of the same name, domain and path.
func (a *answer) cookie(name string) *http.Cookie {
	type lineFrom struct {
		from *url.URL
		line *http.Cookie
	}
	var back []lineFrom
	for resp := a.resp; resp != nil; {
		from, date := new(url.URL), loginjar.Date(resp)
		if resp.Request != nil && resp.Request.URL != nil {
			from = resp.Request.URL
		}
		for _, c := range slices.Backward(resp.Cookies()) {
			if c.Name != name {
				continue
			}
			if end := loginjar.End(c, a.at, date); c.Value == "" || !end.IsZero() && !end.After(a.at) {
				back = append(back, lineFrom{from, c})
			} else if !slices.ContainsFunc(back, func(b lineFrom) bool { return loginjar.Same(b.from, b.line, from, c) }) {
				return c
			}
		}
		if resp.Request == nil {
			break
		}
		resp = resp.Request.Response
	}
	return nil
}
