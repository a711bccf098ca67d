package requestforge_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// A user's token is exchanged once, and that for each of two backends, whoever asks for
// both at once. What a backend refuses is nobody's but that backend's and user's.
func TestTwoLeavesOfASubjectShareOneExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		cfg := o.exchange()
		for _, leaf := range []string{"orders", "invoices"} {
			cfg.Steps = append(cfg.Steps, rf.Step{Name: leaf, DependsOn: []string{"user"}, Fetcher: o.fetch(leaf), Identity: leaf})
		}
		p := pipeline(t, cfg)
		const users = 50
		var wg sync.WaitGroup
		for i := range users {
			name := fmt.Sprint("u", i)
			for _, leaf := range []string{"orders", "invoices"} {
				wg.Go(func() {
					tok, err := p.Source(leaf).Token(with(as(t.Context(), name), name+"'s own"))
					if want := leaf + " " + name + "-1<user " + name + "-1<app-1<" + name + "'s own"; err != nil || tok.AccessToken != want {
						t.Errorf("%v, %v; want %s", tok, err, want)
					}
				})
			}
		}
		wg.Wait()
		require.Equal(t, 1, o.fetches("app"))
		for i := range users {
			require.Equal(t, 1, o.fetches(fmt.Sprint("user u", i)))
		}

		ctx := with(as(t.Context(), "u7"), "newer")
		tok, err := p.Source("orders").Token(ctx)
		require.NoError(t, err)
		require.NoError(t, p.Source("orders").Invalidate(ctx, tok))
		require.Equal(t, "orders u7-2<user u7-1<app-1<u7's own", tokenAs(t, p.Source("orders"), ctx))
		require.Equal(t, "invoices u7-1<user u7-1<app-1<u7's own", tokenAs(t, p.Source("invoices"), ctx))
		require.Equal(t, "orders u8-1<user u8-1<app-1<u8's own", tokenAs(t, p.Source("orders"), as(t.Context(), "u8")))
	})
}
