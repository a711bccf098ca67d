package requestforge_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	rf "github.com/requestforge/requestforge"
	"github.com/stretchr/testify/require"
)

// A 401 refuses the token, and so does each status of RefusedStatus, unless a challenge
// asks for more than another token would have.
func TestAuthRefusedStatus(t *testing.T) {
	for name, tt := range map[string]struct {
		status    int
		challenge string
		also      []int
		sends     int
	}{
		"403":                     {403, "", nil, 1},
		"403, if it refuses":      {403, "", []int{403}, 2},
		"401, beside 403":         {401, "", []int{403}, 2},
		"440":                     {440, "", []int{403, 440}, 2},
		"500":                     {500, "", []int{500}, 2},
		"404 of something else":   {404, "", []int{403}, 1},
		"403 for want of a right": {403, `Bearer error="insufficient_scope"`, []int{403}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			sends, n := 0, 0
			src := sourceFunc(func(context.Context) (*rf.Token, error) { n++; return &rf.Token{AccessToken: fmt.Sprint(n)}, nil })
			rt := &rf.AuthTransport{Source: src, Origins: []string{host}, RefusedStatus: tt.also, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				if sends++; sends > 1 {
					return reply(req, 200), nil
				}
				resp := reply(req, tt.status)
				if tt.challenge != "" {
					resp.Header = http.Header{"Www-Authenticate": {tt.challenge}}
				}
				return resp, nil
			})}
			resp := get(t, rt, host)
			require.Equal(t, tt.sends, sends)
			require.Equal(t, tt.sends == 2, resp.StatusCode == 200)
		})
	}
}

func TestAuthRefusedStatusMistakes(t *testing.T) {
	tokens := rf.StaticToken(&rf.Token{AccessToken: "t"})
	for want, cfg := range map[string]rf.Config{
		"Config.RefusedStatus has 200; where": {RefusedStatus: []int{200}},
		"Config.RefusedStatus has 600":        {RefusedStatus: []int{403, 600}},
		"Config.RefusedStatus is set, and so": {RefusedStatus: []int{403}, Refused: func(*http.Response) bool { return false }},
	} {
		cfg.BaseURL, cfg.Source = host, tokens
		_, err := rf.NewTransport(cfg)
		require.ErrorContains(t, err, want)
	}
}
