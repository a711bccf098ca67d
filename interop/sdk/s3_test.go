// The API of the two SDKs for S3, and what only they are put through: their
// requests have no GetBody, and may be signed.

package sdk_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/requestforge/requestforge"
)

// bucket is an API with the part of S3 that stores an object and gives it back.
// There is one object, whatever its key.
func bucket(s *shelf) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPut:
			object, err := readBody(r)
			if err != nil {
				refuseS3(w, http.StatusBadRequest, "IncompleteBody")
				return
			}
			s.put(string(object))
			w.Header().Set("ETag", `"`+etag(string(object))+`"`)
		case http.MethodGet:
			object := s.get()
			w.Header().Set("ETag", `"`+etag(object)+`"`)
			http.ServeContent(w, r, "", time.Unix(1, 0), bytes.NewReader([]byte(object)))
		default:
			refuseS3(w, http.StatusNotImplemented, "NotImplemented")
		}
	})
}

// etag names an object by its hash. A write's answer has no more than that.
func etag(object string) string {
	sum := md5.Sum([]byte(object))
	return hex.EncodeToString(sum[:])
}

// refuseS3 answers with an error in the form of S3.
func refuseS3(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_ = xml.NewEncoder(w).Encode(struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
	}{Code: code, Message: code})
}

// s3s are the SDKs for S3, with what finds the status of the response that an
// error of theirs is about.
var s3s = []struct {
	*sdk
	status func(error) int
}{
	{awsS3, awsStatus},
	{minIO, minioStatus},
}

// Neither SDK gives its requests a GetBody. So their bodies are replayed from
// what we keep of them, and that has a bound. Beyond it the refusal goes back.
func TestS3BodyIsReplayedUpToTheBound(t *testing.T) {
	tests := []struct {
		name          string
		size          int
		maxReplayBody int64
		replayed      bool
	}{
		{"64 KiB", 64 << 10, 0, true},
		{"a byte more", 64<<10 + 1, 0, false},
		{"a byte more, bound raised", 64<<10 + 1, 1 << 20, true},
		{"one byte, nothing kept", 1, -1, false},
	}
	for _, s := range s3s {
		for _, test := range tests {
			t.Run(s.name+", "+test.name, func(t *testing.T) {
				w := newWorld(t, s.sdk, requestforge.Config{MaxReplayBody: test.maxReplayBody})
				c := w.open(t, "", false)
				ctx := t.Context()
				object := text("object", test.size)

				if _, err := c.write(ctx, object); err != nil {
					t.Fatal(err)
				}
				w.revoke()
				_, err := c.write(ctx, object)
				sends := w.below.sent() - 1
				if test.replayed {
					if err != nil || sends != 2 {
						t.Fatalf("write failed with %v after %d sends, want no error and 2", err, sends)
					}
				} else if s.status(err) != http.StatusUnauthorized || sends != 1 {
					t.Fatalf("write failed with %v after %d sends, want the 401 and 1", err, sends)
				}

				// Replayed or not, the next one has the new token.
				if _, err := c.write(ctx, object); err != nil {
					t.Fatal(err)
				}
				got, err := c.read(ctx)
				if err != nil || got != object {
					t.Errorf("read %s, %v; want %s", brief(got), err, brief(object))
				}
				if got, want := w.below.sent(), 1+sends+2; got != want {
					t.Errorf("%d sends, want %d", got, want)
				}
				w.fetches(t, 1, 2)
				w.closed(t)
			})
		}
	}
}

// A request that the SDK has signed is none of our business: it arrives as it
// was signed, no token is fetched for it, and a refusal goes back at once.
func TestS3SignedRequestPassesThrough(t *testing.T) {
	for _, s := range s3s {
		t.Run(s.name, func(t *testing.T) {
			shop := newSignedBucket(t)
			c := shop.open(t, s.sdk, requestforge.RetryPolicy{})
			ctx := t.Context()
			object := text("object", 100<<10)
			if _, err := c.write(ctx, object); err != nil {
				t.Fatal(err)
			}
			got, err := c.read(ctx)
			if err != nil || got != object {
				t.Fatalf("read %s, %v; want %s", brief(got), err, brief(object))
			}
			shop.sends(t, http.MethodPut, 1)
			shop.sends(t, http.MethodGet, 1)

			shop.refuse(http.StatusUnauthorized, "InvalidAccessKeyId")
			if _, err := c.write(ctx, "another"); s.status(err) != http.StatusUnauthorized {
				t.Errorf("write failed with %v, want the 401", err)
			}
			shop.sends(t, http.MethodPut, 2)
		})
	}
}

// A signed request is retried by our layer, if the SDK's own retries are off,
// and its signature is still good.
func TestS3SignedRequestIsRetriedAsItIs(t *testing.T) {
	for _, s := range s3s {
		t.Run(s.name, func(t *testing.T) {
			shop := newSignedBucket(t)
			c := shop.open(t, s.sdk, requestforge.ExponentialBackoff(2, time.Microsecond, time.Millisecond))
			ctx := t.Context()
			shop.refuse(http.StatusServiceUnavailable, "ServiceUnavailable")
			if _, err := c.write(ctx, text("object", s.body)); s.status(err) != http.StatusServiceUnavailable {
				t.Errorf("write failed with %v, want the 503", err)
			}
			shop.sends(t, http.MethodPut, 3)
			if _, err := c.read(ctx); s.status(err) != http.StatusServiceUnavailable {
				t.Errorf("read failed with %v, want the 503", err)
			}
			shop.sends(t, http.MethodGet, 3)
		})
	}
}

// signedBucket is a bucket of its own that takes signed requests only. It
// verifies each of them, those too that it refuses for another reason.
type signedBucket struct {
	*httptest.Server
	next http.Handler

	mu     sync.Mutex
	counts map[string]int // by method
	status int            // refuse all with it; 0: don't
	code   string
}

func newSignedBucket(t *testing.T) *signedBucket {
	b := &signedBucket{next: bucket(new(shelf)), counts: make(map[string]int)}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		b.counts[r.Method]++
		status, code := b.status, b.code
		b.mu.Unlock()
		if err := verifySigV4(r); err != nil {
			t.Errorf("%s: %v", r.Method, err)
			status, code = http.StatusForbidden, "SignatureDoesNotMatch"
		}
		if status != 0 {
			refuseS3(w, status, code)
			return
		}
		b.next.ServeHTTP(w, r)
	}))
	t.Cleanup(b.Close)
	return b
}

// open makes a client that signs, over a transport that may send a token here
// and has no reason to.
func (b *signedBucket) open(t *testing.T, s *sdk, retry requestforge.RetryPolicy) client {
	transport, err := requestforge.NewTransport(requestforge.Config{
		Base:    b.Client().Transport,
		Source:  unasked{t},
		Origins: []string{b.URL},
		Retry:   retry,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s.open(t, conn{url: b.URL, http: &http.Client{Transport: transport}, credential: credential})
}

func (b *signedBucket) refuse(status int, code string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status, b.code = status, code
}

func (b *signedBucket) sends(t *testing.T, method string, want int) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if got := b.counts[method]; got != want {
		t.Errorf("%s was sent %d times, want %d", method, got, want)
	}
}

// unasked is a TokenSource that nobody may ask.
type unasked struct{ t *testing.T }

func (u unasked) Token(context.Context) (*requestforge.Token, error) {
	u.t.Error("a token was asked for")
	return nil, errors.New("unasked")
}

func (u unasked) Invalidate(context.Context, *requestforge.Token) error {
	u.t.Error("a token was invalidated")
	return nil
}

// roundTrip is a function as an http.RoundTripper.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
