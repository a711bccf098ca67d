module github.com/requestforge/requestforge/filestorage

go 1.26.0

require (
	github.com/gofrs/flock v0.13.2
	github.com/requestforge/requestforge v0.1.0
)

require (
	github.com/cenkalti/backoff/v4 v4.3.0 // indirect
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/hashicorp/go-retryablehttp v0.7.8 // indirect
	github.com/puzpuzpuz/xsync/v4 v4.5.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

// Only the tests need these.
require github.com/stretchr/testify v1.12.1

replace github.com/requestforge/requestforge => ../
