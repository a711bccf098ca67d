//go:build !unix

package filestorage

import "io/fs"

const openFlags = 0

// readersBlockRename: on Windows a file can't be replaced while it is open.
const readersBlockRename = true

// Neither owner nor permissions are what they are on Unix.
func ownedByUs(fs.FileInfo) bool                     { return true }
func othersMay(fs.FileInfo, fs.FileMode) fs.FileMode { return 0 }
