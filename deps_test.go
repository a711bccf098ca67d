package requestforge_test

import (
	_ "github.com/h2non/gock"
	_ "github.com/stretchr/testify/require"
	_ "go.uber.org/goleak"
	_ "pgregory.net/rapid"
)
