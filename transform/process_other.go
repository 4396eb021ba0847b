//go:build !linux

package transform

import "syscall"

// leader makes a process lead a group of its own. It learns of our death by the
// end of its standard input.
func leader() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// measures says that groupMemory does not.
const measures = false

func groupMemory(int) int64 { return 0 }
