// client-go takes a function that wraps the transport which it has made from its
// TLS options, below its own credentials.

package sdk_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// client-go asks an API server behind a login of two calls. The typed clients
// are made from the same rest.Config.
func Example_clientGo() {
	srv := authtest.NewServer(authtest.Config{
		Steps: login,
		API:   authtest.API{Handler: kubernetes.api(&shelf{value: "It works."})},
	})
	defer srv.Close()

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}
	config := &rest.Config{Host: srv.URL, Timeout: 30 * time.Second}
	config.Wrap(func(base http.RoundTripper) http.RoundTripper {
		return &requestforge.AuthTransport{
			Base:    base, // client-go's own, with the certificates of config
			Source:  tokens,
			Origins: []string{srv.URL},
		}
	})
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}

	notes := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace("default")
	note, err := notes.Get(context.Background(), "note", metav1.GetOptions{})
	if err != nil {
		log.Fatal(err)
	}
	text, _, err := unstructured.NestedString(note.Object, "data", "text")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(text)
	// Output: It works.
}

func TestClientGo(t *testing.T) { check(t, kubernetes) }

var kubernetes = register(sdk{
	name:   "k8s.io/client-go",
	module: "k8s.io/client-go",
	option: "rest.Config.Wrap",
	auth:   sometimes,
	tries:  1,
	https:  "TLS options together with a `Transport` are an error; with `Wrap` they aren't",
	how: "`Wrap`, with its argument as `Base`. Leave our retry layer out: client-go retries by itself what comes with a Retry-After, " +
		"ten times, and a typed client can't turn that off.",

	api: func(s *shelf) http.Handler {
		mux := http.NewServeMux()
		answer := func(w http.ResponseWriter, status int) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			json.NewEncoder(w).Encode(configMap(s.get()))
		}
		mux.HandleFunc("GET /api/v1/namespaces/default/configmaps/note", func(w http.ResponseWriter, r *http.Request) {
			answer(w, http.StatusOK)
		})
		mux.HandleFunc("POST /api/v1/namespaces/default/configmaps", func(w http.ResponseWriter, r *http.Request) {
			var note struct{ Data struct{ Text string } }
			if err := json.NewDecoder(r.Body).Decode(&note); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			s.put(note.Data.Text)
			answer(w, http.StatusCreated)
		})
		return mux
	},

	open: func(t *testing.T, c conn) client {
		config := &rest.Config{Host: c.url, BearerToken: c.credential}
		config.Wrap(func(http.RoundTripper) http.RoundTripper { return c.http.Transport })
		api, err := dynamic.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		notes := api.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace("default")
		text := func(note *unstructured.Unstructured, err error) (string, error) {
			if err != nil {
				return "", err
			}
			text, _, err := unstructured.NestedString(note.Object, "data", "text")
			return text, err
		}
		return client{
			read: func(ctx context.Context) (string, error) {
				return text(notes.Get(ctx, "note", metav1.GetOptions{}))
			},
			write: func(ctx context.Context, value string) (string, error) {
				note := &unstructured.Unstructured{Object: configMap(value)}
				return text(notes.Create(ctx, note, metav1.CreateOptions{}))
			},
		}
	},
})

func configMap(text string) map[string]any {
	return map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": "note", "namespace": "default"},
		"data":     map[string]any{"text": text},
	}
}

// The table says that client-go retries after a Retry-After. With ours below
// that multiplies, too.
func TestClientGoRetriesAfterRetryAfter(t *testing.T) {
	for _, test := range []struct{ ours, arrived int }{{0, 11}, {1, 22}} {
		synctest.Test(t, func(t *testing.T) {
			w := newSimulation(t, kubernetes, requestforge.Config{Retry: requestforge.RetryPolicy{RetryMax: test.ours}})
			w.sim.FailAPI(authtest.Fault{RetryAfter: time.Second})
			if got, err := w.open(t, "", true).read(t.Context()); err == nil {
				t.Errorf("read %q, want an error", got)
			}
			if sent, arrived := w.above.sent(), w.sim.Stats().API.Attempted; sent != 11 || arrived != test.arrived {
				t.Errorf("the SDK sent %d requests, and %d arrived; want 11 and %d", sent, arrived, test.arrived)
			}
			w.closed(t)
		})
	}
}

func TestClientGoTakesNoTLSOptionsWithATransport(t *testing.T) {
	config := &rest.Config{Host: "https://127.0.0.1", TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	config.Wrap(func(base http.RoundTripper) http.RoundTripper { return &requestforge.AuthTransport{Base: base} })
	if _, err := rest.HTTPClientFor(config); err != nil {
		t.Errorf("with Wrap: %v", err)
	}
	config.WrapTransport = nil
	config.Transport = &requestforge.AuthTransport{}
	if _, err := rest.HTTPClientFor(config); err == nil {
		t.Error("with Transport: no error")
	}
}

// Upgrades (exec, port-forward) are dialled past the transport, with the TLS options
// and the dialer of the innermost one, which Kubernetes looks for through all layers.
func TestClientGoSeesThroughTheLayers(t *testing.T) {
	dialed := errors.New("dialed")
	inner := &http.Transport{
		TLSClientConfig: &tls.Config{ServerName: "inner.test"},
		DialContext:     func(context.Context, string, string) (net.Conn, error) { return nil, dialed },
	}
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: authtest.NewSimulator(authtest.Config{Steps: login}).Steps()})
	if err != nil {
		t.Fatal(err)
	}
	all, err := requestforge.NewTransport(requestforge.Config{
		Base:    inner,
		Origins: []string{"https://api.test"},
		Source:  tokens,
		Retry:   requestforge.RetryPolicy{RetryMax: 1},
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, transport := range map[string]http.RoundTripper{
		"Transport":        all,
		"AuthTransport":    &requestforge.AuthTransport{Base: inner},
		"RetryTransport":   &requestforge.RetryTransport{Base: inner},
		"LoggingTransport": &requestforge.LoggingTransport{Base: inner},
	} {
		config, err := utilnet.TLSClientConfig(transport)
		if err != nil || config == nil || config.ServerName != "inner.test" {
			t.Errorf("%s: TLS options %v, %v; want those of the innermost transport", name, config, err)
		}
		dial, err := utilnet.DialerFor(transport)
		if err != nil || dial == nil {
			t.Errorf("%s: no dialer, %v", name, err)
		} else if _, err := dial(t.Context(), "tcp", "api.test:443"); err != dialed {
			t.Errorf("%s: the dialer isn't that of the innermost transport: %v", name, err)
		}
	}
}
