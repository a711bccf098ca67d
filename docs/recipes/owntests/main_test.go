package main

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

func Example() {
	main()
	// Output: 7 orders
}

// Nobody notices that tokens expire and are revoked.
func TestOrdersForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := authtest.NewSimulator(simulated)
		shop, err := NewShop(sim.URL, "made-up", sim.Transport())
		if err != nil {
			t.Fatal(err)
		}
		orders := func() {
			t.Helper()
			if n, err := shop.Orders(t.Context()); n != 7 || err != nil {
				t.Errorf("%d orders, %v", n, err)
			}
		}
		for range 24 {
			orders()
			time.Sleep(time.Hour) // in a bubble it takes no time
		}
		orders()
		sim.Revoke("user")
		orders() // is refused, and replayed

		st := sim.Stats()
		if got, want := st.Steps["user"].Fetches.OK, 26; got != want {
			t.Errorf("%d logins, want %d", got, want)
		}
		if got, want := st.API, (authtest.Count{Attempted: 27, OK: 26, Refused: 1}); got != want {
			t.Errorf("the API counted %+v, want %+v: %v", got, want, sim.Log())
		}
	})
}

// A wrong password is sent once, and the error says which step it was.
func TestWrongPassword(t *testing.T) {
	sim := authtest.NewSimulator(simulated)
	shop, err := NewShop(sim.URL, "wrong", sim.Transport())
	if err != nil {
		t.Fatal(err)
	}
	_, err = shop.Orders(t.Context())
	var authErr *requestforge.AuthError
	if !errors.As(err, &authErr) || authErr.Step != "user" {
		t.Errorf("got %v", err)
	}
	if got, want := sim.Stats().Steps["user"].Fetches, (authtest.Count{Attempted: 1, Refused: 1}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

// The auth server is down for a while; a token that lives is good all the same.
func TestAuthServerDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := authtest.NewSimulator(simulated)
		shop, err := NewShop(sim.URL, "made-up", sim.Transport())
		if err != nil {
			t.Fatal(err)
		}
		shop.Orders(t.Context())
		sim.Down(true)
		if _, err := shop.Orders(t.Context()); err != nil {
			t.Errorf("with a live token: %v", err)
		}
		time.Sleep(time.Hour)
		if _, err := shop.Orders(t.Context()); err == nil {
			t.Error("no error without a token")
		}
		sim.Down(false)
		time.Sleep(time.Minute) // the cool-down
		if _, err := shop.Orders(t.Context()); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}
