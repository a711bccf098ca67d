package requestforge_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"

	"github.com/requestforge/requestforge"
)

// A pipeline without Subject has one token for all its callers. If its fetcher takes the
// user from the context, that is whoever came first. ExamplePipelineConfig_subject has it
// right.
func ExampleFetcher_incorrect() {
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{
			Name: "user",
			Fetcher: requestforge.FetcherFunc(func(ctx context.Context, _ requestforge.Input) (*requestforge.Token, error) {
				user, err := userOf(ctx) // wrong: one caller's, and the token is for all
				return &requestforge.Token{AccessToken: user + "'s token"}, err
			}),
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, user := range []string{"ann", "bob"} {
		tok, err := tokens.Token(as(context.Background(), user))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(user, "gets", tok.AccessToken)
	}
	// Output:
	// ann gets ann's token
	// bob gets ann's token
}

// One pipeline for many users. The program's own token is shared; with it, a user's own
// token is exchanged for one that the API takes.
func ExamplePipelineConfig_subject() {
	authURL, stop := serveExchange()
	defer stop()

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		// Who it is, as the program's own middleware has verified. Never a
		// session, a header as it came, or strings joined by hand.
		Subject: func(ctx context.Context) (string, error) {
			user := callerOf(ctx)
			return requestforge.SubjectID(user.Issuer, user.ID), nil
		},
		Steps: []requestforge.Step{
			{Name: "app", Fetcher: &requestforge.HTTPFetcher{ // one for all
				URL:        authURL,
				ClientAuth: &requestforge.ClientAuth{ID: "shop", Secret: "made-up"},
				Form:       url.Values{"grant_type": {"client_credentials"}},
			}},
			{Name: "inbound", Given: func(ctx context.Context) (*requestforge.Token, error) {
				return callerOf(ctx).Token, nil // came with the request
			}},
			{Name: "orders", DependsOn: []string{"app", "inbound"}, Fetcher: &requestforge.HTTPFetcher{ // one for each user
				URL:        authURL,
				HeaderFrom: map[string]string{"Authorization": "app"},
				BodyFrom: func(in requestforge.Input) (any, error) {
					return url.Values{
						"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
						"subject_token":      {in.Parents["inbound"].AccessToken},
						"subject_token_type": {"urn:ietf:params:oauth:token-type:access_token"},
						"audience":           {"orders"},
					}, nil
				},
			}},
		},
	})
	if err != nil {
		log.Fatal(err)
	}

	for _, user := range []string{"ann", "bob", "ann"} {
		ctx := asCaller(context.Background(), user)
		tok, err := tokens.Token(ctx) // as a transport does with a request's context
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(user, "gets", tok.AccessToken)
	}
	_, err = tokens.Token(context.Background())
	fmt.Println("nobody:", err)
	for _, step := range []string{"app", "orders"} {
		fmt.Println(step, "tokens fetched:", tokens.Stats().Steps[step].Fetches)
	}
	// Output:
	// ann gets orders-of-ann
	// bob gets orders-of-bob
	// ann gets orders-of-ann
	// nobody: requestforge: no subject: PipelineConfig.Subject returned an ID of SubjectID whose last part, the user, is empty
	// app tokens fetched: 1
	// orders tokens fetched: 2
}

// caller is who sent a request, as a program's middleware has verified.
type caller struct {
	Issuer, ID string
	Token      *requestforge.Token
}

type callerKey struct{}

func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

func asCaller(ctx context.Context, user string) context.Context {
	return context.WithValue(ctx, callerKey{}, caller{
		Issuer: "https://login.example.com", ID: user, Token: &requestforge.Token{AccessToken: user},
	})
}

// serveExchange is an auth server whose tokens say whose they are.
func serveExchange() (authURL string, stop func()) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch _, password, _ := r.BasicAuth(); {
		case password == "made-up":
			fmt.Fprint(w, `{"access_token": "app", "expires_in": 3600}`)
		case r.Header.Get("Authorization") == "Bearer app" && r.FormValue("audience") == "orders":
			fmt.Fprintf(w, `{"access_token": "orders-of-%s", "expires_in": 3600}`, r.FormValue("subject_token"))
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	return srv.URL, srv.Close
}
