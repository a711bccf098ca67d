package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/requestforge/requestforge/interop/servers"
)

func TestRegistryChallengeGetsTheScopeAndExpiryAReplay(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestRegistryThatTakesNoTokenIsNoticed(t *testing.T) {
	r, err := servers.StartRegistry(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := tell(t.Context(), io.Discard, r, -time.Minute); err == nil {
		t.Error("every token was refused, and the program found nothing wrong")
	}
}

func TestRealmOfTheRegistrysChoiceGetsNoSecret(t *testing.T) {
	r, err := servers.StartRegistry(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.TokenURL += "/other" // what the program takes for the realm
	var out bytes.Buffer
	err = tell(t.Context(), &out, r, time.Second)
	if err == nil || !strings.Contains(err.Error(), "no challenge with the realm") || strings.Contains(out.String(), "realm ") {
		t.Errorf("got %v\n%s", err, out.String())
	}
}
