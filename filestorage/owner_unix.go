//go:build unix

package filestorage

import (
	"io/fs"
	"os"
	"syscall"
)

// openFlags keep an open from following a symbolic link, and from waiting for
// somebody at the other end of a pipe.
const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// readersBlockRename: a file that is open can be renamed over.
const readersBlockRename = false

func ownedByUs(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// othersMay returns those of the permission bits in mask that info has.
func othersMay(info fs.FileInfo, mask fs.FileMode) fs.FileMode {
	return info.Mode().Perm() & mask
}
