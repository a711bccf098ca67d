package redisstorage

import (
	_ "github.com/Shopify/toxiproxy/v2"
	_ "github.com/stretchr/testify/require"
	_ "go.uber.org/goleak"
)
