module github.com/requestforge/requestforge/interop

go 1.26.0

replace (
	github.com/requestforge/requestforge => ../
	github.com/requestforge/requestforge/oauth2source => ../oauth2source
)

require (
	github.com/google/go-github/v90 v90.0.0
	github.com/requestforge/requestforge v0.0.0
	golang.org/x/mod v0.41.0
)

require (
	github.com/cenkalti/backoff/v4 v4.3.0 // indirect
	github.com/google/go-querystring v1.2.0 // indirect
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/hashicorp/go-retryablehttp v0.7.8 // indirect
)
