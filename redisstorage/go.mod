module github.com/requestforge/requestforge/redisstorage

go 1.26.0

require (
	github.com/redis/go-redis/v9 v9.23.0
	github.com/requestforge/requestforge v0.0.0
)

require (
	github.com/cenkalti/backoff/v4 v4.3.0 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/hashicorp/go-retryablehttp v0.7.8 // indirect
	go.uber.org/atomic v1.12.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.48.0 // indirect
)

// Only the tests need these.
require (
	github.com/stretchr/testify v1.12.1
	go.uber.org/goleak v1.3.0
)

replace github.com/requestforge/requestforge => ../
