package requestforge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// This file alone is in the package itself: what the layers tell each other
// has no name outside.

// tallyBase notes the attempts that the context tells of at each send, -1 if
// it tells of none, and whether an exchange came along.
type tallyBase struct{ seen []int32 }

func (b *tallyBase) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		io.Copy(io.Discard, req.Body)
		req.Body.Close()
	}
	n := int32(-1)
	if t := sendCountFrom(req.Context()); t != nil {
		n = t.attempts()
		t.replays.Add(1)
	}
	b.seen = append(b.seen, n)
	return nil, errors.New("down")
}

// tallyLayer is a layer of ours above a tallyBase.
type tallyLayer struct {
	tallyBase
	exchanges []*exchange
}

func (l *tallyLayer) roundTrip(x *exchange, req *http.Request) (*http.Response, error) {
	l.exchanges = append(l.exchanges, x)
	below := nextOf(&l.tallyBase)
	x.replayed(&below)
	return below.forward(x, req)
}

func TestRetryTellsForeignBasesOfLaterAttemptsOnly(t *testing.T) {
	policy := ExponentialBackoff(2, 1, 1)
	request := func(ctx context.Context, body io.Reader) *http.Request {
		req, err := http.NewRequestWithContext(ctx, "PUT", "http://api.test/", body)
		if err != nil {
			t.Fatal(err)
		}
		return req
	}

	for _, body := range []io.Reader{nil, strings.NewReader("GetBody"), io.NopCloser(strings.NewReader("plain"))} {
		base := new(tallyBase)
		(&RetryTransport{Base: base, Policy: policy}).RoundTrip(request(t.Context(), body))
		if got := fmt.Sprint(base.seen); got != "[-1 2 3]" {
			t.Errorf("%T: a foreign base saw attempts %s, want [-1 2 3]", body, got)
		}

		// With a sendCount from above the sends are counted there.
		above := new(sendCount)
		base = new(tallyBase)
		(&RetryTransport{Base: base, Policy: policy}).RoundTrip(request(withSendCount(t.Context(), above), body))
		if got := above.attempts(); got != 3 {
			t.Errorf("%T: %d attempts counted in the sendCount from above, want 3", body, got)
		}
		if got := above.replays.Load(); got != 3 {
			t.Errorf("%T: %d replays counted in the sendCount from above, want 3", body, got)
		}
	}
}

func TestRetryGivesLayersBelowOneExchange(t *testing.T) {
	policy := ExponentialBackoff(2, 1, 1)
	for name, own := range map[string]bool{"its own": true, "from above": false} {
		base := new(tallyLayer)
		above := new(sendCount)
		req, err := http.NewRequestWithContext(withSendCount(t.Context(), above), "PUT", "http://api.test/", io.NopCloser(strings.NewReader("plain")))
		if err != nil {
			t.Fatal(err)
		}
		var x *exchange
		if !own {
			x = newExchange(req)
		}
		(&RetryTransport{Base: base, Policy: policy}).roundTrip(x, req)
		if len(base.exchanges) != 3 || base.exchanges[0] == nil || base.exchanges[0] != base.exchanges[1] || base.exchanges[0] != base.exchanges[2] {
			t.Fatalf("%s: exchanges %v, want the same three times", name, base.exchanges)
		}
		got := base.exchanges[0]
		if x != nil && got != x {
			t.Errorf("%s: another exchange went down", name)
		}
		if n := got.attempts(); n != 3 {
			t.Errorf("%s: %d attempts counted, want 3", name, n)
		}
		if x == nil {
			if a, r := above.attempts(), above.replays.Load(); a != 3 || r != 6 {
				t.Errorf("%d attempts and %d replays counted above, want 3 and 6", a, r)
			}
			if _, ok := got.body().Again(); ok {
				t.Error("the body was not finished by the layer that made the exchange")
			}
		} else {
			if _, ok := got.body().Again(); !ok {
				t.Error("the body was finished by a layer that didn't make the exchange")
			}
		}
	}
}
