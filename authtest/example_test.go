package authtest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/requestforge/requestforge/authtest"
)

// An application token is got by client credentials, a user token with the
// application token and a password, and the API takes the user token, until
// it is revoked.
func ExampleServer() {
	srv := authtest.NewServer(authtest.Config{Steps: []authtest.Step{{
		Name: "app", Path: "/v1/app/token",
		ClientID: "shop", ClientSecret: "made-up", TTL: time.Hour,
	}, {
		Name: "user", Path: "/v1/user/token",
		Parents: map[string]string{"app": "X-App-Token"},
		JSON:    map[string]any{"username": "ann", "password": "made-up"},
		TTL:     15 * time.Minute,
	}}})
	defer srv.Close()

	token := func(req *http.Request) string {
		resp, err := srv.Client().Do(req)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		var body struct {
			AccessToken string `json:"access_token"`
		}
		json.NewDecoder(resp.Body).Decode(&body)
		return body.AccessToken
	}
	req, _ := http.NewRequest("POST", srv.URL+"/v1/app/token", nil)
	req.SetBasicAuth("shop", "made-up")
	app := token(req)

	req, _ = http.NewRequest("POST", srv.URL+"/v1/user/token", strings.NewReader(`{"username":"ann","password":"made-up"}`))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-App-Token", app)
	user := token(req)

	for range 2 {
		req, _ = http.NewRequest("GET", srv.URL+"/api/orders", nil)
		req.Header.Set("Authorization", "Bearer "+user)
		resp, err := srv.Client().Do(req)
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
		srv.Revoke("user")
	}
	for _, e := range srv.Log() {
		fmt.Println(strings.TrimSpace(fmt.Sprintf("%s %s %s%s", e.Path, e.Outcome, e.Token, e.Reason)))
	}
	// Output:
	// 200 OK
	// 401 Unauthorized
	// /v1/app/token granted app-1
	// /v1/user/token granted user-1
	// /api/orders accepted user-1
	// /api/orders refused user-1 is revoked
}
