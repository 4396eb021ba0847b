package transform

import "syscall"

// leader makes a process lead a group of its own, and die with the thread that
// starts it.
func leader() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
