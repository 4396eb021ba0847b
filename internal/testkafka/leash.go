package testkafka

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// A Leash ends processes and removes a directory when this process is gone, in
// whatever way it went: returned, failed, timed out or killed. A shell waits for
// the end of a pipe that only this process holds open. It works the same on
// linux and darwin, and Close takes the same way.
type Leash struct {
	shell *exec.Cmd

	mu      sync.Mutex
	pipe    io.WriteCloser
	running map[int]*Process
}

// reaper reads lists of process groups, of which the last one counts. A process
// that is being killed may still create files for a moment.
const reaper = `trap '' HUP INT TERM
running=
while read -r line; do running=$line; done
[ -z "$running" ] || kill -9 $running 2>/dev/null
for try in 1 2 3 4 5 6 7 8 9 10; do
	rm -rf "$0" 2>/dev/null && exit
	sleep 0.1
done
exit 1`

// NewLeash makes a leash that removes dir and all in it at the end.
func NewLeash(dir string) (*Leash, error) {
	shell := exec.Command("/bin/sh", "-c", reaper, dir)
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt from the terminal is not for it
	pipe, err := shell.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := shell.Start(); err != nil {
		return nil, err
	}
	return &Leash{shell: shell, pipe: pipe, running: make(map[int]*Process)}, nil
}

// A Process is one that a Leash holds.
type Process struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

// Start starts cmd as the leader of a process group. Its standard streams must be
// files or nil.
func (l *Leash) Start(cmd *exec.Cmd) (*Process, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pipe == nil {
		return nil, os.ErrClosed
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, exited: make(chan struct{})}
	l.running[cmd.Process.Pid] = p
	err := l.tell()
	go func() {
		_ = cmd.Wait() // ExitCode tells
		l.mu.Lock()
		delete(l.running, cmd.Process.Pid)
		_ = l.tell()
		l.mu.Unlock()
		close(p.exited)
	}()
	return p, err
}

// tell sends the list of what is running. l.mu is held.
func (l *Leash) tell() error {
	if l.pipe == nil {
		return nil
	}
	var groups []string
	for pid := range l.running {
		groups = append(groups, fmt.Sprint(-pid))
	}
	_, err := fmt.Fprintln(l.pipe, strings.Join(groups, " "))
	return err
}

// Close kills what still runs, waits for it, and removes the directory.
func (l *Leash) Close() error {
	l.mu.Lock()
	if l.pipe == nil {
		l.mu.Unlock()
		return nil
	}
	l.pipe.Close()
	l.pipe = nil
	var running []*Process
	for _, p := range l.running {
		running = append(running, p)
	}
	l.mu.Unlock()
	for _, p := range running {
		<-p.exited
	}
	if err := l.shell.Wait(); err != nil {
		return fmt.Errorf("remove %s: %w", l.shell.Args[3], err)
	}
	return nil
}

// Pid returns the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Signal sends sig to the process alone, not to its group.
func (p *Process) Signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// ExitCode returns the exit code, -1 if a signal ended the process. The process
// must have ended.
func (p *Process) ExitCode() int { return p.cmd.ProcessState.ExitCode() }
