package redistest

import "syscall"

// dieWithParent makes the kernel end a server with the process that started the server:
// a test that ran out of time ends without cleaning up.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
