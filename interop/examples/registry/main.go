// Registry pushes a blob to a docker-registry that it starts on loopback, and
// pulls it:
//
//	go run ./examples/registry
//
// The registry says itself what token it wants: its 401 has a Bearer challenge
// with the realm, which is a token server, the service and the scope. The first
// step of the pipeline gets that challenge, the second asks the realm for the
// token. The registry can't revoke a token, so that this one expires, earlier
// than the token server said. What goes over the wire is printed; if it isn't
// what it should be, the exit status is 1.
package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/internal/challenge"
	"github.com/requestforge/requestforge/interop/internal/demo"
	"github.com/requestforge/requestforge/interop/servers"
)

func main() { demo.MainAlone(run) }

// run starts a registry, uses it and returns what was wrong.
func run(ctx context.Context, out io.Writer) error {
	r, err := servers.StartRegistry(ctx, nil)
	if err != nil {
		return err
	}
	defer r.Close()
	return tell(ctx, out, r, 10*time.Second)
}

// tell does everything with r. life is what a token gets that has to expire.
func tell(ctx context.Context, out io.Writer, r *servers.Registry, life time.Duration) error {
	tap := demo.NewTap(out, func(req *http.Request) string {
		name := "realm"
		if strings.HasPrefix(req.URL.Path, demo.Repository) {
			name = strings.ToLower(req.Method)
			if req.Header.Get("Authorization") == "" {
				name = "anonymous " + name
			}
		}
		return name
	})

	tap.Say("A program pushes a blob. It needs the scope that the registry names for that.")
	_, pusher, err := client(r, tap, http.MethodPost, demo.Uploads)
	if err != nil {
		return err
	}
	if err := demo.Push(ctx, pusher, http.StatusCreated); err != nil {
		return err
	}
	if err := tap.Compare("anonymous post 401", "realm 200", "post 202", "put 201"); err != nil {
		return err
	}

	tap.Say("Another one pulls it, with a token that is good for no more.")
	tokens, puller, err := client(r, tap, http.MethodGet, demo.Blob)
	if err != nil {
		return err
	}
	if err := demo.Pull(ctx, puller); err != nil {
		return err
	}
	if err := tap.Compare("anonymous get 401", "realm 200", "get 200"); err != nil {
		return err
	}

	tap.Say("It can't push (insufficient_scope). No other token would help, so none is fetched.")
	if err := demo.Push(ctx, puller, http.StatusUnauthorized); err != nil {
		return err
	}
	if err := tap.Compare("post 401"); err != nil {
		return err
	}

	tap.Say("Its next token is one that the registry takes for %v only. The program isn't told.", life)
	r.ShortenTokens(life)
	if err := tokens.InvalidateStep(ctx, "registry"); err != nil {
		return err
	}
	if err := demo.Pull(ctx, puller); err != nil {
		return err
	}
	r.ShortenTokens(0)
	tok, err := tokens.Token(ctx)
	if err != nil {
		return err
	}
	if err := demo.AwaitRefusal(ctx, r.ResourceURL, tok); err != nil {
		return err
	}
	tap.Say("It is over. The program pulls again.")
	if err := demo.Pull(ctx, puller); err != nil {
		return err
	}
	return tap.Compare("realm 200", "get 200", "get 401", "realm 200", "get 200")
}

// client returns a client of r that may do what method and path say, and the
// pipeline behind it.
func client(r *servers.Registry, base http.RoundTripper, method, path string) (*requestforge.Pipeline, *http.Client, error) {
	plain := &http.Client{Transport: base}
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{
			Name: "challenge",
			Fetcher: requestforge.FetcherFunc(func(ctx context.Context, _ requestforge.Input) (*requestforge.Token, error) {
				return ask(ctx, plain, method, r.URL+path, r.TokenURL)
			}),
		}, {
			Name:      "registry",
			DependsOn: []string{"challenge"},
			Fetcher: &requestforge.HTTPFetcher{
				Method:     http.MethodGet,
				URL:        r.TokenURL,
				ClientAuth: &requestforge.ClientAuth{ID: r.ClientID, Secret: r.ClientSecret},
				TokenField: "token",
				Prepare: func(req *http.Request, in requestforge.Input) error {
					req.URL.RawQuery = in.Parents["challenge"].AccessToken
					return nil
				},
				Client: plain,
			},
		}},
	})
	if err != nil {
		return nil, nil, err
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		Base:    base,
		BaseURL: r.URL,
		Source:  tokens,
	})
	if err != nil {
		return nil, nil, err
	}
	return tokens, &http.Client{Transport: transport}, nil
}

// ask sends a request without a token and returns, in place of a token, the
// query for the realm that the registry answers with. The realm has to be the
// one that we know: the next step sends our secret there, so the registry has
// no say in where that is.
func ask(ctx context.Context, plain *http.Client, method, to, realm string) (*requestforge.Token, error) {
	req, err := http.NewRequestWithContext(ctx, method, to, nil)
	if err != nil {
		return nil, err
	}
	resp, err := plain.Do(req)
	if err != nil {
		return nil, err
	}
	resp.Body.Close()
	for _, c := range challenge.Parse(resp.Header) {
		if strings.EqualFold(c.Scheme, "Bearer") && c.Params["realm"] == realm {
			query := url.Values{"service": {c.Params["service"]}, "scope": {c.Params["scope"]}}
			return &requestforge.Token{AccessToken: query.Encode()}, nil
		}
	}
	return nil, &requestforge.AuthError{
		StatusCode: resp.StatusCode,
		Err:        errors.New("no challenge with the realm that is expected"),
	}
}
