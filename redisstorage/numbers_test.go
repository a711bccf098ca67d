//go:build !race

package redisstorage_test

import "testing"

func TestHundredsOfSubjectsAreServedWithoutRedis(t *testing.T) { servedWithoutRedis(t, 600) }

// (Not parallel: it counts the goroutines of the process.)
func TestThousandsOfSubjectsShareAConnection(t *testing.T) { crowdOverOneConnection(t, 3000, 2, true) }
