// The identity of a grant's user and the fingerprint of a grant's configuration, for a
// pipeline. Both are computed by an HTTPFetcher with a form that describes the grant.

package oauth2source

import (
	"encoding/json"
	"io"
	"maps"
	"net/url"
	"strings"

	"github.com/requestforge/requestforge"
)

// Identity names the user or client of the token, without secrets: the grant, the endpoint,
// client, scopes, parameters and user; see [requestforge.Identifier]. Identity returns ""
// if a function brings the assertion, since then the subject is unknown.
func (g *Grant) Identity() string {
	if g == nil || g.stranger {
		return ""
	}
	return g.described().Identity()
}

// Fingerprint writes the configuration, secrets included, to w; see
// [requestforge.Fingerprinter]. ReadSecrets writes the secrets that may change.
func (g *Grant) Fingerprint(w io.Writer) {
	if g != nil {
		g.described().Fingerprint(w)
	}
}

// described returns an HTTPFetcher whose form describes the grant's configuration.
func (g *Grant) described() *requestforge.HTTPFetcher {
	form := url.Values{"grant": {g.name}, "scope": {strings.Join(g.cfg.Scopes, " ")}}
	if len(g.cfg.MaxScopes) > 0 { // the tokens may have more rights than the tokens of a step without MaxScopes
		form.Set("scope_at_most", strings.Join(g.cfg.MaxScopes, " "))
	}
	maps.Copy(form, g.cfg.Params)
	maps.Copy(form, g.who)
	f := &requestforge.HTTPFetcher{URL: g.cfg.TokenURL, Form: form}
	if client := g.cfg.client(); client.ID != "" {
		f.ClientAuth = &requestforge.ClientAuth{ID: client.ID, Secret: client.Secret}
	}
	return f
}

// is adds a parameter to the description of the token's subject.
func (g *Grant) is(name string, values ...string) {
	if g.who == nil {
		g.who = url.Values{}
	}
	g.who[name] = append(g.who[name], values...)
}

// speaksFor adds the subject of an assertion to the description.
func (g *Grant) speaksFor(name string, a Assertion) {
	switch a := a.(type) {
	case *JWT:
		if a == nil {
			return // a mistake, which Validate reports
		}
		claims, err := json.Marshal(a.Claims)
		if err != nil {
			g.stranger = true
		}
		g.is(name+"_about", a.Issuer, a.subject(), a.Audience, string(claims))
	case fromStep:
		g.is(name+"_from", string(a))
	default:
		g.stranger = true
	}
}
