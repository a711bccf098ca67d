//go:build !windows

package filestorage

import "errors"

// An open file can be replaced here: only tests return these errors.
var (
	errSharing = errors.New("the file is open")
	errDenied  = errors.New("access is denied")
)
