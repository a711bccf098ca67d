// The gateway itself: what an application writes.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/requestforge/requestforge"
)

// settings are what a gateway has from its environment.
type settings struct {
	authURL  string            // of the auth server, which is the issuer of the users' tokens, too
	secret   string            // the gateway's own at the auth server
	backends map[string]string // their URLs, by the audience that each of them is
	kept     int               // how many users' tokens are in memory at once
}

// A user is who sent a request, as the auth server has confirmed.
type user struct {
	issuer, id string
	token      *requestforge.Token // that came with the request
}

type userKey struct{}

func userOf(ctx context.Context) user {
	u, _ := ctx.Value(userKey{}).(user)
	return u
}

// subjectOf says whose tokens a request wants. The issuer is a part of the ID: two
// issuers may have a user of one name. Without a user it is no ID, and nothing is sent.
func subjectOf(ctx context.Context) (string, error) {
	u := userOf(ctx)
	return requestforge.SubjectID(u.issuer, u.id), nil
}

// newPipeline describes what becomes of a user's token: with the gateway's own token,
// which all users share, it is exchanged for one within the company, and that for one of
// each backend.
func newPipeline(cfg settings, subject func(context.Context) (string, error), client *http.Client, logger *slog.Logger) (*requestforge.Pipeline, error) {
	auth := &requestforge.ClientAuth{ID: "gateway", Secret: cfg.secret}
	steps := []requestforge.Step{{
		Name: "app",
		Fetcher: &requestforge.HTTPFetcher{
			URL: cfg.authURL + "/token", Client: client,
			ClientAuth: auth,
			Form:       url.Values{"grant_type": {"client_credentials"}},
		},
	}, {
		Name:  "inbound",
		Given: func(ctx context.Context) (*requestforge.Token, error) { return userOf(ctx).token, nil },
	}, {
		Name:      "user",
		DependsOn: []string{"app", "inbound"},
		Fetcher: &requestforge.HTTPFetcher{
			URL: cfg.authURL + "/token", Client: client,
			HeaderFrom: map[string]string{"Authorization": "app"},
			BodyFrom:   exchange("inbound", "company"),
		},
	}}
	for audience := range cfg.backends {
		steps = append(steps, requestforge.Step{
			Name:      audience,
			DependsOn: []string{"user"},
			Fetcher: &requestforge.HTTPFetcher{
				URL: cfg.authURL + "/token", Client: client,
				ClientAuth: auth,
				BodyFrom:   exchange("user", audience),
				// RFC 8693 §2.2.2: a subject token that is no good any more.
				Classify: func(resp *http.Response, _ []byte) *requestforge.AuthError {
					if resp.StatusCode == http.StatusBadRequest {
						return &requestforge.AuthError{ParentRefused: true}
					}
					return nil
				},
			},
		})
	}
	return requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps:       steps,
		Subject:     subject,
		MaxSubjects: cfg.kept,
		Logger:      logger,
	})
}

// exchange is the form of a token exchange (RFC 8693).
func exchange(from, audience string) func(requestforge.Input) (any, error) {
	return func(in requestforge.Input) (any, error) {
		return url.Values{
			"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
			"subject_token":      {in.Parents[from].AccessToken},
			"subject_token_type": {"urn:ietf:params:oauth:token-type:access_token"},
			"audience":           {audience},
		}, nil
	}
}

// newGateway returns a handler that sends /orders/… to the backend "orders" as the user
// who asks, and /invoices/… to "invoices". POST /logout ends the user's session.
func newGateway(cfg settings, tokens *requestforge.Pipeline, base http.RoundTripper) (http.Handler, error) {
	mux := http.NewServeMux()
	for audience, backend := range cfg.backends {
		target, err := url.Parse(backend)
		if err != nil {
			return nil, err
		}
		transport, err := requestforge.NewTransport(requestforge.Config{
			BaseURL: backend,
			Source:  tokens.Source(audience),
			Base:    base,
		})
		if err != nil {
			return nil, err
		}
		mux.Handle("/"+audience+"/", &httputil.ReverseProxy{
			Transport: transport,
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(target)
				r.Out.Header.Del("Authorization") // the user's token is for the gateway alone
			},
			ErrorHandler: refuse,
		})
	}
	g := &guard{cfg: cfg, client: &http.Client{Transport: base, Timeout: 30 * time.Second}, next: mux}
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		// First at the auth server, so that no request of the user's that is under way can
		// exchange the session again.
		err := g.post(r.Context(), "/revoke", userOf(r.Context()).token.AccessToken, nil)
		if err := errors.Join(err, tokens.Forget(r.Context())); err != nil {
			http.Error(w, "the logout isn't complete", http.StatusBadGateway)
		}
	})
	return g, nil
}

// refuse answers a request that no backend has answered.
func refuse(w http.ResponseWriter, _ *http.Request, err error) {
	status := http.StatusBadGateway
	if auth, ok := errors.AsType[*requestforge.AuthError](err); ok && auth.Step == "user" && auth.Permanent {
		status = http.StatusUnauthorized // the session has ended a moment ago
	}
	http.Error(w, http.StatusText(status), status)
}

// guard lets nobody in whom the auth server doesn't know (RFC 7662).
type guard struct {
	cfg    settings
	client *http.Client
	next   http.Handler
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var who struct {
		Active   bool   `json:"active"`
		Issuer   string `json:"iss"`
		Username string `json:"username"`
		Exp      int64  `json:"exp"`
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if ok {
		if err := g.post(r.Context(), "/introspect", token, &who); err != nil {
			http.Error(w, "nobody can say who you are", http.StatusBadGateway)
			return
		}
	}
	if !who.Active {
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "log in first", http.StatusUnauthorized)
		return
	}
	u := user{issuer: who.Issuer, id: who.Username, token: &requestforge.Token{AccessToken: token, Expiry: time.Unix(who.Exp, 0)}}
	g.next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), userKey{}, u)))
}

// post asks the auth server about a token, as the gateway.
func (g *guard) post(ctx context.Context, path, token string, answer any) error {
	form := strings.NewReader(url.Values{"token": {token}}.Encode())
	req, err := http.NewRequestWithContext(ctx, "POST", g.cfg.authURL+path, form)
	if err != nil {
		return err
	}
	req.SetBasicAuth("gateway", g.cfg.secret)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := g.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New("the auth server said " + resp.Status)
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}
