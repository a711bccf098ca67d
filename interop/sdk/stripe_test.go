// stripe-go takes a client, and always sends a key.

package sdk_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stripe/stripe-go/v85"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// stripe-go asks a gateway behind a login of two calls. The gateway has the
// real key; the SDK's own is replaced by our token.
func Example_stripe() {
	srv := authtest.NewServer(authtest.Config{
		Steps: login,
		API:   authtest.API{Handler: payments.api(&shelf{value: "It works."})},
	})
	defer srv.Close()

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		Source:     tokens,
		Origins:    []string{srv.URL},
		OnConflict: requestforge.ReplaceCaller,
		Retry:      requestforge.RetryPolicy{RetryMax: 3},
	})
	if err != nil {
		log.Fatal(err)
	}
	client := stripe.NewClient("unused", stripe.WithBackends(stripe.NewBackendsWithConfig(&stripe.BackendConfig{
		HTTPClient:        &http.Client{Transport: transport, Timeout: 30 * time.Second},
		URL:               stripe.String(srv.URL),
		MaxNetworkRetries: stripe.Int64(0), // ours is enough
	})))

	customer, err := client.V1Customers.Retrieve(context.Background(), "cus_1", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(customer.Description)
	// Output: It works.
}

func TestStripe(t *testing.T) { check(t, payments) }

var payments = register(sdk{
	name:   "stripe-go",
	module: "github.com/stripe/stripe-go/v85",
	option: "BackendConfig.HTTPClient",
	auth:   always,
	tries:  3,
	how:    "`ReplaceCaller`, and `MaxNetworkRetries: stripe.Int64(0)`. Its POSTs have an Idempotency-Key, so our layer retries them.",

	api: func(s *shelf) http.Handler {
		mux := http.NewServeMux()
		answer := func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(map[string]any{"object": "customer", "id": "cus_1", "description": s.get()})
		}
		mux.HandleFunc("GET /v1/customers/cus_1", func(w http.ResponseWriter, r *http.Request) { answer(w) })
		mux.HandleFunc("POST /v1/customers", func(w http.ResponseWriter, r *http.Request) {
			s.put(r.PostFormValue("description"))
			answer(w)
		})
		return mux
	},

	// An error that isn't of Stripe's own kind would be one of decoding.
	refuse: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, `{"error":{"type":"invalid_request_error","message":"Invalid API Key provided"}}`)
	}),

	open: func(t *testing.T, c conn) client {
		config := &stripe.BackendConfig{HTTPClient: c.http, URL: &c.url, LeveledLogger: stripeLog{c.log}}
		if !c.retries {
			config.MaxNetworkRetries = stripe.Int64(0)
		}
		api := stripe.NewClient(c.credential, stripe.WithBackends(stripe.NewBackendsWithConfig(config)))
		text := func(customer *stripe.Customer, err error) (string, error) {
			if err != nil {
				return "", err
			}
			return customer.Description, nil
		}
		return client{
			read: func(ctx context.Context) (string, error) {
				return text(api.V1Customers.Retrieve(ctx, "cus_1", nil))
			},
			write: func(ctx context.Context, value string) (string, error) {
				return text(api.V1Customers.Create(ctx, &stripe.CustomerCreateParams{Description: &value}))
			},
		}
	},
})

// A POST of stripe-go can be repeated, so our layer does it.
func TestStripeWritesAreRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSimulation(t, payments, requestforge.Config{
			OnConflict: requestforge.ReplaceCaller,
			Retry:      requestforge.RetryPolicy{RetryMax: 1},
		})
		w.sim.FailAPI(authtest.Fault{Status: http.StatusServiceUnavailable, Times: 1})
		got, err := w.open(t, credential, false).write(t.Context(), "second time lucky")
		if err != nil || got != "second time lucky" {
			t.Fatalf("write decoded %q, %v", got, err)
		}
		if sent, arrived := w.above.sent(), w.sim.Stats().API.Attempted; sent != 1 || arrived != 2 {
			t.Errorf("the SDK sent %d requests, and %d arrived; want 1 and 2", sent, arrived)
		}
		w.closed(t)
	})
}

// stripeLog writes every level to one place.
type stripeLog struct{ w io.Writer }

func (l stripeLog) Debugf(format string, args ...any) { fmt.Fprintf(l.w, format+"\n", args...) }
func (l stripeLog) Infof(format string, args ...any)  { fmt.Fprintf(l.w, format+"\n", args...) }
func (l stripeLog) Warnf(format string, args ...any)  { fmt.Fprintf(l.w, format+"\n", args...) }
func (l stripeLog) Errorf(format string, args ...any) { fmt.Fprintf(l.w, format+"\n", args...) }
