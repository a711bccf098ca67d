// The HTTP exchange that both fetchers share: how the request is made, where
// it may go, and which responses are an error. What the token is read from is
// fetcher.go's.

package requestforge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/requestforge/requestforge/internal/httpname"
	"github.com/requestforge/requestforge/internal/match"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/roundtrip"
)

const (
	maxResponse  = 1 << 20  // of a token
	maxRefusal   = 64 << 10 // of an error code
	maxRedirects = 10
)

var (
	errRedirectAway = errors.New("redirect to another origin not followed, since the credentials would go there too")
	errRedirects    = fmt.Errorf("stopped after %d redirects", maxRedirects)
)

// call is one request of a fetcher; the fields are the fetcher's.
type call struct {
	url, method string
	header      http.Header
	json        any
	form        url.Values
	tokenType   string
	auth        *ClientAuth
	plaintext   bool
	headerFrom  map[string]string
	bodyFrom    func(in Input) (any, error)
	prepare     func(req *http.Request, in Input) error
	client      *http.Client
}

func (c *call) verb() string {
	if c.method == "" {
		return http.MethodPost
	}
	return c.method
}

// String is the request in an error or a log record.
func (c *call) String() string { return c.verb() + " " + redact.Text(c.url) }

// check returns what is wrong with the fields. No value that may be a secret
// is shown.
func (c *call) check() (errs []error) {
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if c.url == "" {
		add("URL is missing")
	} else if u, err := url.Parse(c.url); err != nil {
		add("URL doesn't parse") // the reason may quote a password
	} else if err := checkURL(u, c.plaintext); err != nil {
		errs = append(errs, err)
	}
	if !httpname.IsToken(c.verb()) {
		add("Method %q is none", c.method)
	}
	if c.tokenType != "" && !httpname.IsToken(c.tokenType) {
		add("TokenType %q can't go into an Authorization header", c.tokenType)
	}
	c.checkBody(add)
	authorization := c.checkHeader(add)
	authorization = append(authorization, c.checkHeaderFrom(add)...)
	if c.auth != nil {
		if c.auth.ID == "" {
			add("ClientAuth.ID is missing")
		}
		if !c.auth.InBody {
			authorization = append(authorization, "ClientAuth")
		}
	}
	if len(authorization) > 1 {
		add("%s both set the Authorization header", strings.Join(authorization, " and "))
	}
	return errs
}

// checkBody reports fields that each want to be the request's body.
func (c *call) checkBody(add func(string, ...any)) {
	var bodies []string
	for _, b := range []struct {
		name string
		set  bool
	}{{"JSON", c.json != nil}, {"Form", c.form != nil}, {"BodyFrom", c.bodyFrom != nil}} {
		if b.set {
			bodies = append(bodies, b.name)
		}
	}
	if len(bodies) > 1 {
		add("%s are both set: a request has one body", strings.Join(bodies, " and "))
	}
	if c.auth != nil && c.auth.InBody {
		bodies = append(bodies, "ClientAuth.InBody")
	}
	if m := c.verb(); (m == http.MethodGet || m == http.MethodHead) && len(bodies) > 0 {
		add("%s is set: a %s request has no body", strings.Join(bodies, " and "), m)
	}
}

// checkHeader reports mistakes in Header, and returns which field sets
// Authorization.
func (c *call) checkHeader(add func(string, ...any)) (authorization []string) {
	for _, name := range slices.Sorted(maps.Keys(c.header)) {
		if !httpname.IsToken(name) {
			add("Header %q is no header name", name)
		}
		if slices.ContainsFunc(c.header[name], func(v string) bool { return !httpname.IsValue(v) }) {
			add("Header %q: a value holds control characters", name)
		}
		if strings.EqualFold(name, "Authorization") {
			authorization = append(authorization, "Header")
		}
	}
	return authorization
}

// checkHeaderFrom is checkHeader for HeaderFrom.
func (c *call) checkHeaderFrom(add func(string, ...any)) (authorization []string) {
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(c.headerFrom)) {
		if !httpname.IsToken(name) {
			add("HeaderFrom %q is no header name", name)
		}
		if c.headerFrom[name] == "" {
			add("HeaderFrom %q names no step", name)
		}
		key := http.CanonicalHeaderKey(name)
		if seen[key] {
			add("HeaderFrom %q is there twice, in different case", key)
		}
		seen[key] = true
	}
	if seen["Authorization"] {
		authorization = append(authorization, "HeaderFrom")
	}
	return authorization
}

// checkURL reports why nothing may be sent to u.
func checkURL(u *url.URL, plaintext bool) error {
	switch {
	case u.Scheme != "https" && u.Scheme != "http", u.Host == "":
		return fmt.Errorf("URL %q is not an absolute http or https URL", redact.URL(u))
	case u.Scheme == "http" && !plaintext && !match.Loopback(u):
		return fmt.Errorf("URL %q is plain http to another machine, where every secret can be read on the way: use https or set AllowPlaintext", redact.URL(u))
	}
	return nil
}

// do sends the request. A nil error means a 2xx response, which the caller
// closes.
func (c *call) do(ctx context.Context, in Input) (*answer, error) {
	req, err := c.request(ctx, in)
	if err != nil {
		return nil, &AuthError{Unsent: true, Err: fmt.Errorf("%s: %w", c, err)}
	}
	what := req.Method + " " + redact.URL(req.URL)
	redirected := false
	resp, err := c.httpClient(&redirected).Do(req)
	if err != nil {
		// The URL in err may be the target of a redirect: the server's words.
		at := redact.URL(req.URL)
		err = redact.CauseAt(err, func(string) string { return at })
		if resp == nil && redirected { // with a resp, it is that of a redirect not followed, and closed
			err = fmt.Errorf("%w: %w", errAfterRedirect, err)
		}
		return nil, classify(resp, nil, time.Now(), err)
	}
	ans := &answer{resp: resp, at: time.Now(), what: what}
	if 200 <= resp.StatusCode && resp.StatusCode <= 299 {
		return ans, nil
	}
	defer roundtrip.Discard(ans.resp)
	// What can't be read has no code.
	body, _ := ans.read(maxRefusal)
	return nil, ans.refuse(body, statusError(resp.StatusCode))
}

// request makes the request, ready to be sent.
func (c *call) request(ctx context.Context, in Input) (*http.Request, error) {
	body, contentType, err := c.body(in)
	if err != nil {
		return nil, err
	}
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body) // NewRequest makes GetBody of it
	}
	req, err := http.NewRequestWithContext(ctx, c.verb(), c.url, r)
	if err != nil {
		return nil, redact.Cause(err)
	}
	if c.header != nil {
		req.Header = c.header.Clone()
	}
	setDefault(req.Header, "Accept", "application/json")
	if contentType != "" {
		setDefault(req.Header, "Content-Type", contentType)
	}
	if a := c.auth; a != nil && !a.InBody {
		// RFC 6749 §2.3.1: form-urlencoded first, so that a colon in
		// the id stays in the id.
		req.SetBasicAuth(url.QueryEscape(a.ID), url.QueryEscape(a.Secret))
	}
	if err := c.carry(req, in); err != nil {
		return nil, err
	}
	if c.prepare != nil {
		if err := c.prepare(req, in); err != nil {
			return nil, fmt.Errorf("Prepare: %w", redact.Words(err))
		}
		if req.URL == nil {
			return nil, errors.New("Prepare removed the URL")
		}
		if err := checkURL(req.URL, c.plaintext); err != nil {
			return nil, fmt.Errorf("Prepare: %w", err)
		}
	}
	return req, nil
}

// carry puts the tokens that HeaderFrom names onto req.
func (c *call) carry(req *http.Request, in Input) error {
	for _, name := range slices.Sorted(maps.Keys(c.headerFrom)) {
		step := c.headerFrom[name]
		tok, ok := in.Parents[step]
		if !ok {
			return fmt.Errorf("HeaderFrom %q: there is no token of step %q; is it in DependsOn?", name, step)
		}
		if err := tok.validate(); err != nil {
			return fmt.Errorf("HeaderFrom %q: step %q: %w", name, step, err)
		}
		value := tok.AccessToken
		if strings.EqualFold(name, "Authorization") {
			value = tok.Type() + " " + value
		}
		maps.DeleteFunc(req.Header, func(k string, _ []string) bool { return strings.EqualFold(k, name) })
		req.Header.Set(name, value)
	}
	return nil
}

// body returns the request's body, nil if it has none, and its type.
func (c *call) body(in Input) (body []byte, contentType string, err error) {
	const asForm, asJSON = "application/x-www-form-urlencoded", "application/json"

	var v any
	switch {
	case c.bodyFrom != nil:
		if v, err = c.bodyFrom(in); err != nil {
			return nil, "", fmt.Errorf("BodyFrom: %w", redact.Words(err))
		}
	case c.form != nil:
		v = c.form
	default:
		v = c.json
	}
	inBody := c.auth != nil && c.auth.InBody
	if v == nil && inBody {
		v = url.Values{}
	}
	switch v := v.(type) {
	case nil:
		return nil, "", nil
	case url.Values:
		if inBody {
			v = maps.Clone(v)
			if v == nil {
				v = url.Values{}
			}
			v.Set("client_id", c.auth.ID)
			if c.auth.Secret != "" {
				v.Set("client_secret", c.auth.Secret)
			}
		}
		return []byte(v.Encode()), asForm, nil
	}
	body, err = json.Marshal(v)
	if err != nil {
		return nil, "", fmt.Errorf("the body can't be marshalled: %w", redact.Cause(err))
	}
	if inBody {
		body, err = c.auth.join(body)
	}
	return body, asJSON, err
}

// join adds id and secret to a JSON object.
func (a *ClientAuth) join(object []byte) ([]byte, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(object, &members); err != nil || members == nil {
		return nil, errors.New("ClientAuth.InBody: the JSON body is not an object")
	}
	values := map[string]string{"client_id": a.ID}
	if a.Secret != "" {
		values["client_secret"] = a.Secret
	}
	for name, value := range values {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		members[name] = text
	}
	return json.Marshal(members)
}

// httpClient returns a client that follows no redirect to another origin,
// where the credentials would go along, and says whether it followed any. It
// has c.client's values; c.client itself is the user's.
func (c *call) httpClient(redirected *bool) *http.Client {
	var client http.Client
	if c.client != nil {
		client = *c.client
	}
	ask := client.CheckRedirect
	client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if ask != nil {
			if err := ask(req, via); err != nil {
				return err
			}
		}
		switch {
		case !match.Same(req.URL, via[0].URL):
			// Which one are the server's words, and so not said.
			return errRedirectAway
		case len(via) >= maxRedirects:
			return errRedirects
		}
		*redirected = true
		return nil
	}
	return &client
}

// answer is a response to a call.
type answer struct {
	resp *http.Response
	at   time.Time // when its header arrived
	what string    // method and masked URL
}

// fail is an error about the response.
func (a *answer) fail(err error) *AuthError { return a.refuse(nil, err) }

// refuse is fail for a response whose body may say why.
func (a *answer) refuse(body []byte, err error) *AuthError {
	return classify(a.resp, body, a.at, fmt.Errorf("%s: %w", a.what, err))
}

// read returns the body up to limit, and a byte more if there is more.
func (a *answer) read(limit int64) ([]byte, error) {
	return io.ReadAll(io.LimitReader(a.resp.Body, limit+1))
}

// date is the server's clock, zero if it doesn't say.
func (a *answer) date() time.Time {
	t, err := http.ParseTime(a.resp.Header.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	return t
}

// mediaType is the Content-Type without its parameters, some of which are
// too odd for mime.ParseMediaType.
func (a *answer) mediaType() string {
	t, _, _ := strings.Cut(a.resp.Header.Get("Content-Type"), ";")
	return strings.ToLower(strings.TrimSpace(t))
}

func (a *answer) mayBeJSON() bool {
	switch t := a.mediaType(); t {
	case "", "application/json", "text/json", "text/plain":
		return true
	default:
		return strings.HasSuffix(t, "+json")
	}
}

// isHTML reports whether the response is a page, whatever it calls it: no
// JSON begins with '<'.
func (a *answer) isHTML(body []byte) bool {
	switch a.mediaType() {
	case "text/html", "application/xhtml+xml":
		return true
	}
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	return bytes.HasPrefix(bytes.TrimSpace(body), []byte("<"))
}

func parents(headerFrom map[string]string) []string {
	return slices.Compact(slices.Sorted(maps.Values(headerFrom)))
}

// setDefault sets a header that isn't there yet under any spelling.
func setDefault(h http.Header, name, value string) {
	for k := range h {
		if strings.EqualFold(k, name) {
			return
		}
	}
	h.Set(name, value)
}

// describe is the fetcher's configuration, secrets included, as far as it is
// data.
func (f *BodyFetcher) describe() []byte {
	return append(f.call().describe(), fmt.Sprintf("%q", []string{f.TokenField, f.TypeField, f.RefreshField, f.ExpiresInField, f.ExpiresAtField})...)
}

func (f *HeaderFetcher) describe() []byte {
	return fmt.Appendf(f.call().describe(), "%q", f.TokenHeader)
}

func (c *call) describe() []byte {
	var id, secret string
	var inBody bool
	if c.auth != nil {
		id, secret, inBody = c.auth.ID, c.auth.Secret, c.auth.InBody
	}
	text, err := json.Marshal([]any{c.url, c.method, c.header, c.json, c.form, c.tokenType, id, secret, inBody, c.headerFrom})
	if err != nil {
		return []byte(c.url) // the fetch fails for that reason, too
	}
	return text
}
