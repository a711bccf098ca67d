module github.com/requestforge/requestforge/dpop

go 1.26.0

require (
	github.com/golang-jwt/jwt/v5 v5.3.1
	github.com/hashicorp/golang-lru/v2 v2.0.7
	github.com/requestforge/requestforge v0.1.0
	golang.org/x/net v0.62.0
)

require (
	github.com/cenkalti/backoff/v4 v4.3.0 // indirect
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/hashicorp/go-retryablehttp v0.7.8 // indirect
	github.com/puzpuzpuz/xsync/v4 v4.5.0 // indirect
	golang.org/x/text v0.43.0 // indirect
)

// Only the tests need this: another implementation reads the proofs.
require github.com/go-jose/go-jose/v4 v4.1.9

replace github.com/requestforge/requestforge => ../
