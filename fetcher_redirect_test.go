package requestforge_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/requestforge/requestforge"
)

// 301, 302 and 303 lead http.Client from a POST with a body to a GET without one. A
// token endpoint refuses that GET, and its 405 would be taken for one of the POST.
func TestRedirectThatDropsTheBodyIsNamedAndNotFollowed(t *testing.T) {
	form := url.Values{"grant_type": {"client_credentials"}}
	signed := func(req *http.Request, _ requestforge.Input) error {
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader("x")), 1
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("x")), nil }
		return nil
	}
	for name, f := range map[string]requestforge.HTTPFetcher{
		"a POST":                {Form: form},
		"JSON":                  {JSON: map[string]string{"password": fetchSecret}},
		"a PUT":                 {Method: "PUT", Form: form},
		"a PATCH":               {Method: "PATCH", Form: form},
		"a client in the body":  {ClientAuth: &requestforge.ClientAuth{ID: "id", Secret: fetchSecret, InBody: true}},
		"a body from Prepare":   {Prepare: signed},
		"a GET with a body":     {Method: "GET", Prepare: signed},
		"a body from functions": {BodyFrom: func(requestforge.Input) (any, error) { return form, nil }},
	} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			t.Run(fmt.Sprintf("%s and %d", name, status), func(t *testing.T) {
				var got []string
				var seen *fetchSeen
				var srv *httptest.Server
				srv, seen = fetchServer(t, func(w http.ResponseWriter, r *http.Request) {
					got = append(got, r.Method)
					if r.URL.Path != "/o/token/" {
						w.Header().Set("Content-Type", "text/html")
						w.Header().Set("Location", "/o/token/")
						w.WriteHeader(status)
						return
					}
					if seen.body == "" {
						w.WriteHeader(http.StatusMethodNotAllowed)
						return
					}
					fetchJSON(fetchStd)(w, r)
				})
				f := f
				f.URL = srv.URL + "/o/token"
				tok, err := f.Fetch(t.Context(), requestforge.Input{})
				if status >= 307 {
					if err != nil || tok.AccessToken != "a" || len(got) != 2 || got[0] != got[1] {
						t.Errorf("got %v, %v by %q", tok, err, got)
					}
					return
				}
				ae := fetchFailed(t, tok, err, "redirect")
				if ae.StatusCode != status || requestforge.Transient(err) || requestforge.Ambiguous(err) || len(got) != 1 {
					t.Errorf("got %v by %q, transient %v", err, got, requestforge.Transient(err))
				}
			})
		}
	}
}

// Without a body nothing gets lost, so redirects are followed as a browser would; but
// a failure says that it is another method's.
func TestRedirectWithoutABodyIsFollowedAndNamed(t *testing.T) {
	for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			t.Run(fmt.Sprintf("%s and %d", method, status), func(t *testing.T) {
				srv, _ := fetchServer(t, func(w http.ResponseWriter, r *http.Request) {
					switch r.URL.Path {
					case "/token":
						fetchJSON(fetchStd)(w, r)
					case "/refused":
						w.WriteHeader(http.StatusMethodNotAllowed)
					default:
						w.Header().Set("Location", r.URL.Query().Get("to"))
						w.WriteHeader(status)
					}
				})
				f := requestforge.HTTPFetcher{Method: method, URL: srv.URL + "/?to=/token"}
				if tok, err := f.Fetch(t.Context(), requestforge.Input{}); err != nil || tok.AccessToken != "a" {
					t.Errorf("got %v, %v", tok, err)
				}
				f.URL = srv.URL + "/?to=/refused"
				tok, err := f.Fetch(t.Context(), requestforge.Input{})
				want := "after a redirect: 405"
				if status <= 303 && method != "GET" {
					want = "after a redirect that made it a GET: 405"
				}
				fetchFailed(t, tok, err, want)

				// NewAuthError says so, too, of what any client has followed.
				req, _ := http.NewRequest(method, f.URL, nil)
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if err := requestforge.NewAuthError(resp, nil, nil); !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q in it", err, want)
				}
			})
		}
	}
}
