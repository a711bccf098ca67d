// The client of a login: a proof with each request, and one more send if the server wants a
// nonce in the proof. The claims of a proof are proof.go's.

package dpop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
)

// Client returns a client for token endpoints, for the field Client of an
// [requestforge.HTTPFetcher] or an oauth2source.Config. The login and each refresh then carry
// a proof by key, and the auth server binds the tokens to key (RFC 9449 §5).
//
// Each send has a new proof for the URL of that send, each hop of a redirect included. If a
// request carries a token in Authorization, with the scheme DPoP, the proof has the hash of
// that token. A 400 or 401 that asks for a nonce and brings one (use_dpop_nonce, §8) is answered
// once: the request is sent again with the nonce. A request whose body has no GetBody can't be
// sent again; the caller gets the answer, its body readable. Nonces are remembered as by
// [Key.Learn], but apart from the nonces there.
//
// base sends the requests; nil means http.DefaultTransport, looked up at each request. The
// client has neither Timeout nor Jar. A program may set the client's fields before the first
// request, except Transport. Transport leaves the caller's request unchanged, has Unwrap and
// CloseIdleConnections, and is safe for concurrent use. A nil or zero key, or a base with a nil
// pointer in it, is the error of every request.
func Client(key *Key, base http.RoundTripper) *http.Client {
	return newClient(func(context.Context) (*Key, error) { return key, nil }, base)
}

func newClient(keys Keys, base http.RoundTripper) *http.Client {
	t := &transport{keys: keys, base: base}
	if v := reflect.ValueOf(base); v.Kind() == reflect.Pointer && v.IsNil() {
		t.err = fmt.Errorf(prefix+"Client: base is a nil %T; use nil alone for http.DefaultTransport", base)
	}
	return &http.Client{Transport: t}
}

// transport puts a proof onto each request.
type transport struct {
	keys Keys
	base http.RoundTripper // nil: http.DefaultTransport, looked up at each request
	err  error             // in base
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	key, err := t.key(req.Context())
	if err != nil {
		closeBody(req.Body)
		return nil, err
	}
	resp, again, err := t.send(key, req, req.Body)
	if !again {
		return resp, err
	}
	body, ok := rewound(req)
	if !ok {
		return resp, nil
	}
	resp.Body.Close() // refused has read the body, so the connection is free
	resp, _, err = t.send(key, req, body)
	return resp, err
}

func (t *transport) key(ctx context.Context) (*Key, error) {
	if t.err != nil {
		return nil, t.err
	}
	return t.keys.of(ctx)
}

// send sends req once, with body, and reports whether the answer asks for another send.
func (t *transport) send(key *Key, req *http.Request, body io.ReadCloser) (resp *http.Response, again bool, err error) {
	out := *req
	out.Body = body
	if out.Header = req.Header.Clone(); out.Header == nil {
		out.Header = make(http.Header)
	}
	token := boundToken(&out)
	if err := key.sign(&out, token); err != nil {
		closeBody(body)
		return nil, false, err
	}
	resp, err = t.lower().RoundTrip(&out)
	if err != nil || resp == nil {
		return nil, false, err
	}
	if resp.Request == &out {
		resp.Request = req // without the proof
	}
	if !key.learn(resp, server{originOf(out.URL), token != ""}) {
		return resp, false, nil
	}
	return resp, refused(resp), nil
}

// maxAnswer is how much of an error's body is read, in bytes.
const maxAnswer = 64 << 10

// refused reports whether resp, which has brought a nonce, asks for the nonce. The body stays
// readable from the first byte.
func refused(resp *http.Response) bool {
	if resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusUnauthorized {
		return false
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	rest := io.Reader(resp.Body)
	if err != nil {
		rest = failed{err}
	}
	resp.Body = &readBody{io.MultiReader(bytes.NewReader(data), rest), resp.Body}
	if challenged(resp) {
		return true
	}
	var answer struct {
		Error string `json:"error"`
	}
	return err == nil && json.Unmarshal(data, &answer) == nil && answer.Error == nonceWanted
}

// readBody is a body of which the beginning was read before.
type readBody struct {
	io.Reader
	io.Closer
}

// failed is the end of a body after an error, which each further Read returns.
type failed struct{ err error }

func (f failed) Read([]byte) (int, error) { return 0, f.err }

// rewound returns the body of req for one more send, or false without a GetBody.
func rewound(req *http.Request) (io.ReadCloser, bool) {
	if req.Body == nil || req.Body == http.NoBody {
		return req.Body, true
	}
	if req.GetBody == nil {
		return nil, false
	}
	body, err := req.GetBody()
	return body, err == nil
}

func closeBody(body io.Closer) {
	if body != nil {
		body.Close()
	}
}

func (t *transport) lower() http.RoundTripper {
	if t.base == nil {
		return http.DefaultTransport
	}
	return t.base
}

// Unwrap returns the transport below.
func (t *transport) Unwrap() http.RoundTripper { return t.lower() }

// WrappedRoundTripper is Unwrap, by the name that k8s.io/client-go looks for.
func (t *transport) WrappedRoundTripper() http.RoundTripper { return t.lower() }

// CloseIdleConnections passes the call on to the transport below.
func (t *transport) CloseIdleConnections() {
	if c, ok := t.lower().(interface{ CloseIdleConnections() }); ok && t.err == nil {
		c.CloseIdleConnections()
	}
}
