package redistest

import "syscall"

// dieWithParent makes the kernel end a server with the process that started it,
// which a test that ran out of time does without cleaning up.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
