// The request of an HTTPFetcher: the body, the headers, and the values of earlier tokens. The
// request's allowed targets are in http_fetcher_check.go.

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
	"runtime/debug"
	"slices"
	"strings"

	"github.com/requestforge/requestforge/internal/flight"
	"github.com/requestforge/requestforge/internal/httpname"
	"github.com/requestforge/requestforge/internal/redact"
)

// request makes the request, ready to be sent. A panic in a function of the program becomes
// an error, which shows that nothing was sent. client may be nil.
func (f *HTTPFetcher) request(ctx context.Context, in Input, client *ClientAuth) (req *http.Request, err error) {
	defer func() {
		if v := recover(); v != nil {
			req, err = nil, &flight.PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f.made(ctx, in, client)
}

func (f *HTTPFetcher) made(ctx context.Context, in Input, client *ClientAuth) (*http.Request, error) {
	body, contentType, err := f.body(in, client)
	if err != nil {
		return nil, err
	}
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body) // NewRequest makes GetBody from r
	}
	target, err := f.target(in)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, f.method(), target, r)
	if err != nil {
		return nil, redact.Cause(err)
	}
	if f.Header != nil {
		req.Header = f.Header.Clone()
	}
	setDefault(req.Header, "Accept", "application/json")
	if contentType != "" {
		setDefault(req.Header, "Content-Type", contentType)
	}
	if a := client; a != nil && !a.InBody {
		// RFC 6749 §2.3.1: form-urlencoded first, so that a colon in
		// the id stays in the id.
		req.SetBasicAuth(url.QueryEscape(a.ID), url.QueryEscape(a.Secret))
	}
	if err := f.carry(req, in); err != nil {
		return nil, err
	}
	if f.Prepare != nil {
		if err := f.prepare(req, in); err != nil {
			return nil, fmt.Errorf("Prepare: %w", err)
		}
	}
	return req, f.checkSend(req)
}

// target returns the URL of the request.
func (f *HTTPFetcher) target(in Input) (string, error) {
	if f.URLFrom == nil {
		return f.URL, nil
	}
	said, err := f.URLFrom(in)
	if err != nil {
		return "", fmt.Errorf("URLFrom: %w", redact.Cause(err))
	}
	base, err := url.Parse(f.URL)
	if err != nil || said == "" {
		return "", errors.New("URLFrom returned no URL")
	}
	// The URL is an answer's words, and so not shown.
	u, err := base.Parse(said)
	switch {
	case err != nil:
		return "", errors.New("URLFrom returned a URL that doesn't parse")
	case u.Host == "":
		return "", errors.New("URLFrom returned a URL without a host, and no URL is set that it could be relative to")
	case u.User != nil:
		return "", errors.New("URLFrom returned a URL with a user in it")
	case !f.among(u):
		return "", errors.New("URLFrom returned a URL whose origin is none of Origins; nothing was sent")
	}
	return u.String(), nil
}

// prepare calls Prepare, and checks the changes.
func (f *HTTPFetcher) prepare(req *http.Request, in Input) error {
	at, host := req.URL.Host, req.Host
	if err := f.Prepare(req, in); err != nil {
		return redact.Cause(err)
	}
	if req.URL == nil {
		return errors.New("removed the URL")
	}
	if req.URL.Host != at && req.Host == host {
		req.Host = req.URL.Host
	}
	if len(f.Origins) > 0 && !f.among(req.URL) {
		return errors.New("the request leads to an origin that is none of Origins")
	}
	return checkURL(req.URL, f.AllowPlaintext)
}

// carry sets the headers of HeaderFrom on req.
func (f *HTTPFetcher) carry(req *http.Request, in Input) error {
	for _, name := range slices.Sorted(maps.Keys(f.HeaderFrom)) {
		value, err := carried(f.HeaderFrom[name], in, strings.EqualFold(name, "Authorization"))
		if err != nil {
			return fmt.Errorf("HeaderFrom %q: %w", name, err)
		}
		maps.DeleteFunc(req.Header, func(k string, _ []string) bool { return strings.EqualFold(k, name) })
		req.Header.Set(name, value)
	}
	return nil
}

// carried returns the value that from names: a parent's token, or a value of the token, with
// the token's scheme first if scheme is true. A value of a token has no type and may contain
// its scheme; a token's scheme is the token's type, however many words the token has.
func carried(from string, in Input, scheme bool) (string, error) {
	step, path := fromStep(from, func(step string) bool { _, ok := in.Parents[step]; return ok })
	tok, ok := in.Parents[step]
	if !ok {
		return "", fmt.Errorf("there is no token of step %q; is it in DependsOn?", step)
	}
	if err := tok.validate(); err != nil {
		return "", fmt.Errorf("step %q: %w", step, err)
	}
	value := tok.AccessToken
	if path != "" {
		switch value = tok.Value(path); {
		case value == "":
			return "", fmt.Errorf("the token of step %q has no value %q", step, path)
		case !httpname.IsValue(value):
			return "", fmt.Errorf("the value %q of step %q holds control characters", path, step)
		}
	}
	if scheme && (path == "" || !strings.Contains(value, " ")) {
		value = tok.Type() + " " + value
	}
	return value, nil
}

// body returns the request's body and the Content-Type, or nil without a body.
func (f *HTTPFetcher) body(in Input, client *ClientAuth) (body []byte, contentType string, err error) {
	const asForm, asJSON = "application/x-www-form-urlencoded", "application/json"

	v, err := f.payload(in)
	if err != nil {
		return nil, "", err
	}
	if client != nil && !client.InBody {
		client = nil
	}
	switch v := v.(type) {
	case nil:
		return nil, "", nil
	case plainBytes:
		if client != nil {
			return nil, "", errors.New("ClientAuth.InBody: BodyFrom has returned bytes, which nothing can be put into")
		}
		return v, "", nil
	case form:
		values := url.Values(v)
		if client != nil {
			values = client.fill(values)
		}
		return []byte(values.Encode()), asForm, nil
	}
	body, err = json.Marshal(v)
	if err != nil {
		return nil, "", fmt.Errorf("the body can't be marshalled: %w", redact.Cause(err))
	}
	if client != nil {
		body, err = client.join(body)
	}
	return body, asJSON, err
}

// form and plainBytes are bodies that aren't JSON. Both are separate types, so that a value
// of JSON of any type is JSON.
type (
	form       url.Values
	plainBytes []byte
)

// payload returns the source of the body: nil, a form, plainBytes, or a value for JSON.
func (f *HTTPFetcher) payload(in Input) (any, error) {
	v := f.json()
	switch {
	case f.BodyFrom != nil:
		var err error
		if v, err = f.BodyFrom(in); err != nil {
			return nil, fmt.Errorf("BodyFrom: %w", redact.Cause(err))
		}
		switch said := v.(type) {
		case url.Values:
			v = form(said)
		case []byte:
			v = plainBytes(said)
		}
	case f.Form != nil:
		v = form(f.Form)
	}
	if v == nil && f.ClientAuth != nil && f.ClientAuth.InBody {
		v = form{}
	}
	return v, nil
}

// json returns JSON as a value for encoding/json: a []byte becomes a json.RawMessage, since
// encoding/json would encode a []byte in base64.
func (f *HTTPFetcher) json() any {
	if text, ok := f.JSON.([]byte); ok {
		return json.RawMessage(text)
	}
	return f.JSON
}

// setDefault sets a header unless h has the header in any spelling.
func setDefault(h http.Header, name, value string) {
	for k := range h {
		if strings.EqualFold(k, name) {
			return
		}
	}
	h.Set(name, value)
}
