package servers_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/requestforge/requestforge/interop/servers"
)

func TestFlowsNameKnownServersAndHaveAFolder(t *testing.T) {
	names := servers.Names()
	for _, f := range servers.Flows {
		for _, name := range f.Servers {
			if !slices.Contains(names, name) {
				t.Errorf("%s is run on %q, which is none of %q", f.Name, name, names)
			}
		}
		if !slices.IsSorted(f.Servers) || len(slices.Compact(slices.Clone(f.Servers))) != len(f.Servers) {
			t.Errorf("%s: %q isn't sorted, or has one twice", f.Name, f.Servers)
		}
		if _, err := os.Stat(filepath.Join("..", "examples", f.Example, "main.go")); err != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
	}
}

func TestEveryServerIsInAFlow(t *testing.T) {
	for _, name := range servers.Names() {
		if !slices.ContainsFunc(servers.Flows, func(f servers.Flow) bool { return slices.Contains(f.Servers, name) }) {
			t.Errorf("nothing is run on %q", name)
		}
	}
}

func TestUnknownServerIsAnError(t *testing.T) {
	if s, err := servers.Start(t.Context(), "keycloak"); err == nil || s != nil {
		t.Errorf("got %v, %v", s, err)
	}
}

func TestResourceRefusesWhatIsNoToken(t *testing.T) {
	for _, name := range servers.Names() {
		t.Run(name, func(t *testing.T) {
			s, err := servers.Start(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for _, authorization := range []string{"", "Bearer garbage"} {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.ResourceURL, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Authorization", authorization)
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				refused := resp.StatusCode == http.StatusUnauthorized
				if s.Refused != nil {
					refused = s.Refused(resp)
				}
				if !refused {
					t.Errorf("%q: got %s", authorization, resp.Status)
				}
			}
		})
	}
}
