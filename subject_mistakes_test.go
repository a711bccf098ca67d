// The mistakes that others have published who keep tokens for many users, each made on
// purpose in the way that the documentation allows: the package as documented doesn't have it.

package requestforge_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// claims are what a program's middleware has verified of a request.
type claims struct{ issuer, tenant, user, session string }

type claimsKey struct{}

func claimed(ctx context.Context, c claims) context.Context {
	return context.WithValue(ctx, claimsKey{}, c)
}

// identity is the Subject func that the documentation shows.
func identity(ctx context.Context) (string, error) {
	c, _ := ctx.Value(claimsKey{}).(claims)
	return rf.SubjectID(c.issuer, c.tenant, c.user), nil
}

// documented is a pipeline as the documentation has it, whose tokens say for which ID they
// were made.
func documented(t *testing.T) (*office, *rf.Pipeline) {
	o := &office{}
	cfg := o.chain()
	cfg.Subject = identity
	return o, pipeline(t, cfg)
}

// Key by session: a user with two sessions logged in twice, and whoever came to reuse a
// session's ID had the tokens of who was there before.
func TestMistakeKeyBySession(t *testing.T) {
	o, p := documented(t)
	phone := claimed(t.Context(), claims{"https://i", "t", "ann", "session-1"})
	laptop := claimed(t.Context(), claims{"https://i", "t", "ann", "session-2"})
	reused := claimed(t.Context(), claims{"https://i", "t", "bob", "session-1"})
	ann := tokenAs(t, p, phone)
	require.Equal(t, ann, tokenAs(t, p, laptop))
	require.NotEqual(t, ann, tokenAs(t, p, reused))
	require.Equal(t, 1, o.fetches("user "+rf.SubjectID("https://i", "t", "ann")))
	require.EqualValues(t, 2, p.Stats().Subjects)
}

// A missing issuer: two issuers, or tenants, have a user 17 each.
func TestMistakeMissingIssuer(t *testing.T) {
	_, p := documented(t)
	seen := map[string]claims{}
	for _, c := range []claims{{"https://i", "t", "17", ""}, {"https://j", "t", "17", ""}, {"https://i", "u", "17", ""}, {"", "t", "17", ""}, {"https://i", "", "17", ""}, {"https://it", "", "17", ""}} {
		tok := tokenAs(t, p, claimed(t.Context(), c))
		require.NotContains(t, seen, tok)
		seen[tok] = c
	}
}

// An empty user: a claim that was missing made one user of all who lacked it.
func TestMistakeEmptyUser(t *testing.T) {
	o, p := documented(t)
	for _, c := range []claims{{}, {"https://i", "t", "", ""}, {"https://i", "", "", "session"}} {
		ctx := claimed(t.Context(), c)
		for _, call := range []func() error{
			func() error { _, err := p.Token(ctx); return err },
			func() error { _, err := p.Source("user").Token(ctx); return err },
			func() error { return p.Forget(ctx) },
		} {
			require.ErrorContains(t, call(), "no subject")
		}
	}
	require.Zero(t, o.fetches("app"))
	require.Zero(t, p.Stats().Subjects)
}

// The leader's context for all: whoever came first fetched the shared token with its own
// identity in the context, and all who waited got that; or got the leader's cancellation.
func TestMistakeLeadersContextForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		cfg := o.chain()
		for i := range cfg.Steps {
			f := cfg.Steps[i].Fetcher
			cfg.Steps[i].Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
					return nil, ctx.Err()
				}
				if who, _ := ctx.Value(userKey{}).(string); who != in.Subject {
					return nil, fmt.Errorf("the fetch for %q has the context of %q", in.Subject, who)
				}
				return f.Fetch(ctx, in)
			})
		}
		p := pipeline(t, cfg)
		leader, leave := context.WithCancel(as(t.Context(), "leader"))
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := p.Token(leader); !errors.Is(err, context.Canceled) {
				t.Errorf("the leader has left: %v", err)
			}
		})
		synctest.Wait()
		for i := range 100 {
			wg.Go(func() {
				// Two at once for each user: one leads, one waits.
				who := fmt.Sprint(i / 2)
				tok, err := p.Token(as(t.Context(), who))
				if err != nil || tok.AccessToken != "backend "+who+"-1<user "+who+"-1<app-1" {
					t.Errorf("%s: %v, %v", who, tok, err)
				}
			})
		}
		time.Sleep(500 * time.Millisecond)
		leave()
		wg.Wait()
		require.Equal(t, 1, o.fetches("app"))
	})
}

// Strings joined by hand: "a|b" of "c" and "a" of "b|c" were one user.
func TestMistakeJoinedStrings(t *testing.T) {
	_, p := documented(t)
	seen := map[string][2]string{}
	for _, sep := range []string{"|", "-", ":", "/", "%00", "", "1:", ".", " "} {
		for _, pair := range [][2]string{{"a" + sep + "b", "c"}, {"a", "b" + sep + "c"}} {
			tok := tokenAs(t, p, claimed(t.Context(), claims{pair[0], "", pair[1], ""}))
			require.NotContains(t, seen, tok, "%q", pair)
			seen[tok] = pair
		}
	}
}

// One user's session at the auth server for all: a cookie that came with one subject's token
// goes out with that subject's alone.
func TestMistakeOneCookieForAll(t *testing.T) {
	var o office
	cfg := o.chain()
	cfg.Steps[1].Fetcher = &rf.HTTPFetcher{
		URL:      "https://auth.example.com/login",
		Method:   "POST",
		Cookies:  true,
		BodyFrom: func(in rf.Input) (any, error) { return map[string]any{"user": in.Subject}, nil },
		Client: &http.Client{Transport: fetchRT(func(r *http.Request) (*http.Response, error) {
			var login struct{ User string }
			if err := json.NewDecoder(r.Body).Decode(&login); err != nil {
				return nil, err
			}
			who := login.User
			if len(r.Cookies()) > 0 {
				return nil, fmt.Errorf("%s logs in with the cookie %v", who, r.Cookies())
			}
			return &http.Response{StatusCode: 200, Header: http.Header{"Set-Cookie": {"session=of-" + who + "; Path=/"}, "Content-Type": {"application/json"}},
				Body: io.NopCloser(strings.NewReader(`{"access_token":"user of ` + who + `"}`)), Request: r}, nil
		})},
	}
	p := pipeline(t, cfg)
	for range 2 {
		for _, who := range []string{"ann", "bob", "eve"} {
			layer := &rf.AuthTransport{Source: p.Source("user"), Origins: []string{"https://auth.example.com"}, Base: fetchRT(func(r *http.Request) (*http.Response, error) {
				require.Equal(t, "session=of-"+who, r.Header.Get("Cookie"))
				return &http.Response{StatusCode: 200, Body: http.NoBody, Header: http.Header{}, Request: r}, nil
			})}
			req, err := http.NewRequestWithContext(as(t.Context(), who), "GET", "https://auth.example.com/", nil)
			require.NoError(t, err)
			_, err = layer.RoundTrip(req)
			require.NoError(t, err)
		}
	}
}

// hostile returns n IDs that differ, made to be taken for one another, for keys of the
// package's own, or for something to be parsed.
func hostile(n int) []string {
	rnd := rand.New(rand.NewPCG(15, 15))
	var ids []string
	seen := map[string]bool{"": true}
	add := func(id string) {
		if !seen[id] && !strings.HasSuffix(id, "0:") && len(ids) < n {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	key := func(id string) string { return rf.SubjectKey(id)[1:] }
	long := strings.Repeat("x", 1<<16)
	for _, id := range []string{long, long + "x", long[1:], "\x00" + long, long + "\x00", strings.Repeat("x", 127), strings.Repeat("x", 128), strings.Repeat("x", 129)} {
		add(id)
		// What stands for a long ID in memory, and in keys, as an ID of its own.
		add(rf.SubjectName(id))
		add(rf.SubjectName(id)[:64])
		add(rf.SubjectName(rf.SubjectName(id)))
		add(key(id))
		sum := sha256.Sum256([]byte(id))
		add(string(sum[:]))
		add(string(sum[:20]))
	}
	for i := 0; len(ids) < n; i++ {
		base := ids[rnd.IntN(len(ids))]
		if len(base) > 200 {
			base = base[:rnd.IntN(200)]
		}
		raw := make([]byte, rnd.IntN(200)+1)
		for j := range raw {
			raw[j] = byte(rnd.UintN(256))
		}
		for _, id := range []string{
			string(raw), fmt.Sprint(i), fmt.Sprintf("%d ", i), fmt.Sprintf("0%d", i),
			"x:backend/" + key(base), "x:user@" + base, "x/" + key(base), "requestforge:user/" + base64.RawURLEncoding.EncodeToString(raw),
			key(base), "/" + key(base), fmt.Sprintf("requestforge subject %d:%s", len(base), base),
			base + "\x00", "\x00" + base, base + base, strings.ToUpper(base), strings.ToLower(base), strings.ToValidUTF8(base, "\ufffd"),
			rf.SubjectID(base), rf.SubjectID(base, "x"), rf.SubjectID("", base+"x"), rf.SubjectName(base),
			"../" + base, base + "\r\nSET x y", base + "*", base + "{x}", "e\u0301" + fmt.Sprint(i), "\u00e9" + fmt.Sprint(i),
		} {
			add(id)
		}
	}
	return ids
}
