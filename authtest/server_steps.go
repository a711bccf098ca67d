// The steps of a requestforge.Pipeline that logs in at a simulator. server.go
// is the front.

package authtest

import (
	"net/http"
	"net/url"

	"github.com/requestforge/requestforge"
)

// Steps returns the steps of a pipeline that logs in here: the right URLs,
// credentials and headers, and a client that reaches the simulator. They are
// fresh values, which the caller may change, to get something wrong for one.
func (s *Simulator) Steps() []requestforge.Step {
	steps := make([]requestforge.Step, 0, len(s.cfg.Steps))
	for _, conf := range s.cfg.Steps {
		steps = append(steps, s.forgeStep(s.steps[conf.Name]))
	}
	return steps
}

func (s *Simulator) forgeStep(st *step) requestforge.Step {
	out := requestforge.Step{Name: st.Name, DependsOn: append([]string(nil), st.parents...)}
	if st.TokenHeader != "" || st.Expiry == ExpiryHidden {
		// The response doesn't say, so that the client has to know.
		out.TTL = st.TTL
	}

	headerFrom := make(map[string]string)
	for parent, header := range st.Parents {
		headerFrom[header] = parent
	}
	var json any
	var form url.Values
	auth := st.forgeAuth()
	switch {
	case st.JSON != nil:
		json = st.withClient(st.JSON)
	case st.Form != nil || auth != nil && auth.InBody:
		form = make(url.Values)
		for k, v := range st.Form {
			form.Set(k, v)
		}
	}

	if st.TokenHeader != "" {
		out.Fetcher = &requestforge.HeaderFetcher{
			URL: s.URL + st.Path, Method: st.Method,
			JSON: json, Form: form, ClientAuth: auth, HeaderFrom: headerFrom,
			TokenHeader: st.TokenHeader, TokenType: st.TokenType,
			Client: s.client,
		}
		return out
	}
	login := &requestforge.BodyFetcher{
		URL: s.URL + st.Path, Method: st.Method,
		JSON: json, Form: form, ClientAuth: auth, HeaderFrom: headerFrom,
		TokenField: st.TokenField, TypeField: st.TypeField, TokenType: st.TokenType,
		Client: s.client,
	}
	if st.RefreshTokens {
		login.RefreshField = st.RefreshField
	}
	switch st.Expiry {
	case ExpiresAtRFC3339, ExpiresAtUnix:
		login.ExpiresAtField = st.ExpiryField
	case ExpiresInNumber, ExpiresInString, ExpiresInFloat:
		login.ExpiresInField = st.ExpiryField
	}
	out.Fetcher = login

	if st.RefreshTokens {
		refresh := *login
		refresh.URL = s.URL + st.RefreshPath
		if st.RefreshPath != st.Path {
			refresh.Method = http.MethodPost
		}
		refresh.JSON, refresh.Form, refresh.HeaderFrom = nil, nil, nil
		refresh.BodyFrom = st.refreshBody
		out.Refresh = &refresh
	}
	return out
}

// refreshBody is the request that redeems in's refresh token.
func (st *step) refreshBody(in requestforge.Input) (any, error) {
	if st.JSON != nil {
		return st.withClient(map[string]any{"grant_type": grantRefresh, "refresh_token": in.Previous.RefreshToken}), nil
	}
	return url.Values{"grant_type": {grantRefresh}, "refresh_token": {in.Previous.RefreshToken}}, nil
}

// clientInBody reports whether the client authenticates itself in the body.
// It does so where the header is taken, and where it has no secret.
func (st *step) clientInBody() bool {
	return st.ClientAuth == BodyClientAuth ||
		st.ClientAuth == AnyClientAuth && (st.authorizationTaken() || st.ClientSecret == "")
}

// forgeAuth is the client's authentication, unless it is among the fields of
// a JSON object.
func (st *step) forgeAuth() *requestforge.ClientAuth {
	if st.ClientID == "" || st.JSON != nil && st.clientInBody() {
		return nil
	}
	return &requestforge.ClientAuth{ID: st.ClientID, Secret: st.ClientSecret, InBody: st.clientInBody()}
}

// withClient returns a copy of fields that has the client's id and secret,
// where they belong in a JSON object.
func (st *step) withClient(fields map[string]any) map[string]any {
	out := make(map[string]any, len(fields)+2)
	for k, v := range fields {
		out[k] = v
	}
	if st.ClientID != "" && st.clientInBody() {
		out["client_id"], out["client_secret"] = st.ClientID, st.ClientSecret
	}
	return out
}
