package requestforge_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// A program that speaks something else than HTTP: the peer says in its own way that it
// refuses a token, and the function says so with ErrRefused.
func ExampleUse() {
	srv := authtest.NewServer(twoSteps)
	defer srv.Close()
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}
	db := &database{passwords: srv}

	for range 2 {
		err := requestforge.Use(context.Background(), tokens, func(ctx context.Context, tok *requestforge.Token) error {
			err := db.Connect(ctx, "ann", tok.AccessToken)
			if errors.Is(err, errAccessDenied) {
				return fmt.Errorf("%w: %w", requestforge.ErrRefused, err)
			}
			return err
		})
		fmt.Println("connected:", err == nil, "after", db.attempts)
		srv.Revoke("user")
	}
	// Output:
	// connected: true after 1
	// connected: true after 3
}

var errAccessDenied = errors.New("access denied")

// database lets in who knows a token that its auth server has given out.
type database struct {
	passwords *authtest.Server
	attempts  int
}

func (db *database) Connect(ctx context.Context, user, password string) error {
	db.attempts++
	req, err := http.NewRequestWithContext(ctx, "GET", db.passwords.URL+"/", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+password)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusUnauthorized {
		return errAccessDenied
	}
	return nil
}

// Two credentials on each request: an app's and a user's, each from its own step.
func ExamplePipeline_Source() {
	srv := authtest.NewServer(twoSteps)
	defer srv.Close()
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}

	origins := []string{srv.URL}
	user := &requestforge.AuthTransport{Source: tokens, Origins: origins}
	app := &requestforge.AuthTransport{
		Base:    user,
		Source:  tokens.Source("app"),
		Attach:  []requestforge.Place{{Header: "X-App-Token"}},
		Origins: origins,
	}
	resp, err := (&http.Client{Transport: app}).Get(srv.URL + "/user/profile")
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println(resp.Status)
	fmt.Println("app tokens fetched:", tokens.Stats().Steps["app"].Fetches)
	// Output:
	// 200 OK
	// app tokens fetched: 1
}
