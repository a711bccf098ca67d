// The ready-made grants: the Config and the checks that all grants share, and the
// constructors of the grants with a single request. The device code grant is in device.go,
// the requests are in grant_request.go.

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
	"sync/atomic"

	"github.com/requestforge/requestforge"
)

// Config describes a client and its token endpoint. One Config serves all grants of a
// client. A constructor copies the Config but not the contents of its maps and slices,
// which must not be changed afterwards. A printed Config shows no secret.
type Config struct {
	// TokenURL is the token endpoint: an absolute https URL, or an http URL of this
	// machine. Every grant requires TokenURL, but Revoke doesn't.
	TokenURL string

	// ClientAuth holds the client's id and password (RFC 6749 §2.3.1), sent as HTTP Basic,
	// both parts form-encoded, or, with InBody, in the form. An id without a Secret goes
	// into the form: the id of a public client, or of a client that the server knows by
	// ClientAssertion or by its TLS certificate (RFC 8705). A request tries a single way of
	// authentication, once, since a server may lock a client that fails twice. For a secret
	// that changes use SecretFrom. Nil means that the client sends no id; client
	// credentials without a ClientAssertion, and device code, don't allow nil.
	ClientAuth *requestforge.ClientAuth

	// ClientAssertion authenticates the client instead of a secret: a *JWT for
	// private_key_jwt (RFC 7523 §2.2), or an AssertionFile for a token signed by a platform
	// such as Kubernetes. Nil means no assertion.
	ClientAssertion Assertion

	// Scopes are the scopes to ask for. Refresh doesn't send Scopes: a refreshed token has
	// the scope of the first token (RFC 6749 §6). Empty means the server's default.
	Scopes []string

	// MaxScopes are the scopes that an API may ask for beside Scopes, by a challenge to a
	// step with requestforge.Step.AnswersChallenges. The grant never asks for a scope
	// outside Scopes and MaxScopes. MaxScopes needs Scopes, since a challenge doesn't name
	// the server's default. Nil means no scopes beyond Scopes.
	MaxScopes []string

	// Params are further parameters of each request, audience or resource say. The
	// parameters that a grant sets itself are a mistake in Params.
	Params url.Values

	// Extra names further members of the server's answer to keep in
	// Token.Extra, where scope, id_token and issued_token_type are always
	// kept.
	Extra []string

	// AllowPlaintext allows a URL of plain http to another machine, or by way
	// of a proxy. Every secret of the exchange can then be read on the way.
	AllowPlaintext bool

	// Client sends the requests. Redirects are followed only within the origin of the URL,
	// and only if CheckRedirect of the Client agrees. Client must not send through the
	// pipeline of the grant's step. Nil means the client in the fetch's context under the
	// key oauth2.HTTPClient, or else http.DefaultClient.
	Client *http.Client
}

// client returns the ClientAuth, with an empty ID if there is no ClientAuth.
func (c *Config) client() requestforge.ClientAuth {
	if c.ClientAuth == nil {
		return requestforge.ClientAuth{}
	}
	return *c.ClientAuth
}

// String describes c without secrets.
func (c Config) String() string {
	text := "Config(" + maskedURL(c.TokenURL)
	client := c.client()
	secret := client.Secret != "" || client.SecretFrom != nil
	if client.ID != "" {
		text += fmt.Sprintf(", client %q", client.ID)
	}
	switch {
	case c.ClientAssertion != nil:
		text += " by assertion"
	case secret && client.InBody:
		text += " by secret in the form"
	case secret:
		text += " by HTTP Basic"
	}
	if len(c.Scopes) > 0 {
		text += fmt.Sprintf(", scopes %q", c.Scopes)
	}
	if len(c.MaxScopes) > 0 {
		text += fmt.Sprintf(", up to scopes %q", c.MaxScopes)
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

// MarshalText returns String, for XML and the like.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// GobEncode returns an error: gob would encode the secrets.
func (c Config) GobEncode() ([]byte, error) { return nil, errGob }

// LogValue returns String.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// Grant is a Fetcher made by a constructor of this package. Several goroutines and several
// pipelines may use a Grant at once. A printed Grant shows no secret.
//
// Each fetch is a new exchange without any cache. Every failure is a
// [*requestforge.AuthError] that shows no contents of the request or the response.
type Grant struct {
	name     string // of the constructor
	cfg      Config
	who      url.Values // identifies, beside cfg, the user or subject of the token, and the user's secrets
	stranger bool       // the subject of the token is unknown
	mistakes []error
	changing []changing // assertions whose secrets may change
	run      func(ctx context.Context, in requestforge.Input) (*requestforge.Token, error)
	dead     *atomic.Bool // the last request got no answer in time, so the connection may be dead
}

// Validate returns all mistakes in the constructor's arguments, joined. NewPipeline calls
// Validate, and so does Fetch before sending a request.
func (g *Grant) Validate() error {
	if g == nil || g.run == nil {
		return errors.New(prefix + "Grant: it comes from no constructor")
	}
	return g.mistaken()
}

// mistaken returns the mistakes, joined.
func (g *Grant) mistaken() error {
	errs := make([]error, len(g.mistakes))
	for i, err := range g.mistakes {
		errs[i] = fmt.Errorf(prefix+"%s: %w", g.name, err)
	}
	return errors.Join(errs...)
}

// Fetch gets a token. An error is always a [*requestforge.AuthError].
func (g *Grant) Fetch(ctx context.Context, in requestforge.Input) (*requestforge.Token, error) {
	if err := g.Validate(); err != nil {
		return nil, &requestforge.AuthError{Permanent: true, Err: err}
	}
	if ctx.Value(readKey{g}) == nil {
		ctx = g.reread(ctx) // outside of a pipeline
	}
	return g.run(ctx, in)
}

// String names the grant and describes the Config, without secrets.
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

// MarshalText returns String, for XML and the like.
func (g Grant) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// GobEncode returns an error: gob would encode the secrets.
func (g Grant) GobEncode() ([]byte, error) { return nil, errGob }

// LogValue returns String.
func (g Grant) LogValue() slog.Value { return slog.StringValue(g.String()) }

// errGob is the error of GobEncode for types that hold secrets.
var errGob = errors.New(prefix + "encoding/gob would write secrets")

// format is the Format of whatever holds a secret: the same text for every
// verb, since each of them would otherwise find a way to the fields.
func format(s fmt.State, verb rune, text string) {
	if verb == 'q' {
		text = strconv.Quote(text)
	}
	io.WriteString(s, text)
}

// ClientCredentials is the client credentials grant (RFC 6749 §4.4): a token for the client
// itself. If a ClientAssertion names the client, ClientAuth may be nil.
func ClientCredentials(cfg Config) *Grant {
	g := newGrant("ClientCredentials", cfg)
	switch {
	case cfg.ClientAssertion == nil:
		g.requireClient()
	case cfg.ClientAuth == nil: // the assertion alone names the client (RFC 7521 §4.2)
		g.speaksFor("client", g.cfg.ClientAssertion)
	}
	return g.ask(func(_ context.Context, in requestforge.Input) (url.Values, error) {
		return g.scoped(in, "client_credentials")
	})
}

// Password is the resource owner password credentials grant (RFC 6749 §4.3):
// the client knows the user's name and password. A wrong password is sent
// once a fetch.
func Password(cfg Config, username, password string) *Grant {
	g := newGrant("Password", cfg)
	g.require("username", username)
	g.require("password", password)
	g.is("username", username)
	g.is("password", password)
	return g.ask(func(_ context.Context, in requestforge.Input) (url.Values, error) {
		form, err := g.scoped(in, "password")
		form.Set("username", username)
		form.Set("password", password)
		return form, err
	})
}

// Refresh is the refresh token grant (RFC 6749 §6), for Step.Refresh: Refresh spends the
// refresh token of the step's previous token. If the server sends no new refresh token, the
// old refresh token stays. Of the parameters of challenges, Refresh sends only claims; the
// others belong to the refresh token already.
func Refresh(cfg Config) *Grant {
	g := newGrant("Refresh", cfg)
	return g.ask(func(_ context.Context, in requestforge.Input) (url.Values, error) {
		if in.Previous == nil || in.Previous.RefreshToken == "" {
			return nil, errors.New("there is no refresh token to spend; Refresh belongs into Step.Refresh, beside another Fetcher")
		}
		return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {in.Previous.RefreshToken}}, nil
	})
}

// JWTBearer is the JWT bearer grant (RFC 7523 §2.1): JWTBearer trades an assertion about a
// user or client for a token. A [*JWT] is signed anew at each fetch; [FromStep],
// [AssertionFunc] and [AssertionFile] bring an assertion signed elsewhere.
// Config.ClientAuth may be nil.
//
// A server that refuses the assertion answers invalid_grant with status 400 (RFC 7521
// §4.1.1). If the assertion is neither a *JWT nor an AssertionFile, and the step has
// parents, the pipeline takes such an answer as a refusal of a parent's token; see
// [TokenExchange].
//
// A server may accept an assertion only once. Then an assertion from a step costs a refusal
// before the step is fetched again, unless PipelineConfig.RefreshFrom names the step.
func JWTBearer(cfg Config, assertion Assertion) *Grant {
	g := newGrant("JWTBearer", cfg)
	assertion = g.adopt("assertion", assertion)
	g.speaksFor("assertion", assertion)
	g.ask(func(ctx context.Context, in requestforge.Input) (url.Values, error) {
		form, err := g.scoped(in, "urn:ietf:params:oauth:grant-type:jwt-bearer")
		if err != nil {
			return nil, err
		}
		return form, g.set(ctx, in, form, "assertion", assertion)
	})
	if _, ours := assertion.(changing); ours {
		return g
	}
	return g.blaming("invalid_grant")
}

// The token types that most servers know (RFC 8693 §3), and IDJAGType: an identity
// assertion that a server issues by [TokenExchange] and another server accepts by
// [JWTBearer] (draft-ietf-oauth-identity-assertion-authz-grant).
const (
	AccessTokenType  = "urn:ietf:params:oauth:token-type:access_token"
	RefreshTokenType = "urn:ietf:params:oauth:token-type:refresh_token"
	IDTokenType      = "urn:ietf:params:oauth:token-type:id_token"
	JWTType          = "urn:ietf:params:oauth:token-type:jwt"
	IDJAGType        = "urn:ietf:params:oauth:token-type:id-jag"
)

// Exchange names the tokens that [TokenExchange] trades, and describes the new token.
type Exchange struct {
	// Subject is the token of the party on whose behalf the new token is requested: most
	// often FromStep of a step in DependsOn. Subject is required.
	Subject Assertion

	// SubjectType is the type of Subject. Empty means JWTType for a *JWT and an
	// AssertionFile, else AccessTokenType.
	SubjectType string

	// Actor is the token of the party that will act for the subject. Nil means that the
	// subject acts itself, or that the client acts and the server knows the client's role.
	Actor Assertion

	// ActorType is the type of Actor, with the defaults of SubjectType.
	ActorType string

	// RequestedType is the type of the new token. Empty leaves the type to the server.
	RequestedType string

	// Audience and Resource name the services that will accept the new token, by the
	// server's names and by URL. Empty leaves the choice to the server.
	Audience, Resource []string
}

// TokenExchange is the token exchange grant (RFC 8693): TokenExchange trades the token of
// an earlier step for a token with another audience, scope or user:
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
// A server that refuses the subject's or the actor's token answers invalid_request with
// status 400 (RFC 8693 §2.2.2). In a step with parents, such an answer becomes an AuthError
// with ParentRefused and without Permanent. The pipeline then replaces the parents' tokens
// and tries once more. If the new tokens don't help, the pipeline doesn't replace the
// parents' tokens again for a while.
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
			if _, ok := t.from.(changing); ok {
				tokens[i].typ = JWTType
			}
		}
		tokens[i].from = g.adopt("Exchange."+strings.ToUpper(t.name[:1])+t.name[1:], t.from)
		g.speaksFor(t.name, tokens[i].from)
		g.is(t.name+"_type", tokens[i].typ)
	}
	g.is("requested", x.RequestedType)
	g.is("audience", x.Audience...)
	g.is("resource", x.Resource...)
	g.ask(func(ctx context.Context, in requestforge.Input) (url.Values, error) {
		form, err := g.scoped(in, "urn:ietf:params:oauth:grant-type:token-exchange")
		if err != nil {
			return nil, err
		}
		for _, t := range tokens {
			if err := g.set(ctx, in, form, t.name+"_token", t.from); err != nil {
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

// blaming turns a refusal with code into a refusal of a parent's token, if the step has
// parents: with new parent tokens the same request may succeed.
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
	g := newClient(name, cfg)
	g.url("Config.TokenURL", cfg.TokenURL)
	return g
}

// newClient returns a grant for the client of cfg, which need not have a TokenURL.
func newClient(name string, cfg Config) *Grant {
	g := &Grant{name: name, cfg: cfg, dead: new(atomic.Bool)}
	if cfg.ClientAuth != nil {
		own := *cfg.ClientAuth
		if g.cfg.ClientAuth = &own; own.ID == "" {
			g.mistake("Config.ClientAuth.ID is missing")
		}
		if own.Secret != "" && own.SecretFrom != nil {
			g.mistake("Config.ClientAuth.Secret and SecretFrom are both set: a client has one secret")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Params)) {
		if slices.Contains(ours, name) {
			g.mistake("Config.Params has %q, which the grant sets itself", name)
		}
	}
	g.scopes("Config.Scopes", cfg.Scopes)
	g.scopes("Config.MaxScopes", cfg.MaxScopes)
	if len(cfg.MaxScopes) > 0 && len(cfg.Scopes) == 0 {
		g.mistake("Config.MaxScopes is set without Scopes: name the scopes that a challenge's are asked for beside")
	}
	if cfg.ClientAssertion != nil {
		if client := cfg.client(); client.Secret != "" || client.SecretFrom != nil || client.InBody {
			g.mistake("Config.ClientAssertion is set, and so is ClientAuth.Secret, SecretFrom or InBody: a client authenticates in one way")
		}
		g.cfg.ClientAssertion = g.adopt("Config.ClientAssertion", cfg.ClientAssertion)
	}
	return g
}

// ours lists the parameters that the grants set themselves.
var ours = []string{
	"grant_type", "scope", "client_id", "client_secret", "client_assertion", "client_assertion_type",
	"username", "password", "refresh_token", "assertion", "device_code",
	"subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type",
}

func (g *Grant) mistake(format string, args ...any) {
	g.mistakes = append(g.mistakes, fmt.Errorf(format, args...))
}

// scopes reports invalid scopes.
func (g *Grant) scopes(name string, scopes []string) {
	if slices.ContainsFunc(scopes, func(s string) bool { return s == "" || strings.ContainsAny(s, " \"\\") }) {
		g.mistake("%s has one that is empty or holds a blank, a quote or a backslash (RFC 6749 §3.3)", name)
	}
}

func (g *Grant) require(name, value string) {
	if value == "" {
		g.mistake("%s is missing", name)
	}
}

// requireClient reports a missing ClientAuth.
func (g *Grant) requireClient() {
	if g.cfg.ClientAuth == nil {
		g.mistake("Config.ClientAuth is missing")
	}
}

// url checks a URL as HTTPFetcher checks its URL.
func (g *Grant) url(name, value string) {
	u, err := url.Parse(value)
	switch {
	case value == "":
		g.mistake("%s is missing", name)
	case err != nil:
		g.mistake("%s doesn't parse", name) // the reason may quote a password
	case u.Scheme != "https" && u.Scheme != "http", u.Host == "":
		g.mistake("%s %q is not an absolute http or https URL", name, maskedURL(value))
	case u.Scheme == "http" && !g.cfg.AllowPlaintext && strings.EqualFold(u.Hostname(), "localhost") && !loopback(u):
		g.mistake("%s %q: write localhost in lower case: in any other spelling net/http sends it to a proxy", name, maskedURL(value))
	case u.Scheme == "http" && !g.cfg.AllowPlaintext && !loopback(u):
		g.mistake("%s %q is plain http to another machine, where every secret can be read on the way: use https or set AllowPlaintext", name, maskedURL(value))
	}
}

// adopt checks a and fills in the defaults from the Config.
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
	if c, ok := a.(changing); ok && c.changes() && !slices.Contains(g.changing, c) {
		g.changing = append(g.changing, c)
	}
	return a
}

// ask makes g a grant with a single request, whose form the function form returns.
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

// scoped begins a form. An error means that the challenge of in can't be answered.
func (g *Grant) scoped(in requestforge.Input, grantType string) (url.Values, error) {
	form := url.Values{"grant_type": {grantType}}
	scopes, err := g.cfg.scopes(in)
	if len(scopes) > 0 {
		form.Set("scope", strings.Join(scopes, " "))
	}
	return form, err
}

// unsent returns err as an AuthError of a failure before sending. The error is temporary if
// a secret couldn't be read.
func unsent(err error) *requestforge.AuthError {
	_, passes := errors.AsType[*unreadable](err)
	return &requestforge.AuthError{Unsent: true, Temporary: passes, Err: err}
}
