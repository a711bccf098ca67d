package requestforge_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/requestforge/requestforge"
)

// Whatever a server answers: no panic, no half token, and nothing of the
// answer in what is printed.
func FuzzTokenResponse(f *testing.F) {
	for _, tt := range fetchFailures {
		if len(tt.body) < 1<<10 {
			f.Add(tt.status, tt.header.Get("Content-Type"), tt.header.Get("Location"), tt.body)
		}
	}
	f.Add(200, "application/json", "", fetchStd)
	f.Add(200, "application/json", "", `{"access_token":"`+fetchSecret+`","token_type":"`+fetchSecret+`","refresh_token":"r","expires_in":3600}`)
	f.Add(200, "text/plain", "", `{"access_token":"`+fetchSecret+`","expires_at":"2199-01-01T00:00:00Z","x":[{"`+fetchSecret+`":1e999}]}`)
	f.Add(302, "", "https://user:"+fetchSecret+"@h/%zz", "")
	f.Add(302, "", "/"+fetchSecret, "")
	f.Add(307, "", "//user:"+fetchSecret+"@other.example/"+fetchSecret+"?key="+fetchSecret, "")
	f.Fuzz(func(t *testing.T, status int, contentType, location, body string) {
		if status < 200 || status > 599 {
			t.Skip()
		}
		if u, err := url.Parse(location); err == nil && strings.Contains(u.Host, fetchSecret) {
			t.Skip() // the origin of a redirect that isn't followed is told
		}
		header := http.Header{"Content-Type": {contentType}}
		if location != "" {
			header.Set("Location", location)
		}
		header.Set("X-Token", contentType)
		header.Set("Set-Cookie", "sid="+contentType)
		for _, f := range []requestforge.HTTPFetcher{{}, {TokenField: "."}, {TokenHeader: "X-Token"}, {TokenCookie: "sid", KeepHeaders: []string{"Location"}}} {
			f.URL, f.Client = "https://auth.example/token", fetchAnswer(status, header, body)
			tok, err := f.Fetch(t.Context(), requestforge.Input{})
			if (tok == nil) == (err == nil) {
				t.Fatalf("%v: got %v and %v", f, tok, err)
			}
			text := fmt.Sprintf("%v %+v %#v %v", tok, tok, tok, err)
			if strings.Contains(text, fetchSecret) {
				t.Errorf("%v: got %s", f, text)
			}
			if err != nil {
				continue
			}
			if err := requestforge.Validate(tok); err != nil {
				t.Errorf("%v: %v", f, err)
			}
			if left := time.Until(tok.Expiry); !tok.Expiry.IsZero() && (left < -time.Minute || left > 101*365*24*time.Hour) {
				t.Errorf("%v: an expiry of %v", f, tok.Expiry)
			}
		}
	})
}
