// Threesteps logs in with three dependent steps at two servers that it starts on
// loopback:
//
//	go run ./examples/threesteps
//
// oidc-provider gives the app a token (RFC 6749 §4.4) and trades it for one of a
// user (RFC 8693). The token server of docker-registry introspects that one at
// oidc-provider (RFC 7662) and gives out the registry's. Then tokens in the
// middle are revoked: what was made from them goes on for as long as the registry
// takes it, and it is the next fetch that finds out, and whose fault it is. What
// goes over the wire is printed; if it isn't what it should be, the exit status
// is 1.
package main

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/interop/internal/demo"
	"github.com/requestforge/requestforge/interop/servers"
	"github.com/requestforge/requestforge/oauth2source"
)

func main() { demo.MainAlone(run) }

// run starts both servers, logs in and returns what was wrong.
func run(ctx context.Context, out io.Writer) error {
	op, err := servers.Start(ctx, "oidc-provider")
	if err != nil {
		return err
	}
	defer op.Close()
	r, err := servers.StartRegistry(ctx, op)
	if err != nil {
		return err
	}
	defer r.Close()
	return tell(ctx, out, op, r)
}

// tell logs in at op and r.
func tell(ctx context.Context, out io.Writer, op *servers.Server, r *servers.Registry) error {
	tap := demo.NewTap(out, func(req *http.Request) string {
		switch to := "http://" + req.URL.Host + req.URL.Path; {
		case to == op.TokenURL && asks(req, "client_credentials"):
			return "app"
		case to == op.TokenURL:
			return "user"
		case to == r.TokenURL:
			return "realm"
		}
		return strings.ToLower(req.Method)
	})
	plain := &http.Client{Transport: tap}

	// The tokens of the steps, to have them revoked.
	last := map[string]string{}
	kept := func(step string, f requestforge.Fetcher) requestforge.Fetcher {
		return requestforge.FetcherFunc(func(ctx context.Context, in requestforge.Input) (*requestforge.Token, error) {
			tok, err := f.Fetch(ctx, in)
			if err == nil {
				last[step] = tok.AccessToken
			}
			return tok, err
		})
	}
	revoke := func(step string) error {
		return demo.NewWire(out, op).Revoke(ctx, op.ClientID, op.ClientSecret, last[step])
	}
	cfg := oauth2source.Config{
		TokenURL:   op.TokenURL,
		ClientAuth: &requestforge.ClientAuth{ID: op.ClientID, Secret: op.ClientSecret},
		Scopes:     op.Scopes,
		Client:     plain,
	}
	exchange := cfg
	exchange.Scopes = op.Exchange.Scopes
	exchange.Params = url.Values{}
	for name, value := range op.Exchange.Params {
		exchange.Params.Set(name, value)
	}
	realm := r.TokenURL + "?" + url.Values{"service": {r.Service}, "scope": {"repository:demo/hello:pull,push"}}.Encode()
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{
			{Name: "app", Fetcher: kept("app", oauth2source.ClientCredentials(cfg))},
			{Name: "user", DependsOn: []string{"app"}, Fetcher: kept("user", oauth2source.TokenExchange(exchange, oauth2source.Exchange{
				Subject:     oauth2source.FromStep("app"),
				SubjectType: op.Exchange.SubjectTokenType,
			}))},
			{Name: "registry", DependsOn: []string{"user"}, Fetcher: &requestforge.HTTPFetcher{
				Method:     http.MethodGet,
				URL:        realm,
				HeaderFrom: map[string]string{"Authorization": "user"},
				TokenField: "token",
				Client:     plain,
			}},
		},
	})
	if err != nil {
		return err
	}
	defer tokens.Close()
	transport, err := requestforge.NewTransport(requestforge.Config{
		Base:    tap,
		BaseURL: r.URL,
		Source:  tokens,
	})
	if err != nil {
		return err
	}
	client := &http.Client{Transport: transport}

	tap.Say("A program pushes a blob. Its first token is one that the registry takes for %v only.", life)
	r.ShortenTokens(life)
	if err := demo.Push(ctx, client, http.StatusCreated); err != nil {
		return err
	}
	r.ShortenTokens(0)
	tok, err := tokens.Token(ctx)
	if err != nil {
		return err
	}
	if err := tap.Compare("app 200", "user 200", "realm 200", "post 202", "put 201"); err != nil {
		return err
	}

	tap.Say("The user's token is revoked at oidc-provider. The registry doesn't know, and takes its own as before.")
	if err := revoke("user"); err != nil {
		return err
	}
	if err := demo.Pull(ctx, client); err != nil {
		return err
	}
	if err := tap.Compare("get 200"); err != nil {
		return err
	}

	tap.Say("It expires. The realm refuses the user's token, and so that one is replaced; the app's is as good as before.")
	if err := demo.AwaitRefusal(ctx, r.ResourceURL, tok); err != nil {
		return err
	}
	if err := demo.Pull(ctx, client); err != nil {
		return err
	}
	if err := tap.Compare("get 401", "realm 401", "user 200", "realm 200", "get 200"); err != nil {
		return err
	}

	tap.Say("Now both are revoked, and the program wants a new token. The blame climbs from the realm to the app.")
	if err := revoke("user"); err != nil {
		return err
	}
	if err := revoke("app"); err != nil {
		return err
	}
	if err := tokens.InvalidateStep(ctx, "registry"); err != nil {
		return err
	}
	if err := demo.Pull(ctx, client); err != nil {
		return err
	}
	return tap.Compare("realm 401", "user 400", "app 200", "user 200", "realm 200", "get 200")
}

// life is what the registry gives a token that has to expire.
const life = 10 * time.Second

// asks reports whether a request's form has that grant type. The body is left
// alone.
func asks(req *http.Request, grant string) bool {
	body, err := req.GetBody()
	if err != nil {
		return false
	}
	defer body.Close()
	form, err := io.ReadAll(body)
	if err != nil {
		return false
	}
	values, err := url.ParseQuery(string(form))
	return err == nil && values.Get("grant_type") == grant
}
