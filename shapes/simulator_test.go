// The simulator itself: it takes nothing but what its row says.

package shapes_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"

	rf "github.com/requestforge/requestforge"
)

func nothingFetched(context.Context, rf.Input) (*rf.Token, error) { return nil, nil }

// A program that isn't the row's has a problem, whatever it gets wrong.
func TestSimulatorRefusesAnythingElse(t *testing.T) {
	good := func() (*rf.HTTPFetcher, *rf.Config) {
		return &rf.HTTPFetcher{URL: "https://api.pverify.example/Token", Header: headers("Client-API-Id", apiKey), Form: vs{"grant_type": {"client_credentials"}, "Client_Id": {clientID}, "Client_Secret": {secret}}},
			&rf.Config{BaseURL: "https://api.pverify.example/API", Attach: []rf.Place{{Header: "Authorization"}, {Header: "client-api-id", Text: apiKey}}}
	}
	for name, change := range map[string]func(f *rf.HTTPFetcher, c *rf.Config){
		"":                 func(*rf.HTTPFetcher, *rf.Config) {},
		"another URL":      func(f *rf.HTTPFetcher, _ *rf.Config) { f.URL += "s" },
		"another host":     func(f *rf.HTTPFetcher, _ *rf.Config) { f.URL = "https://pverify.example/Token" },
		"another method":   func(f *rf.HTTPFetcher, _ *rf.Config) { f.Method = "PUT" },
		"a query":          func(f *rf.HTTPFetcher, _ *rf.Config) { f.URL += "?a=b" },
		"no header":        func(f *rf.HTTPFetcher, _ *rf.Config) { f.Header = nil },
		"another header":   func(f *rf.HTTPFetcher, _ *rf.Config) { f.Header = headers("Client-Id", apiKey) },
		"a field too few":  func(f *rf.HTTPFetcher, _ *rf.Config) { delete(f.Form, "grant_type") },
		"a field too many": func(f *rf.HTTPFetcher, _ *rf.Config) { f.Form.Set("scope", "all") },
		"a field by another name": func(f *rf.HTTPFetcher, _ *rf.Config) {
			f.Form["client_id"] = f.Form["Client_Id"]
			delete(f.Form, "Client_Id")
		},
		"another value":          func(f *rf.HTTPFetcher, _ *rf.Config) { f.Form.Set("Client_Secret", secret+" ") },
		"a secret escaped twice": func(f *rf.HTTPFetcher, _ *rf.Config) { f.Form.Set("Client_Secret", url.QueryEscape(secret)) },
		"JSON instead of a form": func(f *rf.HTTPFetcher, _ *rf.Config) {
			f.JSON, f.Form = m{"grant_type": "client_credentials", "Client_Id": clientID, "Client_Secret": secret}, nil
		},
		"Basic beside the form":       func(f *rf.HTTPFetcher, _ *rf.Config) { f.ClientAuth = basicClientAuth },
		"the secret in a header, too": func(f *rf.HTTPFetcher, _ *rf.Config) { f.Header.Set("X-Secret", secret) },
		"another base URL":            func(_ *rf.HTTPFetcher, c *rf.Config) { c.BaseURL = "https://api.pverify.example/api" },
		"no key on requests":          func(_ *rf.HTTPFetcher, c *rf.Config) { c.Attach = c.Attach[:1] },
		"no token on requests":        func(_ *rf.HTTPFetcher, c *rf.Config) { c.Attach = c.Attach[1:] },
		"a bare token":                func(_ *rf.HTTPFetcher, c *rf.Config) { c.Attach[0].Bare = true },
		"another scheme":              func(_ *rf.HTTPFetcher, c *rf.Config) { c.Attach[0].Scheme = "Token" },
		"the token in another header": func(_ *rf.HTTPFetcher, c *rf.Config) { c.Attach[0].Header = "X-Token" },
		"the token in the query":      func(_ *rf.HTTPFetcher, c *rf.Config) { c.Attach[0] = rf.Place{Query: "access_token"} },
		"the token in the query, too": func(_ *rf.HTTPFetcher, c *rf.Config) { c.Attach = append(c.Attach, rf.Place{Query: "access_token"}) },
		"the token in a cookie, too":  func(_ *rf.HTTPFetcher, c *rf.Config) { c.Attach = append(c.Attach, rf.Place{Cookie: "token"}) },
		"the key in a cookie, too":    func(_ *rf.HTTPFetcher, c *rf.Config) { c.Attach = append(c.Attach, rf.Place{Cookie: "key", Text: "x"}) },
		"another API key":             func(_ *rf.HTTPFetcher, c *rf.Config) { c.Attach[1].Text += "x" },
		"a query that isn't the program's": func(_ *rf.HTTPFetcher, c *rf.Config) {
			c.Prepare = func(out *http.Request, _ *rf.Token) error { out.URL.RawQuery += "&a=b"; return nil }
		},
		"a body that isn't the program's": func(_ *rf.HTTPFetcher, c *rf.Config) {
			c.Prepare = func(out *http.Request, _ *rf.Token) error {
				if out.Body == nil || out.Body == http.NoBody {
					return nil
				}
				return rewrite(out, func(b []byte) []byte { return append(b, ' ') })
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, c := good()
				change(f, c)
				s := shapeOf(t, "A31", "")
				problems := run(t, s, program{row: "A31", login: []rf.Step{{Name: "login", Fetcher: f}}, api: *c, knows: true})
				if (len(problems) == 0) != (name == "") {
					t.Errorf("problems: %q", problems)
				}
			})
		})
	}
}

// Where a row can't be said, nothing is sent that must not be.
func TestImpossibleShapes(t *testing.T) {
	for _, s := range shapes() {
		if s.impossible == "" {
			continue
		}
		t.Run(s.row, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				problems := run(t, s, programsOf(s)[0])
				if len(problems) == 0 {
					t.Error("it can be said, after all")
				}
				for _, p := range problems {
					if strings.HasPrefix(p, "the simulator: ") && !strings.HasSuffix(p, `header "Authorization": 0 of them`) {
						t.Error(p)
					}
				}
			})
		})
	}
}

func shapeOf(t *testing.T, row, name string) shape {
	for _, s := range shapes() {
		if s.row == row && (name == "" || s.name == name) {
			return s
		}
	}
	t.Fatalf("no row %s", row)
	return shape{}
}
