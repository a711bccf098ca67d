//go:build unix

package filestorage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// openFlags keep an open from following a symbolic link, and from waiting for a peer on a
// named pipe.
const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// errNoLocks is the error of NFS when the server has no locks.
const errNoLocks = syscall.ENOLCK

// readersBlockRename: a rename can replace an open file.
const readersBlockRename = false

func ownedByUs(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// checkAbove returns an error if another user could exchange the Storage's directory. Each
// directory on the path, symbolic links followed, has to belong to the program's user or
// root, and other users may write to the directory only if the directory is sticky, as sshd
// demands. The directory at the end of the path is checkDir's task.
//
// A missing directory is no error: only a user who passes the directories above can create
// the missing directory.
func (s *Storage) checkAbove() error {
	links, path := 0, s.dir
	for at, rest := "/", path; ; {
		info, err := os.Lstat(at)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return wrap(err)
		}
		rest = strings.TrimLeft(rest, "/")
		switch {
		case !trusted(info):
			return fmt.Errorf("requestforge: filestorage: %s, on the way to %s, belongs to another user, who could exchange what is below; use a directory elsewhere", at, path)
		case info.Mode().Type() == fs.ModeSymlink:
			if links++; links > 40 {
				return fmt.Errorf("requestforge: filestorage: %s leads through too many symbolic links", path)
			}
			to, err := os.Readlink(at)
			if err != nil {
				return wrap(err)
			}
			if !filepath.IsAbs(to) {
				to = filepath.Dir(at) + "/" + to
			}
			at, rest = "/", to+"/"+rest
			continue
		case rest == "":
			return nil
		case info.IsDir() && info.Mode()&fs.ModeSticky == 0 && othersMay(info, s.shut&0o022) != 0:
			return fmt.Errorf("requestforge: filestorage: other users can write to the directory %s (mode %s), so that they could exchange what is below; use a directory elsewhere, or chmod %s", at, s.modeOf(info), s.chmod())
		}
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		at = filepath.Join(at, name)
	}
}

// trusted reports whether the owner is the program's user or root, under whatever user id:
// in a user namespace root may be mapped to an unknown id, but root still owns the root
// directory.
func trusted(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	if st.Uid == 0 || int(st.Uid) == os.Geteuid() {
		return true
	}
	root, err := os.Stat("/")
	if err != nil {
		return false
	}
	top, ok := root.Sys().(*syscall.Stat_t)
	return ok && top.Uid == st.Uid
}

// othersMay returns the permission bits of info that are in mask.
func othersMay(info fs.FileInfo, mask fs.FileMode) fs.FileMode {
	return info.Mode().Perm() & mask
}
