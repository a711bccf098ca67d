// An HTTP exchange as plain data: the fields for the request, its target, and the place of
// the token in the answer. The checks of the fields are in http_fetcher_check.go, the request
// is in http_fetcher_request.go, the exchange in http_fetcher_send.go, the answer in
// http_fetcher_answer.go.

package requestforge

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"

	"github.com/requestforge/requestforge/internal/format"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/tokenjson"
)

// wholeBody is the TokenField of a token that is the whole body.
const wholeBody = "."

// HTTPFetcher is a Fetcher that makes an HTTP request and reads the token from the answer.
// URL, Form and ClientAuth are enough for any OAuth token endpoint. The other fields are for
// servers with their own protocols, and functions for rules that no field can express. A
// refresh is often a copy of the login with some fields changed.
//
// The answer must have a 2xx status, or be a redirect with the token in its header (see
// TokenHeader). The fetcher reads a body of at most 1 MiB of UTF-8 (a byte order mark is
// skipped): a JSON object or array, without a repeated name in any object. Any body that
// parses as JSON is JSON, whatever the Content-Type. An HTML page is an error without another
// try, since the page may be a login form's reply to a wrong password. (Plain text or an
// empty body with the Content-Type of HTML is no page.) The page may also come from a captive
// portal, so no refresh token counts as spent. Every failure is an [*AuthError], which shows
// no contents of the request or the answer.
//
// Redirects are followed only within the origin of URL and Origins, and only if http.Client
// keeps the body: not after 301, 302 and 303 for a request with a body.
//
// If a token comes with a scheme ("Bearer abc"), the scheme becomes the token's type, and no
// other type is added. In a whole body, only Bearer and TokenType count as schemes, since
// "Token expired" has no scheme. Blanks around a token are trimmed. If the token is a JWT,
// exp counts as an expiry, too; the earliest expiry wins.
//
// An HTTPFetcher is plain data without state: a copy with some fields changed is another
// fetcher. Several goroutines may use an HTTPFetcher at once. Don't change an HTTPFetcher
// after its first use. A printed HTTPFetcher shows no secret.
type HTTPFetcher struct {
	// URL is the target of the request: an absolute https URL, or an http URL of this machine
	// (localhost in lower case or a loopback address, which net/http sends to no proxy of the
	// environment). URL is required, unless URLFrom is set.
	URL string

	// URLFrom returns the URL of a fetch, if an earlier step's answer determines the URL. A
	// relative URL is resolved against URL. The origin must be the origin of URL or among
	// Origins; otherwise, or if URLFrom returns an error or "", the fetch fails and nothing
	// is sent. Nil means URL.
	URLFrom func(in Input) (string, error)

	// Origins are the origins, besides the origin of URL, that URLFrom, Prepare and redirects
	// may send the request to, with all credentials. Origins are written as in
	// [AuthTransport].Origins ("https://*.example.com"), without AnyOrigin. Nil means no
	// further origins, which is a mistake for URLFrom without a URL. Prepare is bound to
	// Origins only if Origins isn't empty.
	Origins []string

	// Method is the request's method. Empty means POST. GET and HEAD have
	// no body.
	Method string

	// Header is sent unchanged. The fetcher adds Content-Type, and Accept (application/json),
	// where Header lacks them. Header is copied for each request.
	Header http.Header

	// HeaderFrom maps a request header to a value of an earlier step: "app" is the token of
	// step app, bare, but with the token's type first in Authorization; "app.tenant" is a
	// value of the token's Extra, by a path as in [Token.Value]. The whole text is tried as a
	// step's name first. The step must be in DependsOn. HeaderFrom replaces a header of the
	// same name in Header. If the value is missing, Fetch returns an error and sends nothing.
	HeaderFrom map[string]string

	// JSON is the request's body as any value of encoding/json, marshalled at each fetch; a
	// []byte is already JSON, like a json.RawMessage. Nil means no JSON body. At most one of
	// JSON, Form and BodyFrom may be set.
	JSON any

	// Form is the request's body as a form. Nil means no form.
	Form url.Values

	// BodyFrom returns the request's body, instead of JSON and Form, if the body depends on
	// earlier tokens: url.Values are sent as a form, []byte unchanged, nil as no body, and
	// any other value as JSON. Use a token's AccessToken in the body; a Token prints without
	// its secrets. To send static data with an earlier token in a header, use HeaderFrom and
	// JSON.
	BodyFrom func(in Input) (any, error)

	// ClientAuth identifies the client, by a secret that may change while the program runs,
	// see [ClientAuth].SecretFrom. Nil means that other fields identify the client.
	ClientAuth *ClientAuth

	// Prepare is called last, with the final request, and may change and sign the request.
	// GetBody returns the body to sign, and is nil without a body. If Prepare sets another
	// Body, Prepare sets GetBody and ContentLength too. If Prepare sets a URL with another
	// host and leaves Host unchanged, Host becomes the URL's host. An error ends the fetch.
	// In the texts of errors of Prepare, URLFrom and BodyFrom, everything in double quotes is
	// masked, since functions tend to quote their arguments.
	Prepare func(req *http.Request, in Input) error

	// TokenField is the place of the access token in the body: a name, or a path of names and
	// array indexes with dots between them ("auth.client_token", "data.0.token"). At each
	// level the rest of the path is tried as a single name first, so the last name may
	// contain dots. The other *Field fields are paths too. "." means that the whole body is
	// the token, as a text of one word or as a JSON string. At most one of TokenField,
	// TokenHeader and TokenCookie may be set; if all are empty, the token is in the field
	// "access_token".
	TokenField string

	// TokenHeader is the response header whose only value is the token. The *Field fields are
	// read from a JSON body, if there is a JSON body. If no *Field field is set, the body may
	// also be anything else, or larger than 1 MiB, and values that can't be read are left
	// out. A redirect that isn't followed and has such a header counts as a 2xx answer.
	TokenHeader string

	// TokenCookie is the cookie whose value is the token, set by the answer or by a redirect
	// before the answer. Max-Age or Expires of the cookie bounds the token's life. Otherwise
	// TokenCookie works like TokenHeader.
	TokenCookie string

	// TypeField is the place of the token type. The response may lack the type; see
	// TokenType. Empty means "token_type".
	TypeField string

	// RefreshField is the place of the refresh token. The response may lack a refresh token,
	// and the refresh token may equal the access token. Empty means "refresh_token".
	RefreshField string

	// ExpiresInField is the place of the lifetime: seconds, as a number or in a string, with
	// or without a fraction; hours, minutes and seconds ("177:05:38"; for days, hours and
	// minutes use Read), with days before a dot ("1.02:03:04"); ISO 8601 without years,
	// months and weeks ("P1DT2H"); or Go's notation ("3600s"). Options may follow the path,
	// with commas before them: "ms" or "min", the unit of a number, and "negative=never", for
	// a server that sends -1 if a token doesn't expire ("expires_in,negative=never").
	// Missing, null, "" and 0 mean that the server gives no lifetime (but see below).
	// Negative is an error. Lifetimes are cut to a century. Empty means "expires_in".
	//
	// If the step had the same token before, with an expiry from the server, a lifetime of 0
	// means that the token ends now. Then a login fails and is tried again, until a minute
	// after the expiry. An answer to a refresh is accepted, and the token keeps its expiry.
	ExpiresInField string

	// ExpiresAtField is the place of the expiry time: RFC 3339, the usual notations without T
	// or without a zone, which then is UTC, the notations of HTTP dates and of ASP.NET, or
	// Unix seconds, milliseconds, microseconds or nanoseconds (distinguished by size: from
	// 1e11, 1e14 and 1e17 on), as a number or in a string. If the response's Date header
	// differs from the local clock by more than a second, the time is read by the server's
	// clock. Missing, null, "" and 0 mean that the server gives no expiry; the past is an
	// error. If there is also a lifetime, the earlier end counts. Empty means "expires_at",
	// and only then an unreadable value is no error.
	ExpiresAtField string

	// TokenType is the type of a token whose response has no type. Empty means Bearer.
	TokenType string

	// KeepHeaders names response headers to keep in the token's Extra, under the given names:
	// as a string, or as a list if there are several values. A missing header is left out,
	// and a header that isn't UTF-8 is an error. Nil means no headers.
	KeepHeaders []string

	// Cookies makes the cookies of the login part of its token: the cookies that the answer
	// sets, the cookies of redirects before the answer, and the cookies of the steps that
	// this step depends on, beginning with the first call of the login. The request carries
	// the cookies, and so does each request with the token, as far as domain and path allow.
	// The cookies are stored with the token, and the API's answers in this process renew
	// them. No two tokens share cookies. Cookies needs a Client without a Jar, for this step
	// and for the earlier steps. A refresh sends the cookies of the previous token; if a
	// parent has a newer token since, the cookies of the parent's token take precedence.
	// False means that cookies of the answer are ignored, unless a later step has Cookies.
	Cookies bool

	// Read reads the token from the answer, instead of the *Field fields, TokenHeader and
	// TokenCookie: from XML, HTML, several headers. body is the whole body, at most 1 MiB;
	// resp.Body is another copy. Read gets 2xx answers and redirects that aren't followed.
	// Read may return a token of in.Parents, or a value of a parent's Extra: such a token
	// expires with the parent's token, and a refusal blames the parent. An AuthError is
	// returned as if from Classify; in other errors, everything that stands in double quotes
	// or repeats the body is masked. Nil means to use the fields.
	Read func(in Input, resp *http.Response, body []byte) (*Token, error)

	// Classify decides whether an answer is a refusal, for a server that refuses with a 200,
	// or with a status that has another meaning elsewhere. Classify gets every answer,
	// whatever the status; see the fields Temporary, Permanent, ParentRefused and
	// RefreshRefused of AuthError. After a refused refresh with a status below 400 a login
	// follows, unless the refusal is Temporary or concerns a parent. Empty fields of the
	// AuthError are filled in from the answer; a Code that isn't registered is left out.
	//
	// If Classify is nil or returns nil, the usual rules apply: 2xx is a token. 408, 425,
	// 429, 5xx, and a 403 with Retry-After or a used-up rate limit, are worth another try.
	// 401 and 403 refuse a parent's token, if the request carries a parent's value by
	// HeaderFrom, BodyFrom, Prepare or cookies; a URL made by URLFrom from an earlier answer
	// is no credential. body is the body as far as it was read, at most 64 KiB unless the
	// status is 2xx; resp.Body is another copy.
	Classify func(resp *http.Response, body []byte) *AuthError

	// AllowPlaintext allows a URL of plain http to another machine, or by way
	// of a proxy. Every secret of the exchange can then be read on the way.
	AllowPlaintext bool

	// Client sends the request. CheckRedirect of Client can refuse further redirects, but
	// can't allow more redirects. Client must not send through the pipeline of the fetcher's
	// step. Nil means a client without cookies over http.DefaultTransport, looked up at each
	// fetch.
	Client *http.Client
}

// method is the request's method.
func (f *HTTPFetcher) method() string { return cmp.Or(f.Method, http.MethodPost) }

// keepsCookies reports whether the cookies of the login belong to its token.
func (f *HTTPFetcher) keepsCookies() bool { return f != nil && f.Cookies }

// asked is the request in an error or a log record.
func (f *HTTPFetcher) asked() string {
	if f.URL == "" && f.URLFrom != nil {
		return f.method() + " a URL from an earlier answer"
	}
	return f.method() + " " + redact.Text(f.URL)
}

// at reports whether u is URL but for the query.
func (f *HTTPFetcher) at(u *url.URL) bool {
	own, err := url.Parse(f.URL)
	return err == nil && own.Host == u.Host && own.EscapedPath() == u.EscapedPath()
}

// shownURL returns the URL of a request for an error. A URL that URLFrom or Prepare made from
// an earlier answer is text from the server, except for the origin, which the program allows.
func (f *HTTPFetcher) shownURL(u *url.URL) string {
	if f.URLFrom != nil || f.Prepare != nil && !f.at(u) {
		return redact.URL(&url.URL{Scheme: u.Scheme, Host: u.Host}) + "/..."
	}
	return redact.URL(u)
}

// String describes f without secrets.
func (f HTTPFetcher) String() string {
	where := fmt.Sprintf("field %q", cmp.Or(f.TokenField, tokenjson.DefaultToken))
	switch {
	case f.Read != nil:
		where = "what Read reads"
	case f.TokenHeader != "":
		where = fmt.Sprintf("header %q", f.TokenHeader)
	case f.TokenCookie != "":
		where = fmt.Sprintf("cookie %q", f.TokenCookie)
	case f.TokenField == wholeBody:
		where = "the whole body"
	}
	return fmt.Sprintf("HTTPFetcher(%s, token in %s)", f.asked(), where)
}

// Format prints String for every verb.
func (f HTTPFetcher) Format(s fmt.State, verb rune) { format.Text(s, verb, f.String()) }

// MarshalJSON returns String as a JSON string.
func (f HTTPFetcher) MarshalJSON() ([]byte, error) { return json.Marshal(f.String()) }

// MarshalText returns String, for XML and the like.
func (f HTTPFetcher) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// GobEncode returns an error: gob would encode the secrets.
func (f HTTPFetcher) GobEncode() ([]byte, error) { return nil, format.ErrGob }

// LogValue returns String.
func (f HTTPFetcher) LogValue() slog.Value { return slog.StringValue(f.String()) }
