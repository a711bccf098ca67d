module github.com/requestforge/requestforge

go 1.26.0

require (
	github.com/cenkalti/backoff/v4 v4.3.0
	github.com/hashicorp/go-retryablehttp v0.7.8
	github.com/puzpuzpuz/xsync/v4 v4.5.0
	golang.org/x/net v0.62.0
)

require (
	github.com/h2non/parth v0.0.0-20190131123155-b4df798d6542 // indirect
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/text v0.43.0 // indirect
)

// Only the tests need these.
require (
	github.com/h2non/gock v1.2.0
	github.com/stretchr/testify v1.12.1
	pgregory.net/rapid v1.3.0
)
