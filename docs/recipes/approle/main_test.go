package main

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge/authtest"
)

func Example() {
	main()
	// Output:
	// 200 OK
	// 200 OK
}

// A request every three minutes for a day: the lease of an hour is renewed, and
// every four hours, when it can't be any more, there is another login.
func TestLeaseIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vault := authtest.NewSimulator(simulated)
		client, err := newClient(vault.URL, "made-up-role", "made-up-secret", vault.Transport())
		if err != nil {
			t.Fatal(err)
		}
		for range 24 * 20 {
			resp, err := client.Get("/v1/secret/data/app")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("got %s", resp.Status)
			}
			time.Sleep(3 * time.Minute)
		}
		st := vault.Stats()
		if st.API.Refused != 0 || st.Steps["approle"].Fetches.OK > 7 || st.Steps["approle"].Refreshes.OK < 18 {
			t.Errorf("counted %+v", st)
		}
	})
}
