//go:build !race

package requestforge_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// A token in another header costs no more than in Authorization, in a query or a cookie
// two allocations more at most.
func TestAllocPlaces(t *testing.T) {
	for kind, c := range map[string]struct {
		place rf.Place
		more  float64
	}{
		"bare":            {rf.Place{Header: "Authorization", Bare: true}, 0},
		"header":          {rf.Place{Header: "X-Key"}, 0},
		"odd spelling":    {rf.Place{Header: "x-key"}, 0},
		"scheme":          {rf.Place{Header: "X-Serverless-Authorization", Scheme: "Bearer"}, 0},
		"constant":        {rf.Place{Header: "X-Key", Text: "k"}, 0},
		"of Extra":        {rf.Place{Header: "X-Csrf", Value: "csrf"}, 0},
		"of Extra, below": {rf.Place{Header: "X-Csrf", Value: "data.tenants.0"}, 0},
		"query":           {rf.Place{Query: "key"}, 2},
		"escaped query":   {rf.Place{Query: "api key"}, 2},
		"cookie":          {rf.Place{Cookie: "session"}, 2},
	} {
		src := rf.StaticToken(&rf.Token{AccessToken: "t-123456", Extra: map[string]any{"csrf": "c", "data": map[string]any{"tenants": []any{"one"}}}})
		for name, req := range requests(t) {
			for _, cookies := range []string{"", "mine=1; other=2"} {
				if req.Header.Del("Cookie"); cookies != "" {
					req.Header.Set("Cookie", cookies)
				}
				over := func(attach []rf.Place) http.RoundTripper {
					return &rf.AuthTransport{Source: src, Origins: []string{host}, Base: &sink{}, Attach: attach}
				}
				require.LessOrEqual(t, allocs(t, over([]rf.Place{c.place}), req)-allocs(t, over(nil), req), c.more, "%s, %s, cookies %q", kind, name, cookies)
			}
		}
	}
}
