package transform

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// leader makes a process lead a group of its own, and die with the thread that
// starts it.
func leader() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// measures says that usageOf does.
const measures = true

// usageOf returns the bytes of memory that the processes of a group have resident,
// together, and the CPU time that they and their children have taken. A limit of the
// address space would be no measure: Node reserves far more than it uses.
func usageOf(group int) (memory int64, cpu time.Duration) {
	processes, _ := os.ReadDir("/proc") // without it nothing is known, and nothing limited
	for _, entry := range processes {
		if c := entry.Name()[0]; c < '0' || c > '9' {
			continue
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%s/stat", entry.Name()))
		if err != nil {
			continue // it has ended
		}
		// pid (name) state ppid pgrp …; the name may hold anything. See proc(5).
		_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
		fields := strings.Fields(rest)
		const pgrp, utime, cstime, rss = 5 - 3, 14 - 3, 17 - 3, 24 - 3 // as they are numbered there, of which the first two are cut off
		if len(fields) <= rss || fields[pgrp] != strconv.Itoa(group) {
			continue
		}
		pages, _ := strconv.ParseInt(fields[rss], 10, 64)
		memory += pages * int64(os.Getpagesize())
		for _, field := range fields[utime : cstime+1] {
			const tick = time.Second / 100 // USER_HZ, the same on every machine
			ticks, _ := strconv.ParseInt(field, 10, 64)
			cpu += time.Duration(ticks) * tick
		}
	}
	return memory, cpu
}
