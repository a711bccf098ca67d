//go:build !race

package requestforge_test

import (
	"net/http"
	"testing"

	rf "github.com/requestforge/requestforge"
)

// Run with -cpu 1,2,4,8: the time of one call falls with each core, since
// nothing is shared but a pointer that is only read.
func BenchmarkPipelineTokenLive(b *testing.B) {
	p := livePipeline(b, nil)
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := p.Token(ctx); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkRoundTrip(b *testing.B) {
	p := livePipeline(b, nil)
	req := requests(b)["GET"]
	auth := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: &sink{}}
	retry := &rf.RetryTransport{Base: auth, Policy: rf.RetryPolicy{RetryMax: 3}}
	for _, c := range []struct {
		name string
		rt   http.RoundTripper
	}{{"bare", &sink{}}, {"auth", auth}, {"retry+auth", retry}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.rt.RoundTrip(req)
			}
		})
	}
}
