// go-containerregistry pings a registry first, to learn how to authenticate.
// With our transport the ping has a token already and succeeds, so there is
// nothing left to do for the SDK.

package sdk_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// A registry that takes the tokens of our login. The token is revoked between
// push and pull.
func Example_containerRegistry() {
	srv := authtest.NewServer(authtest.Config{
		Steps: login,
		API:   authtest.API{Handler: newRegistry()},
	})
	defer srv.Close()

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		Source:  tokens,
		Origins: []string{srv.URL}, // of the scheme that the registry speaks
	})
	if err != nil {
		log.Fatal(err)
	}
	options := []remote.Option{
		remote.WithTransport(transport),
		remote.WithAuth(authn.Anonymous),
	}

	tag, err := name.NewTag(strings.TrimPrefix(srv.URL, "http://") + "/shop/value:latest")
	if err != nil {
		log.Fatal(err)
	}
	image, err := random.Image(1024, 3)
	if err != nil {
		log.Fatal(err)
	}
	if err := remote.Write(tag, image, options...); err != nil {
		log.Fatal(err)
	}
	srv.Revoke("user")
	pulled, err := remote.Image(tag, options...)
	if err != nil {
		log.Fatal(err)
	}
	pushed, err := image.Digest()
	if err != nil {
		log.Fatal(err)
	}
	digest, err := pulled.Digest()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(digest == pushed)
	// Output: true
}

func newRegistry() http.Handler {
	return registry.New(registry.Logger(log.New(io.Discard, "", 0)))
}

func TestContainerRegistry(t *testing.T) {
	check(t, containerRegistry)
	t.Run("has its header replaced with ReplaceCaller", func(t *testing.T) {
		revoked(t, containerRegistry, credential, requestforge.ReplaceCaller)
	})
}

// exceptPing is when go-containerregistry sets the header. The ping has none,
// so it gets our token whatever OnConflict is.
const exceptPing auth = "with credentials, except in its ping"

const repository = "shop/value"

var containerRegistry = register(sdk{
	name:   "go-containerregistry",
	module: "github.com/google/go-containerregistry",
	option: "remote.WithTransport",
	auth:   exceptPing,
	tries:  3,
	https:  "https, but for loopback, private addresses and `name.Insecure`, which it pings with both; `Origins` has to name the scheme that the registry speaks",
	how: "`authn.Anonymous`, which is the default: the ping succeeds with our token, so its own Bearer flow doesn't begin. With credentials, `ReplaceCaller`. " +
		"`WithRetryBackoff(remote.Backoff{Steps: 1})` leaves retries to us.",

	tls:    true,
	reads:  3,  // ping, manifest, layer
	writes: 11, // ping; is the tag there; four each for layer and config: is it there, begin, send, commit; manifest

	// The shelf's value is the only layer of the image.
	api: func(s *shelf) http.Handler {
		r := newRegistry()
		serve := inProcess{r}
		if err := push(context.Background(), "registry.test", s.get(), remote.WithTransport(serve)); err != nil {
			panic(err)
		}
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/manifests/") {
				manifest, err := io.ReadAll(req.Body)
				if err != nil {
					panic(http.ErrAbortHandler)
				}
				req.Body = io.NopCloser(bytes.NewReader(manifest))
				if m, err := v1.ParseManifest(bytes.NewReader(manifest)); err == nil && len(m.Layers) == 1 {
					blob := httptest.NewRecorder()
					r.ServeHTTP(blob, httptest.NewRequest(http.MethodGet, "/v2/"+repository+"/blobs/"+m.Layers[0].Digest.String(), nil))
					s.put(blob.Body.String())
				}
			}
			r.ServeHTTP(w, req)
		})
	},

	open: func(t *testing.T, c conn) client {
		to, err := url.Parse(c.url)
		if err != nil {
			t.Fatal(err)
		}
		options := []remote.Option{
			remote.WithTransport(at{to.Host, c.http.Transport}),
			remote.WithJobs(1), // one request after the other, for the tests
		}
		if c.credential != "" {
			options = append(options, remote.WithAuth(&authn.Bearer{Token: c.credential}))
		}
		if !c.retries {
			options = append(options, remote.WithRetryBackoff(remote.Backoff{Steps: 1}))
		}
		return client{
			read: func(ctx context.Context) (string, error) {
				return pull(ctx, "registry.test", options...)
			},
			write: func(ctx context.Context, value string) (string, error) {
				return value, push(ctx, "registry.test", value, options...)
			},
		}
	},
})

// push pushes an image with one layer, the value.
func push(ctx context.Context, host, value string, options ...remote.Option) error {
	tag, err := name.NewTag(host + "/" + repository + ":latest")
	if err != nil {
		return err
	}
	image, err := mutate.AppendLayers(empty.Image, static.NewLayer([]byte(value), types.DockerLayer))
	if err != nil {
		return err
	}
	return remote.Write(tag, image, append(options, remote.WithContext(ctx))...)
}

// pull pulls it, and returns the value. The SDK checks both digests.
func pull(ctx context.Context, host string, options ...remote.Option) (string, error) {
	tag, err := name.NewTag(host + "/" + repository + ":latest")
	if err != nil {
		return "", err
	}
	image, err := remote.Image(tag, append(options, remote.WithContext(ctx))...)
	if err != nil {
		return "", err
	}
	layers, err := image.Layers()
	if err != nil {
		return "", err
	}
	if len(layers) != 1 {
		return "", fmt.Errorf("%d layers, want 1", len(layers))
	}
	layer, err := layers[0].Compressed()
	if err != nil {
		return "", err
	}
	defer layer.Close()
	value, err := io.ReadAll(layer)
	return string(value), err
}

// at sends the requests for any host to one, without the SDK's knowledge. A
// registry with a name of its own is pinged with https alone, and so with a
// number of requests that doesn't depend on time.
type at struct {
	host string
	next http.RoundTripper
}

func (a at) RoundTrip(req *http.Request) (*http.Response, error) {
	out := req.Clone(req.Context())
	out.URL.Host, out.Host = a.host, ""
	resp, err := a.next.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	resp.Request = req
	return resp, nil
}

// inProcess serves requests without a network.
type inProcess struct{ http.Handler }

func (p inProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	in := req.Clone(req.Context())
	if in.Body == nil {
		in.Body = http.NoBody
	}
	defer in.Body.Close()
	in.TLS = new(tls.ConnectionState)
	answer := httptest.NewRecorder()
	p.ServeHTTP(answer, in)
	resp := answer.Result()
	resp.Request = req
	return resp, nil
}
