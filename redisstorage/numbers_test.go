//go:build !race

package redisstorage_test

import "testing"

func TestHundredsOfSubjectsAreServedWithoutRedis(t *testing.T) { servedWithoutRedis(t, 600) }
