//go:build soak

package filestorage_test

import "testing"

// Each process runs the whole suite with its own keys, all in one file.
func TestManyProcessesKeepTheRules(t *testing.T) {
	_, dir := fresh(t)
	var all []*process
	for range 3 {
		all = append(all, start(t, "", dir, "-test.run=^TestStorageKeepsTheRules$"))
	}
	for _, p := range all {
		p.rest(t)
	}
}
