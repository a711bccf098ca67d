//go:build unix

package main

import (
	"syscall"
	"time"
)

// cpuTime is how long this process has kept processors busy, the garbage
// collector's work included. It is false where nobody tells.
func cpuTime() (time.Duration, bool) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0, false
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()), true
}
