// The parameters that a grant sends because an API has challenged a token before, see
// requestforge.Step.AnswersChallenges, and the limits of such parameters.

package oauth2source

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/requestforge/requestforge"
)

// maxClaims bounds the claims in a request, in bytes.
const maxClaims = 8 << 10

var errNotOurScope = errors.New("the API asks for a scope outside of Config.Scopes and Config.MaxScopes, and for nothing else that could be had")

// scopes returns the scopes to ask for: Scopes, and the challenge's scopes that are in
// MaxScopes. An error means that the challenge asks only for scopes outside of both, so a
// new token would be no better.
func (c *Config) scopes(in requestforge.Input) ([]string, error) {
	all, outside := slices.Clone(c.Scopes), false
	for _, s := range strings.Fields(in.Challenge["scope"]) {
		switch {
		case slices.Contains(all, s):
		case slices.Contains(c.MaxScopes, s):
			all = append(all, s)
		default:
			outside = true
		}
	}
	// A challenge from before has no error, and is no reason to do without a token.
	if in.Challenge["error"] != "" && outside && len(all) == len(c.Scopes) && !asksForMore(in.Challenge) {
		return all, errNotOurScope
	}
	return all, nil
}

// asksForMore reports whether a challenge asks for anything but scopes.
func asksForMore(challenge map[string]string) bool {
	return slices.ContainsFunc([]string{"acr_values", "max_age", "claims", "resource"}, func(name string) bool { return challenge[name] != "" })
}

// addChallenge adds the parameters of challenges, except scopes, to form, which holds the
// parameters of the Config. acr_values and max_age replace the form's values (RFC 9470 §4),
// and resource is added to the form's resources (RFC 8707). claims are merged with the
// form's claims, which may list the client's capabilities. With a refresh token only claims
// are sent, since the resource and the login belong to the refresh token already.
func addChallenge(form url.Values, challenge map[string]string) {
	if claims, ok := mergeClaims(form.Get("claims"), challenge["claims"]); ok {
		form.Set("claims", claims)
	}
	if form.Get("grant_type") == "refresh_token" {
		return
	}
	for _, name := range []string{"acr_values", "max_age"} {
		if value := challenge[name]; value != "" {
			form.Set(name, value)
		}
	}
	if to := challenge["resource"]; to != "" && !slices.Contains(form["resource"], to) {
		form.Add("resource", to)
	}
}

// mergeClaims returns ours merged with theirs, the claims of an API. The API's claims are
// sent only if they are a JSON object (OpenID Connect Core §5.5) and the result is no
// longer than maxClaims.
func mergeClaims(ours, theirs string) (string, bool) {
	b, ok := object(theirs)
	if !ok {
		return "", false
	}
	a, ok := object(ours)
	if !ok && ours != "" {
		return "", false // the program's own claims stay as they are
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(merge(a, b)); err != nil || out.Len() > maxClaims {
		return "", false
	}
	return strings.TrimSpace(out.String()), true
}

// object reads a JSON object that ends with the text.
func object(text string) (o map[string]any, ok bool) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&o); err != nil || o == nil {
		return nil, false
	}
	_, err := dec.Token()
	return o, err == io.EOF
}

func merge(before, later map[string]any) map[string]any {
	all := make(map[string]any, len(before)+len(later))
	maps.Copy(all, before)
	for name, v := range later {
		object, ok := v.(map[string]any)
		old, was := all[name].(map[string]any)
		if ok && was {
			v = merge(old, object)
		}
		all[name] = v
	}
	return all
}
