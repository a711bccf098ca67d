package authtest_test

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// clientOf is a client that logs in at sim, with what more says.
func clientOf(sim *authtest.Simulator, more requestforge.Config) *http.Client {
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: sim.Steps()})
	if err != nil {
		panic(err)
	}
	more.Base, more.BaseURL, more.Source = sim.Transport(), cmp.Or(more.BaseURL, sim.URL), tokens
	if more.Attach == nil {
		more.Attach = sim.Attach("")
	}
	transport, err := requestforge.NewTransport(more)
	if err != nil {
		panic(err)
	}
	return &http.Client{Transport: transport}
}

// show prints what a client gets, and whose token the API took.
func show(sim *authtest.Simulator, client *http.Client, path string) {
	resp, err := client.Get(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()
	log := sim.Log()
	fmt.Println(resp.StatusCode, log[len(log)-1].Token)
}

// A session is in a cookie, and a CSRF value goes with it in a header.
func ExampleValue() {
	sim := authtest.NewSimulator(authtest.Config{
		Steps: []authtest.Step{{
			Name: "login", TokenCookie: "session",
			Values: map[string]authtest.Value{"csrf": {Field: "csrf"}},
		}},
		API: authtest.API{Wants: []authtest.Place{{Cookie: "session"}, {Header: "X-CSRF-Token", Value: "csrf"}}},
	})
	client := clientOf(sim, requestforge.Config{
		Attach: []requestforge.Place{{Cookie: "session"}, {Header: "X-CSRF-Token", Value: "csrf"}},
	})
	show(sim, client, "/orders")
	sim.Revoke("login")
	show(sim, client, "/orders")
	// Output:
	// 200 login-1
	// 200 login-2
}

// A client has a key of its own beside the token, which is sent bare. The log
// says what was wrong with a request that has neither.
func ExamplePlace() {
	sim := authtest.NewSimulator(authtest.Config{
		Steps: []authtest.Step{{Name: "login"}},
		API:   authtest.API{Wants: []authtest.Place{{Query: "api_key", Text: "made-up"}, {Header: "Authorization", Bare: true}}},
	})
	show(sim, clientOf(sim, requestforge.Config{}), "/orders")
	resp, err := sim.Client().Get(sim.URL + "/orders")
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()
	log := sim.Log()
	fmt.Println(resp.StatusCode, log[len(log)-1].Reason)
	// Output:
	// 200 login-1
	// 401 query parameter api_key is missing
}

// A login answers with nothing but the token.
func ExampleBodyFormat() {
	sim := authtest.NewSimulator(authtest.Config{
		Steps: []authtest.Step{{Name: "login", Body: authtest.JSONStringBody, TTL: time.Hour}},
	})
	show(sim, clientOf(sim, requestforge.Config{}), "/orders")
	// Output: 200 login-1
}

// The token is a key with which each request is signed, and isn't sent.
func ExampleSignature() {
	signature := authtest.Signature{NonceHeader: "X-Nonce"}
	sim := authtest.NewSimulator(authtest.Config{
		Steps: []authtest.Step{{Name: "login", Values: map[string]authtest.Value{"id": {Field: "key_id"}}}},
		API:   authtest.API{Wants: []authtest.Place{{Header: "X-Key-Id", Value: "id"}}, Signature: &signature},
	})
	n := 0
	client := clientOf(sim, requestforge.Config{Prepare: func(out *http.Request, tok *requestforge.Token) error {
		n++
		out.Header.Set("X-Nonce", fmt.Sprint(n))
		out.Header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
		mac := hmac.New(sha256.New, []byte(tok.AccessToken))
		io.WriteString(mac, signature.SigningString(out))
		out.Header.Set("X-Signature", hex.EncodeToString(mac.Sum(nil)))
		return nil
	}})
	show(sim, client, "/orders?page=2")
	sim.Revoke("login")
	show(sim, client, "/orders?page=2")
	// Output:
	// 200 login-1
	// 200 login-2
}

// The login says where its token is good, and a later login says it anew.
func ExampleSimulator_Move() {
	sim := authtest.NewSimulator(authtest.Config{Steps: []authtest.Step{{
		Name: "login", InstanceField: "instance_url",
		Instances: []string{"https://eu1.my.example.com", "https://eu2.my.example.com"},
	}}})
	client := clientOf(sim, requestforge.Config{
		Origins:     []string{"https://*.my.example.com"},
		BaseURLFrom: func(tok *requestforge.Token) (string, error) { return tok.Value("instance_url"), nil },
	})
	show(sim, client, "/orders")
	sim.Move("login", "https://eu2.my.example.com")
	sim.Revoke("login")
	show(sim, client, "/orders")
	// Output:
	// 200 login-1
	// 200 login-2
}

// An API refuses with a code in a 200.
func ExampleAnswerHandler() {
	sim := authtest.NewSimulator(authtest.Config{
		Steps: []authtest.Step{{Name: "login"}},
		API:   authtest.API{Refused: authtest.AnswerHandler(http.StatusOK, `{"success":false,"error":{"code":119}}`)},
	})
	client := clientOf(sim, requestforge.Config{Refused: func(resp *http.Response) bool {
		body, err := io.ReadAll(resp.Body)
		return err == nil && bytes.Contains(body, []byte(`"code":119`))
	}})
	show(sim, client, "/orders")
	sim.Revoke("login")
	show(sim, client, "/orders")
	// Output:
	// 200 login-1
	// 200 login-2
}

// A device has one session; whoever logs in next ends it.
func ExampleStep_maxSessions() {
	sim := authtest.NewSimulator(authtest.Config{Steps: []authtest.Step{{Name: "login", MaxSessions: 1}}})
	one, two := clientOf(sim, requestforge.Config{}), clientOf(sim, requestforge.Config{})
	show(sim, one, "/status")
	show(sim, two, "/status")
	show(sim, one, "/status")
	fmt.Println(sim.Stats().Steps["login"].Ended, "sessions ended")
	// Output:
	// 200 login-1
	// 200 login-2
	// 200 login-3
	// 2 sessions ended
}
