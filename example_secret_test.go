package requestforge_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// A client's secret is in a file that a platform replaces. A wrong one is sent once, and the
// first call after the file has another one logs in, without a restart.
func ExampleSecretFile() {
	srv := authtest.NewServer(authtest.Config{Steps: []authtest.Step{
		{Name: "app", Path: "/token", ClientID: "shop", ClientSecret: "this-year's", TTL: time.Hour},
	}})
	defer srv.Close()
	file, remove := mounted("last-year's")
	defer remove()

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{Name: "app", Fetcher: &requestforge.HTTPFetcher{
			URL:        srv.URL + "/token",
			ClientAuth: &requestforge.ClientAuth{ID: "shop", SecretFrom: requestforge.SecretFile(file)},
		}}},
	})
	if err != nil {
		log.Fatal(err)
	}
	for range 3 {
		_, err := tokens.Token(context.Background())
		if auth, ok := errors.AsType[*requestforge.AuthError](err); ok {
			fmt.Println("no token:", auth.Code)
		}
	}
	replace(file, "this-year's")
	if _, err := tokens.Token(context.Background()); err == nil {
		fmt.Println("logged in")
	}
	fmt.Println("requests:", srv.Stats().Steps["app"].Fetches.Attempted)
	// Output:
	// no token: invalid_client
	// no token: invalid_client
	// no token: invalid_client
	// logged in
	// requests: 2
}

// mounted returns a file with a secret, and what removes the file.
func mounted(secret string) (file string, remove func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	file = filepath.Join(dir, "secret")
	replace(file, secret)
	return file, func() { os.RemoveAll(dir) }
}

// replace puts another secret into the file, at once for all who read it.
func replace(file, secret string) {
	if err := errors.Join(os.WriteFile(file+".next", []byte(secret+"\n"), 0o600), os.Rename(file+".next", file)); err != nil {
		log.Fatal(err)
	}
}
