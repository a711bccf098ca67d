package authtest_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge/authtest"
)

// hmacOf is how a client signs.
func hmacOf(key string, lines ...string) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(mac.Sum(nil))
}

func TestServerSignatures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := oneStep(func(st *authtest.Step) { st.Values = map[string]authtest.Value{"key_id": {Field: "key_id"}} })
		cfg.ClockOffset = time.Hour
		cfg.API = authtest.API{
			Wants:     []authtest.Place{{Header: "X-Key-Id", Value: "key_id"}},
			Signature: &authtest.Signature{Header: "X-Sig", NonceHeader: "X-Nonce"},
		}
		sim := authtest.NewSimulator(cfg)
		r := call(t, sim, "POST", "/user", "")
		key, id := r.field(t, "access_token"), r.field(t, "key_id")
		date := func(offset time.Duration) string {
			return time.Now().Add(time.Hour + offset).UTC().Format(http.TimeFormat)
		}
		now := date(0)
		const other, stale = "the signature isn't that of this request with user-1", "header Date is too far from the server's clock"
		for _, c := range []struct {
			name, method, path, date, nonce, sig string
			status                               int
			reason                               string
		}{
			{"right", "POST", "/api?a=b", now, "1", hmacOf(key, "POST", "/api?a=b", now, "1"), 200, ""},
			{"sent again", "POST", "/api?a=b", now, "1", hmacOf(key, "POST", "/api?a=b", now, "1"), 401, "the nonce in header X-Nonce was used before"},
			{"signed again", "POST", "/api?a=b", now, "2", hmacOf(key, "POST", "/api?a=b", now, "2"), 200, ""},
			{"another method", "PUT", "/api", now, "3", hmacOf(key, "POST", "/api", now, "3"), 401, other},
			{"another path", "POST", "/api/x", now, "3", hmacOf(key, "POST", "/api", now, "3"), 401, other},
			{"another query", "POST", "/api?a=c", now, "3", hmacOf(key, "POST", "/api?a=b", now, "3"), 401, other},
			{"another date", "POST", "/api", date(time.Second), "3", hmacOf(key, "POST", "/api", now, "3"), 401, other},
			{"another nonce", "POST", "/api", now, "4", hmacOf(key, "POST", "/api", now, "3"), 401, other},
			{"another key", "POST", "/api", now, "3", hmacOf(id, "POST", "/api", now, "3"), 401, other},
			{"a refused nonce is still good", "POST", "/api", now, "3", hmacOf(key, "POST", "/api", now, "3"), 200, ""},
			{"old", "POST", "/api", date(-301 * time.Second), "5", hmacOf(key, "POST", "/api", date(-301*time.Second), "5"), 401, stale},
			{"by the client's clock", "POST", "/api", date(-time.Hour), "5", hmacOf(key, "POST", "/api", date(-time.Hour), "5"), 401, stale},
			{"ahead", "POST", "/api", date(301 * time.Second), "5", hmacOf(key, "POST", "/api", date(301*time.Second), "5"), 401, stale},
			{"no date", "POST", "/api", "soon", "5", hmacOf(key, "POST", "/api", "soon", "5"), 401, "header Date isn't a date"},
			{"no signature", "POST", "/api", now, "5", "", 401, "header X-Sig is missing, or there is more than one"},
			{"no nonce", "POST", "/api", now, "", hmacOf(key, "POST", "/api", now, ""), 401, "header X-Nonce is missing, or there is more than one"},
			{"within five minutes", "POST", "/api", date(-300 * time.Second), "5", hmacOf(key, "POST", "/api", date(-300*time.Second), "5"), 200, ""},
		} {
			r := call(t, sim, c.method, c.path, "", "X-Key-Id: "+id, "Date: "+c.date, "X-Nonce: "+c.nonce, "X-Sig: "+c.sig)
			if reason := lastReason(sim); r.status != c.status || reason != c.reason {
				t.Errorf("%s: %d, %q; want %d, %q", c.name, r.status, reason, c.status, c.reason)
			}
			if strings.Contains(r.body+lastReason(sim), key) {
				t.Errorf("%s: the key comes back: %s", c.name, r.body)
			}
		}
		headers := []string{"X-Key-Id: " + id, "Date: " + now, "X-Nonce: 6", "X-Sig: " + hmacOf(key, "GET", "/api", now, "6")}
		call(t, sim, "GET", "/api", "", append(headers, "Authorization: Bearer "+key)...).is(t, 400, "invalid_request")
		call(t, sim, "GET", "/api", "", headers...).is(t, 200, "")
		sim.Revoke("user")
		headers[2], headers[3] = "X-Nonce: 7", "X-Sig: "+hmacOf(key, "GET", "/api", now, "7")
		call(t, sim, "GET", "/api", "", headers...).is(t, 401, "invalid_token")
	})
}

func TestServerSignatureOfOnesOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := oneStep(nil)
		cfg.API.Signature = &authtest.Signature{DateHeader: "X-Date", MaxAge: time.Minute, Sign: func(key string, r *http.Request) string {
			return hmacOf(key, r.Header.Get("X-Date"), r.URL.Path)
		}}
		sim := authtest.NewSimulator(cfg)
		token := call(t, sim, "POST", "/user", "").field(t, "access_token")
		for age, status := range map[time.Duration]int{0: 200, time.Minute: 200, time.Minute + time.Second: 401} {
			date := time.Now().Add(-age).UTC().Format(time.RFC3339)
			headers := []string{"Authorization: Bearer " + token, "X-Date: " + date, "X-Signature: " + hmacOf(token, date, "/api")}
			for range 2 { // without a nonce it may be sent again
				call(t, sim, "GET", "/api?any=thing", "", headers...).is(t, status, "")
			}
			headers[2] = "X-Signature: " + hmacOf(token, date, "/other")
			call(t, sim, "GET", "/api", "", headers...).is(t, 401, "invalid_token")
		}
	})
}
