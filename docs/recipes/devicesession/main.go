// A device that counts sessions, in the manner of Redfish (DSP0266): each login
// makes a session, and a client that never ends its sessions locks itself out.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"time"

	"github.com/requestforge/requestforge"
)

func newClient(baseURL, password string) (*http.Client, *requestforge.Pipeline, error) {
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{
			Name: "session",
			Fetcher: &requestforge.HTTPFetcher{
				URL:         baseURL + "/redfish/v1/SessionService/Sessions",
				JSON:        map[string]any{"UserName": "admin", "Password": password},
				TokenHeader: "X-Auth-Token",
				KeepHeaders: []string{"Location"}, // the session's own URL
			},
			IdleLimit: 30 * time.Minute, // the device's SessionTimeout
			Revoke: func(ctx context.Context, in requestforge.Input) error {
				return endSession(ctx, baseURL, in.Previous)
			},
		}},
		RevokeReplaced: 10 * time.Second, // after a refusal, say: requests with the old token end first
	})
	if err != nil {
		return nil, nil, err
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL: baseURL,
		Source:  tokens,
		Attach:  []requestforge.Place{{Header: "X-Auth-Token"}},
	})
	return &http.Client{Transport: transport}, tokens, err
}

func endSession(ctx context.Context, baseURL string, tok *requestforge.Token) error {
	base, err := url.Parse(baseURL)
	if err != nil {
		return err
	}
	session, err := base.Parse(tok.Value("Location"))
	if err != nil || tok.Value("Location") == "" {
		return errors.New("the login named no URL of the session")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, session.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Auth-Token", tok.AccessToken)
	resp, err := requestforge.LoginClient(baseURL).Do(req) // wherever Location leads, the token stays at the device
	if err != nil {
		return requestforge.NewAuthError(nil, nil, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 && resp.StatusCode != http.StatusNotFound {
		return requestforge.NewAuthError(resp, nil, nil)
	}
	return nil
}

func main() {
	srv := newServer()
	defer srv.Close()
	for i := range 100 { // a job that cron starts: without Logout the 17th run would find no room
		if err := job(srv, i == 50); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(srv.logins, "logins,", srv.most, "session at once,", len(srv.sessions), "left")
}

// job is one run of the program. With restart the device loses its sessions meanwhile.
func job(srv *server, restart bool) error {
	client, tokens, err := newClient(srv.URL, "made-up")
	if err != nil {
		return err
	}
	defer tokens.Close()
	for range 2 {
		resp, err := client.Get("/redfish/v1/Systems")
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("the device says %s", resp.Status)
		}
		if restart {
			srv.restart() // the next request is refused, and replayed
			restart = false
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return tokens.Logout(ctx)
}
