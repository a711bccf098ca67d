// How one step turns an HTTP exchange into a token. What is sent, and where
// it may go, is fetcher_request.go's; what can go wrong is auth_error.go's;
// which step is asked, and when, is pipeline.go's.

package requestforge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"

	"github.com/requestforge/requestforge/internal/format"
	"github.com/requestforge/requestforge/internal/httpname"
	"github.com/requestforge/requestforge/internal/mistake"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/roundtrip"
	"github.com/requestforge/requestforge/internal/tokenjson"
)

// Input is what a fetch may use. Its tokens are shared: they must not be
// modified.
type Input struct {
	// Parents holds the token of each step in DependsOn, by its name.
	Parents map[string]*Token

	// Previous is the step's own last token, most likely expired or
	// revoked by now, for the sake of its refresh token. Nil means that
	// there is none, or none that this fetch may use.
	Previous *Token
}

// Fetcher gets the token of one step.
//
//   - It may be called by several goroutines at once, one per pipeline.
//   - It returns a token or an error. A token that has no AccessToken or has
//     already expired counts as an error.
//   - It ends when ctx does: whoever waits for the step waits for it.
//   - It doesn't retry. Which errors are worth another try is decided by the
//     pipeline: network errors and an [AuthError] with status 408, 429 or 5xx
//     are; any other error is not, since a wrong password tried again may
//     lock the account.
//   - Its errors are logged. They must not hold what the server sent.
//   - If it has a method Validate() error, NewPipeline calls it and reports
//     what it returns, before anything is fetched.
type Fetcher interface {
	Fetch(ctx context.Context, in Input) (*Token, error)
}

// FetcherFunc is a function that is a Fetcher.
type FetcherFunc func(ctx context.Context, in Input) (*Token, error)

// Fetch calls f.
func (f FetcherFunc) Fetch(ctx context.Context, in Input) (*Token, error) { return f(ctx, in) }

// ClientAuth is a client's id and secret (RFC 6749 §2.3.1). Printed, it
// shows the id only.
type ClientAuth struct {
	// ID must not be empty. Secret may be, for a public client.
	ID, Secret string

	// InBody puts them into the form or JSON object that is sent, as
	// client_id and client_secret. False means HTTP Basic, which every
	// OAuth server has to offer.
	InBody bool
}

// String returns c without the secret.
func (c ClientAuth) String() string {
	if c.InBody {
		return fmt.Sprintf("ClientAuth(%q in the body)", c.ID)
	}
	return fmt.Sprintf("ClientAuth(%q as HTTP Basic)", c.ID)
}

// Format prints String for every verb.
func (c ClientAuth) Format(s fmt.State, verb rune) { format.Text(s, verb, c.String()) }

// MarshalJSON returns String as a JSON string.
func (c ClientAuth) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

// LogValue returns String.
func (c ClientAuth) LogValue() slog.Value { return slog.StringValue(c.String()) }

// BodyFetcher is a Fetcher that reads the token from the JSON body of an
// HTTP response. With URL, Form and ClientAuth it speaks to any OAuth token
// endpoint; the *Field fields are for servers with names of their own.
//
// The response must have a 2xx status and a Content-Type of JSON
// (application/json, text/json, anything +json), of text/plain or none; it
// must be UTF-8 (a byte order mark is skipped), at most 1 MiB, and one JSON
// object or array without a name twice in any object. An HTML page, which is
// what proxies and captive portals answer with, is taken for a failure that
// may pass. Every failure is an [*AuthError], and none of them shows what was
// sent or received. Redirects are followed within the origin of URL only.
//
// A BodyFetcher may be used by several goroutines at once and must not be
// changed after its first use. Printed, it shows no secret.
type BodyFetcher struct {
	// URL is where the request goes: absolute, https, or http to this
	// machine. It is required.
	URL string

	// Method is the request's method. Empty means POST. GET and HEAD have
	// no body.
	Method string

	// Header is sent as it is; the fetcher adds Content-Type and Accept
	// (application/json) where they are missing. It is copied for each
	// request.
	Header http.Header

	// JSON is the request's body as any value of encoding/json, marshalled
	// at each fetch. Nil means none. At most one of JSON, Form and BodyFrom
	// may be set.
	JSON any

	// Form is the request's body as a form. Nil means none.
	Form url.Values

	// TokenField is where the access token is: a name, or a path of names
	// and array indexes with dots between them ("auth.client_token",
	// "data.0.token"). What is left of a path is first looked for as one
	// name, so the last name may hold dots itself. The other *Field fields
	// are paths too. Empty means "access_token".
	TokenField string

	// TypeField is where the token type is. It may be missing in the
	// response; see TokenType. Empty means "token_type".
	TypeField string

	// RefreshField is where the refresh token is. It may be missing in the
	// response. Empty means "refresh_token".
	RefreshField string

	// ExpiresInField is where the lifetime is: seconds, as a number or in
	// a string, with or without a fraction. Missing, null, "" and 0 mean
	// that the server names none, negative is an error, and a century is
	// the most that is taken. Empty means "expires_in".
	ExpiresInField string

	// ExpiresAtField is where the time of expiry is: RFC 3339, or Unix
	// seconds or milliseconds (told apart by size: from 1e11 on), as a
	// number or in a string. It is read by the clock in the response's
	// Date header if that is more than a second off ours. Missing, null,
	// "" and 0 mean that the server names none, the past is an error. If
	// there is a lifetime too, the earlier of the two counts. Empty means
	// "expires_at", and there alone a value that can't be read is no error.
	ExpiresAtField string

	// TokenType is the type of a token whose response names none. Empty
	// means Bearer.
	TokenType string

	// ClientAuth is who asks. Nil means that the request says it in some
	// other way.
	ClientAuth *ClientAuth

	// AllowPlaintext allows a URL of plain http to another machine. Every
	// secret of the exchange can then be read on the way.
	AllowPlaintext bool

	// HeaderFrom names, for a request header, the step whose token it
	// carries: the bare access token, with its type before it in
	// Authorization. The step must be in DependsOn. A value of the same
	// name in Header is replaced.
	HeaderFrom map[string]string

	// BodyFrom returns the request's body, instead of JSON and Form, if it
	// depends on earlier tokens: url.Values go as a form, nil as no body,
	// anything else as JSON. Put a token's AccessToken there, not the
	// Token, which shows itself without it. To send static data along with
	// an earlier token in a header, HeaderFrom and JSON will do.
	BodyFrom func(in Input) (any, error)

	// Prepare is called last, with the request as it will go out; it may
	// change, and sign, anything of it. GetBody returns the body to be
	// signed; it is nil if there is none. Whoever sets another Body sets
	// GetBody and ContentLength too. An error ends the fetch.
	Prepare func(req *http.Request, in Input) error

	// Client sends the request. Its CheckRedirect is asked too, and can
	// refuse more redirects, not allow more. It must not send through the
	// pipeline that the step belongs to. Nil means one without cookies
	// over http.DefaultTransport, looked up at each fetch.
	Client *http.Client
}

// Fetch gets a token with one request. Its error is an [*AuthError].
func (f *BodyFetcher) Fetch(ctx context.Context, in Input) (*Token, error) {
	if err := f.check(); err != nil {
		return nil, &AuthError{Unsent: true, Err: err}
	}
	ans, err := f.call().do(ctx, in)
	if err != nil {
		return nil, err
	}
	defer roundtrip.Discard(ans.resp)

	body, err := ans.read(maxResponse)
	switch {
	case err != nil:
		return nil, ans.fail(fmt.Errorf("the response broke off: %w", redact.Cause(err)))
	case len(body) > maxResponse:
		return nil, ans.fail(errors.New("the response is larger than 1 MiB"))
	case ans.isHTML(body):
		return nil, ans.fail(errHTML)
	case !ans.mayBeJSON():
		return nil, ans.fail(errors.New("the response is not JSON by its Content-Type"))
	}
	r, err := tokenjson.Parse(body, tokenjson.Fields{
		Token: f.TokenField, Type: f.TypeField, Refresh: f.RefreshField,
		ExpiresIn: f.ExpiresInField, ExpiresAt: f.ExpiresAtField,
	}, ans.at, ans.date())
	if err != nil {
		// Some servers refuse with a 200.
		return nil, ans.refuse(body, err)
	}
	tok := &Token{AccessToken: r.Token, TokenType: r.Type, RefreshToken: r.Refresh, Expiry: r.Expiry, Extra: r.Extra}
	if tok.TokenType == "" {
		tok.TokenType = f.TokenType
	}
	if err := tok.validate(); err != nil {
		return nil, ans.fail(err)
	}
	return tok, nil
}

// check returns what is wrong with the fields, all of it.
func (f *BodyFetcher) check() error {
	if f == nil {
		return errors.New("nil *BodyFetcher")
	}
	errs := f.call().check()
	if f.Method == http.MethodHead {
		errs = append(errs, errors.New("Method HEAD: a response without a body has no token in it"))
	}
	for _, p := range []struct{ field, path string }{
		{"TokenField", f.TokenField}, {"TypeField", f.TypeField}, {"RefreshField", f.RefreshField},
		{"ExpiresInField", f.ExpiresInField}, {"ExpiresAtField", f.ExpiresAtField},
	} {
		if p.path == "" {
			continue
		}
		if err := tokenjson.CheckPath(p.path); err != nil {
			errs = append(errs, fmt.Errorf("%s %q %w", p.field, p.path, err))
		}
	}
	return mistake.In("BodyFetcher", errs)
}

// parents returns the steps whose tokens the request carries by HeaderFrom.
func (f *BodyFetcher) parents() []string {
	if f == nil {
		return nil
	}
	return parents(f.HeaderFrom)
}

func (f *BodyFetcher) call() *call {
	return &call{
		url: f.URL, method: f.Method, header: f.Header, json: f.JSON, form: f.Form, tokenType: f.TokenType,
		auth: f.ClientAuth, plaintext: f.AllowPlaintext, headerFrom: f.HeaderFrom,
		bodyFrom: f.BodyFrom, prepare: f.Prepare, client: f.Client,
	}
}

// String returns f without its secrets.
func (f BodyFetcher) String() string {
	field := f.TokenField
	if field == "" {
		field = tokenjson.DefaultToken
	}
	return fmt.Sprintf("BodyFetcher(%s, token in field %q)", f.call(), field)
}

// Format prints String for every verb.
func (f BodyFetcher) Format(s fmt.State, verb rune) { format.Text(s, verb, f.String()) }

// MarshalJSON returns String as a JSON string.
func (f BodyFetcher) MarshalJSON() ([]byte, error) { return json.Marshal(f.String()) }

// LogValue returns String.
func (f BodyFetcher) LogValue() slog.Value { return slog.StringValue(f.String()) }

// HeaderFetcher is a Fetcher that reads the token from a header of an HTTP
// response with a 2xx status, whatever its body. Such a token has no expiry
// of its own: see the TTL of [Step].
//
// Every failure is an [*AuthError], and none of them shows what was sent or
// received. Redirects are followed within the origin of URL only. A
// HeaderFetcher may be used by several goroutines at once and must not be
// changed after its first use. Printed, it shows no secret.
type HeaderFetcher struct {
	// These are the fields of the same names in BodyFetcher.
	URL, Method string
	Header      http.Header
	JSON        any
	Form        url.Values

	// TokenHeader is the response header whose only value is the token,
	// taken as it is. It is required.
	TokenHeader string

	// TokenType is the token's type. Empty means Bearer.
	TokenType string

	// These are the fields of the same names in BodyFetcher.
	ClientAuth     *ClientAuth
	AllowPlaintext bool
	HeaderFrom     map[string]string
	BodyFrom       func(in Input) (any, error)
	Prepare        func(req *http.Request, in Input) error
	Client         *http.Client
}

// Fetch gets a token with one request. Its error is an [*AuthError].
func (f *HeaderFetcher) Fetch(ctx context.Context, in Input) (*Token, error) {
	if err := f.check(); err != nil {
		return nil, &AuthError{Unsent: true, Err: err}
	}
	ans, err := f.call().do(ctx, in)
	if err != nil {
		return nil, err
	}
	defer roundtrip.Discard(ans.resp)

	values := ans.resp.Header.Values(f.TokenHeader)
	switch {
	case len(values) == 0 && ans.isHTML(nil):
		return nil, ans.fail(errHTML)
	case len(values) == 0 || len(values) == 1 && values[0] == "":
		return nil, ans.fail(fmt.Errorf("the response has no header %q", f.TokenHeader))
	case len(values) > 1:
		return nil, ans.fail(fmt.Errorf("the response has %d headers %q", len(values), f.TokenHeader))
	}
	tok := &Token{AccessToken: values[0], TokenType: f.TokenType}
	if err := tok.validate(); err != nil {
		return nil, ans.fail(err)
	}
	return tok, nil
}

// check returns what is wrong with the fields, all of it.
func (f *HeaderFetcher) check() error {
	if f == nil {
		return errors.New("nil *HeaderFetcher")
	}
	errs := f.call().check()
	switch {
	case f.TokenHeader == "":
		errs = append(errs, errors.New("TokenHeader is missing"))
	case !httpname.IsToken(f.TokenHeader):
		errs = append(errs, fmt.Errorf("TokenHeader %q is no header name", f.TokenHeader))
	}
	return mistake.In("HeaderFetcher", errs)
}

// parents returns the steps whose tokens the request carries by HeaderFrom.
func (f *HeaderFetcher) parents() []string {
	if f == nil {
		return nil
	}
	return parents(f.HeaderFrom)
}

func (f *HeaderFetcher) call() *call {
	return &call{
		url: f.URL, method: f.Method, header: f.Header, json: f.JSON, form: f.Form, tokenType: f.TokenType,
		auth: f.ClientAuth, plaintext: f.AllowPlaintext, headerFrom: f.HeaderFrom,
		bodyFrom: f.BodyFrom, prepare: f.Prepare, client: f.Client,
	}
}

// String returns f without its secrets.
func (f HeaderFetcher) String() string {
	return fmt.Sprintf("HeaderFetcher(%s, token in header %q)", f.call(), f.TokenHeader)
}

// Format prints String for every verb.
func (f HeaderFetcher) Format(s fmt.State, verb rune) { format.Text(s, verb, f.String()) }

// MarshalJSON returns String as a JSON string.
func (f HeaderFetcher) MarshalJSON() ([]byte, error) { return json.Marshal(f.String()) }

// LogValue returns String.
func (f HeaderFetcher) LogValue() slog.Value { return slog.StringValue(f.String()) }
