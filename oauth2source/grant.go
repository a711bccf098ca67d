// The ready-made grants: what all of them share, and the constructors of those
// that are one request. The device code, which is many, is device.go's; what
// goes over the wire, and may not, is grant_request.go's.

package oauth2source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/requestforge/requestforge"
)

// Config says which token endpoint is asked, and by whom. One Config serves
// all the grants of a client; a constructor copies it, but not what its maps
// and slices hold, which must not be changed afterwards. Printed, it shows no
// secret.
type Config struct {
	// TokenURL is the token endpoint: absolute, https, or http to this
	// machine. It is required.
	TokenURL string

	// ClientID is the client's id. Empty means that the client doesn't say
	// who it is, which client credentials and device code don't allow.
	ClientID string

	// ClientSecret is the client's password (RFC 6749 §2.3.1), sent as HTTP
	// Basic, both parts form-encoded. Empty means none: a public client, or
	// one that the server knows by its TLS certificate (RFC 8705), whose id
	// goes into the form. One way only is tried, and once: a server may lock
	// a client that fails twice.
	ClientSecret string

	// InParams puts id and secret into the form, as client_id and
	// client_secret, for a server that doesn't take HTTP Basic.
	InParams bool

	// ClientAssertion authenticates the client instead of a secret: a *JWT
	// for private_key_jwt (RFC 7523 §2.2), an AssertionFunc for one that
	// somebody else signed, Kubernetes say. Nil means none.
	ClientAssertion Assertion

	// Scopes are asked for, but not by Refresh: a refreshed token has the
	// scope of the first (RFC 6749 §6). Empty means the server's default.
	Scopes []string

	// Params are further parameters of each request, audience or resource
	// say. Those that a grant sets itself are a mistake here.
	Params url.Values

	// Extra names further members of the server's answer to keep in
	// Token.Extra, where scope, id_token and issued_token_type are always
	// kept.
	Extra []string

	// AllowPlaintext allows a URL of plain http to another machine. Every
	// secret of the exchange can then be read on the way.
	AllowPlaintext bool

	// Client sends the requests. Redirects are followed within the origin
	// of the URL only, and if its CheckRedirect agrees. It must not send
	// through the pipeline that the step belongs to. Nil means the client
	// in the fetch's context under the key oauth2.HTTPClient, or else
	// http.DefaultClient.
	Client *http.Client
}

// String returns c without its secrets.
func (c Config) String() string {
	text := "Config(" + maskedURL(c.TokenURL)
	if c.ClientID != "" {
		text += fmt.Sprintf(", client %q", c.ClientID)
	}
	switch {
	case c.ClientAssertion != nil:
		text += " by assertion"
	case c.ClientSecret != "" && c.InParams:
		text += " by secret in the form"
	case c.ClientSecret != "":
		text += " by HTTP Basic"
	}
	if len(c.Scopes) > 0 {
		text += fmt.Sprintf(", scopes %q", c.Scopes)
	}
	if len(c.Params) > 0 {
		text += fmt.Sprintf(", with %q", slices.Sorted(maps.Keys(c.Params)))
	}
	return text + ")"
}

// Format prints String for every verb.
func (c Config) Format(s fmt.State, verb rune) { format(s, verb, c.String()) }

// MarshalJSON returns String as a JSON string.
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

// LogValue returns String.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// Grant is a Fetcher that one of this package's constructors made. It may be
// used by several goroutines at once, and in several pipelines. Printed, it
// shows no secret.
//
// Each fetch is a new exchange, nothing is cached, and every failure is a
// [*requestforge.AuthError] that shows nothing of what was sent or received.
type Grant struct {
	name     string // of the constructor
	cfg      Config
	mistakes []error
	run      func(ctx context.Context, in requestforge.Input) (*requestforge.Token, error)
}

// Validate returns every mistake in what the constructor was given, joined.
// NewPipeline calls it, and Fetch does before it sends anything.
func (g *Grant) Validate() error {
	if g == nil || g.run == nil {
		return errors.New(prefix + "Grant: it comes from no constructor")
	}
	errs := make([]error, len(g.mistakes))
	for i, err := range g.mistakes {
		errs[i] = fmt.Errorf(prefix+"%s: %w", g.name, err)
	}
	return errors.Join(errs...)
}

// Fetch gets a token. Its error is a [*requestforge.AuthError].
func (g *Grant) Fetch(ctx context.Context, in requestforge.Input) (*requestforge.Token, error) {
	if err := g.Validate(); err != nil {
		return nil, &requestforge.AuthError{Permanent: true, Err: err}
	}
	return g.run(ctx, in)
}

// String names the grant and its Config, without secrets.
func (g Grant) String() string {
	if g.run == nil {
		return "Grant(none)"
	}
	return g.name + "(" + g.cfg.String() + ")"
}

// Format prints String for every verb.
func (g Grant) Format(s fmt.State, verb rune) { format(s, verb, g.String()) }

// MarshalJSON returns String as a JSON string.
func (g Grant) MarshalJSON() ([]byte, error) { return json.Marshal(g.String()) }

// LogValue returns String.
func (g Grant) LogValue() slog.Value { return slog.StringValue(g.String()) }

// format is the Format of whatever holds a secret: the same text for every
// verb, since each of them would otherwise find a way to the fields.
func format(s fmt.State, verb rune, text string) {
	if verb == 'q' {
		text = strconv.Quote(text)
	}
	io.WriteString(s, text)
}

// ClientCredentials is the client credentials grant (RFC 6749 §4.4): the client
// asks for itself.
func ClientCredentials(cfg Config) *Grant {
	g := newGrant("ClientCredentials", cfg)
	g.require("Config.ClientID", cfg.ClientID)
	return g.ask(func(context.Context, requestforge.Input) (url.Values, error) {
		return g.scoped("client_credentials"), nil
	})
}

// Password is the resource owner password credentials grant (RFC 6749 §4.3):
// the client knows the user's name and password. A wrong password is sent
// once a fetch.
func Password(cfg Config, username, password string) *Grant {
	g := newGrant("Password", cfg)
	g.require("username", username)
	g.require("password", password)
	return g.ask(func(context.Context, requestforge.Input) (url.Values, error) {
		form := g.scoped("password")
		form.Set("username", username)
		form.Set("password", password)
		return form, nil
	})
}

// Refresh is the refresh token grant (RFC 6749 §6), for Step.Refresh: it
// spends the refresh token of the step's previous token. If the server sends
// no new one, the old one stays.
func Refresh(cfg Config) *Grant {
	g := newGrant("Refresh", cfg)
	return g.ask(func(_ context.Context, in requestforge.Input) (url.Values, error) {
		if in.Previous == nil || in.Previous.RefreshToken == "" {
			return nil, errors.New("there is no refresh token to spend; Refresh belongs into Step.Refresh, beside another Fetcher")
		}
		return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {in.Previous.RefreshToken}}, nil
	})
}

// JWTBearer is the JWT bearer grant (RFC 7523 §2.1): an assertion of who is
// meant is traded for a token. A [*JWT] is signed anew at each fetch;
// [FromStep] and [AssertionFunc] bring one that somebody else signed. The
// client itself may stay unnamed.
//
// A server that refuses the assertion says invalid_grant with status 400
// (RFC 7521 §4.1.1). If it isn't a *JWT and the step has parents, that is taken
// as a refusal of a parent's token; see [TokenExchange].
func JWTBearer(cfg Config, assertion Assertion) *Grant {
	g := newGrant("JWTBearer", cfg)
	assertion = g.adopt("assertion", assertion)
	g.ask(func(ctx context.Context, in requestforge.Input) (url.Values, error) {
		form := g.scoped("urn:ietf:params:oauth:grant-type:jwt-bearer")
		return form, set(ctx, in, form, "assertion", assertion)
	})
	if _, ours := assertion.(*JWT); ours {
		return g
	}
	return g.blaming("invalid_grant")
}

// The types of tokens that most servers know (RFC 8693 §3).
const (
	AccessTokenType  = "urn:ietf:params:oauth:token-type:access_token"
	RefreshTokenType = "urn:ietf:params:oauth:token-type:refresh_token"
	IDTokenType      = "urn:ietf:params:oauth:token-type:id_token"
	JWTType          = "urn:ietf:params:oauth:token-type:jwt"
)

// Exchange is what [TokenExchange] trades, for what.
type Exchange struct {
	// Subject is on whose behalf the new token is asked for: most often
	// FromStep of a step in DependsOn. It is required.
	Subject Assertion

	// SubjectType is what Subject is. Empty means JWTType for a *JWT, else
	// AccessTokenType.
	SubjectType string

	// Actor is who is going to act for the subject. Nil means that the
	// subject does, or that the client does and the server knows that.
	Actor Assertion

	// ActorType is what Actor is, as SubjectType is for Subject.
	ActorType string

	// RequestedType is what the new token has to be. Empty leaves that to
	// the server.
	RequestedType string

	// Audience and Resource say where the new token is going to be used, by
	// the server's names and by URL. Empty leaves that to the server.
	Audience, Resource []string
}

// TokenExchange is the token exchange grant (RFC 8693): the token of an
// earlier step is traded for one of another audience, scope or user:
//
//	requestforge.Step{
//		Name:      "orders",
//		DependsOn: []string{"app"},
//		Fetcher: oauth2source.TokenExchange(cfg, oauth2source.Exchange{
//			Subject:  oauth2source.FromStep("app"),
//			Audience: []string{"orders"},
//		}),
//	}
//
// A server that refuses the subject's or the actor's token says invalid_request
// with status 400 (RFC 8693 §2.2.2). In a step with parents that becomes an
// AuthError with ParentRefused, not Permanent, by which the pipeline replaces
// the parents' tokens and tries once more. Where that doesn't help, it isn't
// repeated for a while.
func TokenExchange(cfg Config, x Exchange) *Grant {
	g := newGrant("TokenExchange", cfg)
	type token struct {
		name string
		from Assertion
		typ  string
	}
	tokens := []token{{"subject", x.Subject, x.SubjectType}}
	if x.Actor != nil {
		tokens = append(tokens, token{"actor", x.Actor, x.ActorType})
	} else if x.ActorType != "" {
		g.mistake("Exchange.ActorType is set without an Actor")
	}
	for i, t := range tokens {
		if t.typ == "" {
			tokens[i].typ = AccessTokenType
			if _, ok := t.from.(*JWT); ok {
				tokens[i].typ = JWTType
			}
		}
		tokens[i].from = g.adopt("Exchange."+strings.ToUpper(t.name[:1])+t.name[1:], t.from)
	}
	g.ask(func(ctx context.Context, in requestforge.Input) (url.Values, error) {
		form := g.scoped("urn:ietf:params:oauth:grant-type:token-exchange")
		for _, t := range tokens {
			if err := set(ctx, in, form, t.name+"_token", t.from); err != nil {
				return nil, err
			}
			form.Set(t.name+"_token_type", t.typ)
		}
		if x.RequestedType != "" {
			form.Set("requested_token_type", x.RequestedType)
		}
		for name, values := range map[string][]string{"audience": x.Audience, "resource": x.Resource} {
			if len(values) > 0 {
				form[name] = slices.Clone(values)
			}
		}
		return form, nil
	})
	return g.blaming("invalid_request")
}

// blaming makes a refusal with code one of a parent's token, if the step has
// parents: with another of those the same request can succeed.
func (g *Grant) blaming(code string) *Grant {
	run := g.run
	g.run = func(ctx context.Context, in requestforge.Input) (*requestforge.Token, error) {
		tok, err := run(ctx, in)
		if auth, ok := err.(*requestforge.AuthError); ok && len(in.Parents) > 0 && auth.Code == code {
			auth.ParentRefused, auth.Permanent = true, false
		}
		return tok, err
	}
	return g
}

// newGrant returns a grant with the mistakes in cfg.
func newGrant(name string, cfg Config) *Grant {
	g := &Grant{name: name, cfg: cfg}
	g.url("Config.TokenURL", cfg.TokenURL)
	if cfg.ClientID == "" && cfg.ClientSecret != "" {
		g.mistake("Config.ClientSecret is set without a ClientID")
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Params)) {
		if slices.Contains(ours, name) {
			g.mistake("Config.Params has %q, which the grant sets itself", name)
		}
	}
	if slices.ContainsFunc(cfg.Scopes, func(s string) bool { return s == "" || strings.ContainsAny(s, " \"\\") }) {
		g.mistake("Config.Scopes has one that is empty or holds a blank, a quote or a backslash (RFC 6749 §3.3)")
	}
	if cfg.ClientAssertion != nil {
		if cfg.ClientSecret != "" || cfg.InParams {
			g.mistake("Config.ClientAssertion is set, and so is ClientSecret or InParams: a client authenticates in one way")
		}
		g.cfg.ClientAssertion = g.adopt("Config.ClientAssertion", cfg.ClientAssertion)
	}
	return g
}

// ours are the parameters that the grants set.
var ours = []string{
	"grant_type", "scope", "client_id", "client_secret", "client_assertion", "client_assertion_type",
	"username", "password", "refresh_token", "assertion", "device_code",
	"subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type",
}

func (g *Grant) mistake(format string, args ...any) {
	g.mistakes = append(g.mistakes, fmt.Errorf(format, args...))
}

func (g *Grant) require(name, value string) {
	if value == "" {
		g.mistake("%s is missing", name)
	}
}

// url checks a URL as BodyFetcher does its own.
func (g *Grant) url(name, value string) {
	u, err := url.Parse(value)
	switch {
	case value == "":
		g.mistake("%s is missing", name)
	case err != nil:
		g.mistake("%s doesn't parse", name) // the reason may quote a password
	case u.Scheme != "https" && u.Scheme != "http", u.Host == "":
		g.mistake("%s %q is not an absolute http or https URL", name, maskedURL(value))
	case u.Scheme == "http" && !g.cfg.AllowPlaintext && !loopback(u):
		g.mistake("%s %q is plain http to another machine, where every secret can be read on the way: use https or set AllowPlaintext", name, maskedURL(value))
	}
}

// adopt checks a and fills in what it has from the Config.
func (g *Grant) adopt(name string, a Assertion) Assertion {
	if j, ok := a.(*JWT); ok && j != nil {
		a = j.within(&g.cfg)
	}
	switch c := a.(type) {
	case nil:
		g.mistake("%s is missing", name)
	case interface{ check() []error }:
		for _, err := range c.check() {
			g.mistake("%s: %w", name, err)
		}
	}
	return a
}

// ask makes g a grant of one request, with the form that form returns.
func (g *Grant) ask(form func(ctx context.Context, in requestforge.Input) (url.Values, error)) *Grant {
	g.run = func(ctx context.Context, in requestforge.Input) (*requestforge.Token, error) {
		values, err := form(ctx, in)
		if err != nil {
			return nil, unsent(err)
		}
		return g.post(ctx, in, values)
	}
	return g
}

// scoped is the beginning of a form.
func (g *Grant) scoped(grantType string) url.Values {
	form := url.Values{"grant_type": {grantType}}
	if len(g.cfg.Scopes) > 0 {
		form.Set("scope", strings.Join(g.cfg.Scopes, " "))
	}
	return form
}

// unsent is an error from before anything was sent.
func unsent(err error) error {
	return &requestforge.AuthError{Unsent: true, Err: err}
}
