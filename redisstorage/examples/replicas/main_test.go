package main

import (
	"os"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9/logging"
	"github.com/stretchr/testify/require"
)

// The replicas are this binary again.
func TestMain(m *testing.M) {
	if os.Getenv(jobVariable) != "" {
		main()
		return
	}
	logging.Disable()
	os.Exit(m.Run())
}

func TestTheStoryHolds(t *testing.T) {
	var out strings.Builder
	err := run([]string{"-n", "3", "-requests", "5", "-patience", "1m"}, &out)
	t.Log(out.String())
	require.NoError(t, err)
	require.Contains(t, out.String(), "In all: 75 requests, 0 failed, 0 refusals seen by a caller; ")
}

func TestTheStoryIsOffWithoutSharing(t *testing.T) {
	var out strings.Builder
	err := run([]string{"-n", "4", "-requests", "5", "-share=false"}, &out)
	require.ErrorContains(t, err, "8 fetches instead of 2: All of them start at once, without a token")
}
