package main

import (
	"bytes"
	"math"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"seriatim/config"
)

func TestMemoryLimitFollowsFromTheWindows(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	percent := debug.SetGCPercent(100)
	defer debug.SetGCPercent(percent)
	const window1, window2 = 128 << 20, 1 << 30
	pipelines := []config.Pipeline{{Window: config.Window{Bytes: window1}}, {Window: config.Window{Bytes: window2}}}
	const need = window1 + window2 + 2*100<<20
	container := func(bytes uint64) memlimit.Provider {
		return func() (uint64, error) { return bytes, nil }
	}
	for _, test := range []struct {
		what, limit, gogc string
		container         memlimit.Provider
		want              int64
		percent           int
		warns             bool
	}{
		{"an environment that says it", "1GiB", "", container(1 << 30), before, 100, false},
		{"an environment that says how much garbage", "", "50", container(4 << 30), need, 100, false},
		{"no container", "", "", func() (uint64, error) { return 0, memlimit.ErrNoLimit }, need, 400, false},
		{"a container without a limit of cgroup v1", "", "", container(math.MaxInt64 &^ 4095), need, 400, false},
		{"a container with enough", "", "", container(4 << 30), need, 400, false},
		{"a container with too little", "", "", container(1000 << 20), 900 << 20, 400, true},
	} {
		t.Run(test.what, func(t *testing.T) {
			debug.SetMemoryLimit(before)
			debug.SetGCPercent(100)
			t.Setenv("GOMEMLIMIT", test.limit)
			t.Setenv("GOGC", test.gogc)
			var log bytes.Buffer
			limitMemory(pipelines, test.container, newLogger(config.Log{Level: "info"}, &log))
			if got := debug.SetMemoryLimit(-1); got != test.want {
				t.Errorf("the limit becomes %d, want %d", got, test.want)
			}
			if got := debug.SetGCPercent(100); got != test.percent {
				t.Errorf("the garbage allowed becomes %d %%, want %d %%", got, test.percent)
			}
			if warned := strings.Contains(log.String(), "window.bytes"); warned != test.warns {
				t.Errorf("the log is %q, want a warning: %v", log.String(), test.warns)
			}
		})
	}
}
