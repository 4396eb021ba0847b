package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A load is how much CPU time all programs and our own (this process, its
// children that live, and those that it has waited for) have used, in the ticks
// of /proc. Elsewhere than on linux it is zero.
type load struct{ all, idle, own int64 }

func readLoad() load {
	var l load
	text, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(text), "\n")
	for i, field := range strings.Fields(line) {
		n, err := strconv.ParseInt(field, 10, 64)
		switch {
		case err != nil || i > 8: // the name of the line, and guests, who are counted in user
		case i == 4 || i == 5: // idle, waiting for disks
			l.all += n
			l.idle += n
		default:
			l.all += n
		}
	}
	self := os.Getpid()
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		fields := statFields(text)
		if len(fields) < 15 {
			continue
		}
		if parent := fields[1]; parent != strconv.Itoa(self) && filepath.Base(filepath.Dir(name)) != strconv.Itoa(self) {
			continue
		}
		for _, field := range fields[11:15] { // user, system, and those of children waited for
			n, _ := strconv.ParseInt(field, 10, 64)
			l.own += n
		}
	}
	return l
}

// foreign is the share of the machine that other programs have used since then.
func (l load) foreign(then load) float64 {
	all := l.all - then.all
	if all == 0 {
		return 0
	}
	return max(0, float64(all-(l.idle-then.idle)-(l.own-then.own))/float64(all))
}

func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }

// processCPU is the CPU time that a process has used, in steps of 10 ms.
func processCPU(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("%w (this needs linux)", err)
	}
	var ticks int64
	for _, field := range statFields(text)[11:13] { // user, system
		n, _ := strconv.ParseInt(field, 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// starvation is how long any thread of the machine has waited for a core since it started, 0 on
// a kernel that does not tell (the line "some" of docs.kernel.org/accounting/psi.html).
func starvation() time.Duration {
	text, err := os.ReadFile("/proc/pressure/cpu")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	_, total, _ := strings.Cut(line, "total=")
	us, _ := strconv.ParseInt(total, 10, 64)
	return time.Duration(us) * time.Microsecond
}

// statFields are the fields of /proc/PID/stat after the name, which may hold anything.
func statFields(text []byte) []string {
	_, rest, _ := strings.Cut(string(text[bytes.LastIndexByte(text, ')')+1:]), " ")
	return strings.Fields(rest)
}
