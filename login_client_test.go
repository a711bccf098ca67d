package requestforge_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/requestforge/requestforge"
)

// loginNet stands in for http.DefaultTransport and answers each URL with a
// redirect to the Location that it has for the URL, or else with 200. It notes
// which requests arrive.
type loginNet struct {
	location map[string]string
	status   int // of a redirect
	err      map[string]error
	seen     []string
	bodies   *bodies
}

func newLoginNet(t *testing.T) *loginNet {
	n := &loginNet{status: http.StatusTemporaryRedirect, location: map[string]string{}, err: map[string]error{}, bodies: new(bodies)}
	old := http.DefaultTransport
	t.Cleanup(func() { http.DefaultTransport = old })
	http.DefaultTransport = n
	return n
}

func (n *loginNet) RoundTrip(req *http.Request) (*http.Response, error) {
	at := req.URL.String()
	n.seen = append(n.seen, at)
	if req.Body != nil {
		io.Copy(io.Discard, req.Body)
		req.Body.Close()
	}
	if err := n.err[at]; err != nil {
		return nil, err
	}
	resp := &http.Response{StatusCode: 200, Header: make(http.Header), Request: req, Body: n.bodies.open(strings.NewReader("answer"), at)}
	if to, ok := n.location[at]; ok {
		resp.StatusCode = n.status
		resp.Header.Set("Location", to)
	}
	return resp, nil
}

func TestLoginClientSendsNothingOutsideItsOrigins(t *testing.T) {
	one := []string{"https://login.example.com"}
	for name, tt := range map[string]struct {
		origins []string
		url     string
		host    string // Request.Host
		want    string // in the error; "": the request is sent
	}{
		"the origin":                  {one, "https://login.example.com/a?b=c", "", ""},
		"in capitals":                 {one, "HTTPS://Login.EXAMPLE.com/", "", ""},
		"the usual port":              {one, "https://login.example.com:443/", "", ""},
		"another port":                {one, "https://login.example.com:8443/", "", "https://login.example.com:8443: not sent"},
		"a port of its own":           {[]string{"https://login.example.com:8443"}, "https://login.example.com:8443/", "", ""},
		"another host":                {one, "https://s3cr3t@other.example.com/s3cr3t?s3cr3t", "", "https://other.example.com: not sent"},
		"another Host header":         {one, "https://login.example.com/", "other.example.com", "not sent"},
		"the same Host header":        {one, "https://login.example.com/", "LOGIN.example.com", ""},
		"http for https":              {one, "http://login.example.com/", "", "not sent"},
		"one of two":                  {[]string{"https://a.example.com", "https://b.example.com"}, "https://b.example.com/", "", ""},
		"a subdomain":                 {[]string{"https://*.example.com"}, "https://a.b.example.com/", "", ""},
		"the domain of a wildcard":    {[]string{"https://*.example.com"}, "https://example.com/", "", "not sent"},
		"a look-alike of a wildcard":  {[]string{"https://*.example.com"}, "https://badexample.com/", "", "not sent"},
		"punycode":                    {[]string{"https://xn--bcher-kva.example"}, "https://xn--bcher-kva.example/", "", ""},
		"Unicode for punycode":        {[]string{"https://xn--bcher-kva.example"}, "https://bücher.example/", "", "not sent"},
		"plain http to this machine":  {[]string{"http://127.0.0.1:8080", "http://localhost"}, "http://localhost/", "", ""},
		"plain http to another":       {[]string{"http://login.example.com"}, "http://login.example.com/", "", "plain http to another machine"},
		"another scheme":              {one, "ftp://login.example.com/", "", "not sent"},
		"no origins":                  {nil, "https://login.example.com/", "", "no origin is named"},
		"any origin":                  {[]string{requestforge.AnyOrigin}, "https://login.example.com/", "", `"*" would let`},
		"a mistake among them":        {[]string{one[0], "login.example.com"}, "https://login.example.com/", "", `"login.example.com"`},
		"a Unicode name among them":   {[]string{"https://bücher.example"}, "https://xn--bcher-kva.example/", "", "bücher.example"},
		"a wildcard for all":          {[]string{"https://*.com"}, "https://login.com/", "", `"https://*.com"`},
		"a user in an origin":         {[]string{"https://user:s3cr3t@login.example.com"}, "https://login.example.com/", "", "origin"},
		"a dot at the end, not meant": {one, "https://login.example.com./", "", "not sent"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newLoginNet(t)
			sent := new(bodies)
			req, err := http.NewRequest("POST", tt.url, sent.open(strings.NewReader("password=s3cr3t"), "the request"))
			if err != nil {
				t.Fatal(err)
			}
			req.Host = tt.host
			resp, err := requestforge.LoginClient(tt.origins...).Do(req)
			if tt.want == "" {
				if err != nil || len(n.seen) != 1 {
					t.Fatalf("got %v, sent %q", err, n.seen)
				}
				resp.Body.Close()
			} else {
				var ue *url.Error
				if !errors.As(err, &ue) || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(ue.Err.Error(), "requestforge: LoginClient: ") {
					t.Errorf("got %v, want an error with %q", err, tt.want)
				} else if text := ue.Err.Error(); strings.Contains(text, "s3cr3t") {
					t.Errorf("the error shows a secret: %s", text)
				}
				if v, ok := errors.AsType[loginVerdict](err); !ok {
					t.Errorf("%v doesn't say that a new try can't help", err)
				} else if again, _ := v.RetryVerdict(); again {
					t.Errorf("%v says that a new try may help", err)
				}
				if len(n.seen) != 0 {
					t.Errorf("%q was sent all the same", n.seen)
				}
			}
			if wrong := append(sent.wrong(), n.bodies.wrong()...); wrong != nil {
				t.Error(wrong)
			}
		})
	}
}

func TestLoginClientFollowsRedirectsWithinItsOriginsOnly(t *testing.T) {
	const start = "https://login.example.com/start"
	for name, tt := range map[string]struct {
		to   string
		want string // in the error; "": the redirect is followed
	}{
		"relative":               {"/next", ""},
		"the same origin":        {"https://login.example.com/next", ""},
		"another of the origins": {"https://sso.example.net/next", ""},
		"a subdomain":            {"https://a.users.example.com/next", ""},
		"this machine":           {"http://127.0.0.1:8080/next", ""},
		"elsewhere":              {"https://s3cr3t.example.org/s3cr3t?s3cr3t", "redirect to another origin not followed"},
		"with a user":            {"https://login.example.com@example.org/s3cr3t", "redirect to another origin not followed"},
		"plain http":             {"http://login.example.com/s3cr3t", "redirect to another origin not followed"},
		"plain http, an origin":  {"http://plain.example.com/s3cr3t", "plain http on another machine"},
		"another port":           {"https://login.example.com:444/s3cr3t", "redirect to another origin not followed"},
		"another program":        {"myapp://callback?code=s3cr3t", "redirect to another origin not followed"},
		"no URL":                 {"https://%zz/s3cr3t", "doesn't parse"},
		"in a circle":            {start, "stopped after 10 redirects"},
	} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			t.Run(fmt.Sprint(name, " ", status), func(t *testing.T) {
				n := newLoginNet(t)
				n.status, n.location[start] = status, tt.to
				client := requestforge.LoginClient("https://login.example.com", "https://sso.example.net", "https://*.users.example.com",
					"http://127.0.0.1:8080", "http://plain.example.com")
				resp, err := client.Post(start, "text/plain", strings.NewReader("password"))
				if tt.want == "" {
					if err != nil || len(n.seen) != 2 || resp.StatusCode != 200 {
						t.Fatalf("got %v, sent %q", err, n.seen)
					}
					resp.Body.Close()
				} else {
					if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "s3cr3t") || !strings.Contains(err.Error(), fmt.Sprint(status)) {
						t.Errorf("got %v, want an error with %q and the status", err, tt.want)
					}
					want := 1
					if tt.to == start {
						want = 10
					}
					if len(n.seen) != want {
						t.Errorf("%d requests were sent, want %d: %q", len(n.seen), want, n.seen)
					}
				}
				if wrong := n.bodies.wrong(); wrong != nil {
					t.Error(wrong)
				}
			})
		}
	}
}

// With a CheckRedirect of the program's own, the program may read Location, but
// not make the client go there.
func TestLoginClientLeavesRedirectsToCheckRedirect(t *testing.T) {
	const start, code = "https://login.example.com/start", "https://app.example.org/callback?code=1"
	n := newLoginNet(t)
	n.location[start] = code
	client := requestforge.LoginClient("https://login.example.com")
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Get(start)
	if err != nil || resp.Header.Get("Location") != code {
		t.Fatalf("got %v, %v, want the redirect", resp, err)
	}
	resp.Body.Close()

	client.CheckRedirect = func(*http.Request, []*http.Request) error { return nil }
	if _, err := client.Get(start); err == nil || !strings.Contains(err.Error(), "after a redirect: not sent") {
		t.Errorf("got %v, want the redirect refused", err)
	}
	if len(n.seen) != 2 {
		t.Errorf("sent %q", n.seen)
	}
}

func TestLoginClientKeepsCookiesForOneLogin(t *testing.T) {
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	defer srv.Close()
	mux.HandleFunc("GET /page", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "1"})
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		if c, err := r.Cookie("session"); err != nil || c.Value != "1" {
			w.WriteHeader(http.StatusForbidden)
		}
	})
	login := func(client *http.Client) int {
		resp, err := client.Post(srv.URL+"/login", "text/plain", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	client, other := requestforge.LoginClient(srv.URL), requestforge.LoginClient(srv.URL)
	resp, err := client.Get(srv.URL + "/page")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := login(client); got != 200 {
		t.Errorf("the second step got %d: the session is lost", got)
	}
	if got := login(other); got != 403 {
		t.Errorf("another login got %d: it shares the cookies", got)
	}
}

func TestLoginClientTakesNoCookieForATopLevelDomain(t *testing.T) {
	client := requestforge.LoginClient("https://a.example.com", "https://b.example.com")
	client.Jar.SetCookies(&url.URL{Scheme: "https", Host: "a.example.com"}, []*http.Cookie{
		{Name: "all", Value: "1", Domain: "com"}, {Name: "shared", Value: "1", Domain: "example.com"}, {Name: "own", Value: "1"},
	})
	var got []string
	for _, c := range client.Jar.Cookies(&url.URL{Scheme: "https", Host: "b.example.com"}) {
		got = append(got, c.Name)
	}
	if fmt.Sprint(got) != "[shared]" {
		t.Errorf("another host gets %q, want the cookie of the shared domain", got)
	}
	// Domains below which strangers register names are no better (publicsuffix.org).
	client.Jar.SetCookies(&url.URL{Scheme: "https", Host: "a.co.uk"}, []*http.Cookie{{Name: "all", Value: "1", Domain: "co.uk"}})
	if got := client.Jar.Cookies(&url.URL{Scheme: "https", Host: "b.co.uk"}); len(got) > 0 {
		t.Errorf("b.co.uk gets %v", got)
	}
}

func TestLoginClientReachesTheDefaultTransportOfTheMoment(t *testing.T) {
	client := requestforge.LoginClient("https://login.example.com")
	n := newLoginNet(t)
	closed := 0
	http.DefaultTransport = &struct {
		*loginNet
		loginIdle
	}{n, func() { closed++ }}
	resp, err := client.Get("https://login.example.com/")
	if err != nil || len(n.seen) != 1 {
		t.Fatalf("got %v, sent %q", err, n.seen)
	}
	resp.Body.Close()
	client.CloseIdleConnections()
	if closed != 1 {
		t.Errorf("CloseIdleConnections reached the transport %d times, want 1", closed)
	}
	if below := client.Transport.(interface{ Unwrap() http.RoundTripper }).Unwrap(); below != http.DefaultTransport {
		t.Errorf("Unwrap: got %T", below)
	}
}

type loginVerdict interface {
	error
	RetryVerdict() (retry bool, after time.Duration)
}

type loginIdle func()

func (f loginIdle) CloseIdleConnections() { f() }
