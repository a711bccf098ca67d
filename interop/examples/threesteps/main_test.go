package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/requestforge/requestforge/interop/servers"
)

func TestThreeStepsOnTwoServersBlameTheTokenThatWasRevoked(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestThreeStepsNoticeIfNothingWasRevoked(t *testing.T) {
	op, err := servers.Start(t.Context(), "oidc-provider")
	if err != nil {
		t.Fatal(err)
	}
	defer op.Close()
	r, err := servers.StartRegistry(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	idle := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer idle.Close()
	op.RevokeURL = idle.URL
	if err := tell(t.Context(), io.Discard, op, r); err == nil {
		t.Error("no token was revoked, and the program found nothing wrong")
	}
}
