package requestforge

import (
	_ "github.com/cenkalti/backoff/v4"
	_ "github.com/hashicorp/go-retryablehttp"
)
