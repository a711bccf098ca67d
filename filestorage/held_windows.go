package filestorage

import "syscall"

// The errors that Windows returns for a file that another program has open. Windows returns
// errDenied if such a file is to be replaced, and also for a missing permission.
const (
	errSharing = syscall.Errno(32) // ERROR_SHARING_VIOLATION
	errDenied  = syscall.ERROR_ACCESS_DENIED
)
