//go:build !unix

package filestorage

import (
	"errors"
	"io/fs"
)

const openFlags = 0

// errNoLocks is never returned by a call here.
var errNoLocks = errors.New("no locks")

// readersBlockRename: on Windows an open file can't be replaced.
const readersBlockRename = true

// Owner and permissions have other meanings than on Unix.
func (*Storage) checkAbove() error                   { return nil }
func ownedByUs(fs.FileInfo) bool                     { return true }
func othersMay(fs.FileInfo, fs.FileMode) fs.FileMode { return 0 }
