//go:build race

package requestforge_test

// histories is how many histories rapid draws.
const histories = "25"
