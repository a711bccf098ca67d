package main

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestAppRoleLogsInAgainIfTheTokenIsInvalidAndNotForAPolicy(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestInvalidTokenIsToldFromAPolicy(t *testing.T) {
	for _, tc := range []struct {
		status int
		body   string
		want   bool
	}{
		{http.StatusForbidden, `{"errors":["permission denied","invalid token"]}`, true},
		{http.StatusForbidden, `{"errors":["permission denied"]}`, false},
		{http.StatusForbidden, `<html>invalid token</html>`, false},
		{http.StatusForbidden, ``, false},
		{http.StatusBadRequest, `{"errors":["invalid token"]}`, false},
	} {
		resp := &http.Response{StatusCode: tc.status, Body: io.NopCloser(strings.NewReader(tc.body))}
		if got := invalidToken(resp); got != tc.want {
			t.Errorf("%d %s: got %v", tc.status, tc.body, got)
		}
	}
}
