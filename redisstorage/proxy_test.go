package redisstorage_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

// startProxy starts a proxy before a server, for what a network does.
func startProxy(t *testing.T, upstream string) *toxiproxy.Proxy {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := toxiproxy.NewProxy(server, "redis", "127.0.0.1:0", upstream)
	require.NoError(t, p.Start())
	t.Cleanup(p.Stop)
	return p
}

// slow makes each answer late.
func slow(t *testing.T, p *toxiproxy.Proxy, by time.Duration) {
	t.Helper()
	_, err := p.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(
		`{"name":"slow-%d","type":"latency","stream":"downstream","attributes":{"latency":%[1]d,"jitter":%d}}`, by.Milliseconds(), by.Milliseconds()/4)))
	require.NoError(t, err)
}
