module github.com/requestforge/requestforge/conformance

go 1.26.0

require github.com/requestforge/requestforge v0.1.0

require (
	github.com/cenkalti/backoff/v4 v4.3.0 // indirect
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/puzpuzpuz/xsync/v4 v4.5.0 // indirect
	golang.org/x/net v0.62.0 // indirect
)

// Only the peers in wraps/ need these.
require (
	github.com/hashicorp/go-retryablehttp v0.7.8
	golang.org/x/oauth2 v0.37.0
)

replace github.com/requestforge/requestforge => ../
