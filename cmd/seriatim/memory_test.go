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
	const window1, window2 = 128 << 20, 1 << 30
	pipelines := []config.Pipeline{{Window: config.Window{Bytes: window1}}, {Window: config.Window{Bytes: window2}}}
	const need = window1 + window2 + 2*150<<20
	container := func(bytes uint64) memlimit.Provider {
		return func() (uint64, error) { return bytes, nil }
	}
	for _, test := range []struct {
		what, environment string
		container         memlimit.Provider
		want              int64
		warns             bool
	}{
		{"an environment that says it", "1GiB", container(1 << 30), before, false},
		{"no container", "", func() (uint64, error) { return 0, memlimit.ErrNoLimit }, need, false},
		{"a container without a limit of cgroup v1", "", container(math.MaxInt64 &^ 4095), need, false},
		{"a container with enough", "", container(4 << 30), need, false},
		{"a container with too little", "", container(1000 << 20), 900 << 20, true},
	} {
		t.Run(test.what, func(t *testing.T) {
			debug.SetMemoryLimit(before)
			t.Setenv("GOMEMLIMIT", test.environment)
			var log bytes.Buffer
			limitMemory(pipelines, test.container, newLogger(config.Log{Level: "info"}, &log))
			if got := debug.SetMemoryLimit(-1); got != test.want {
				t.Errorf("the limit becomes %d, want %d", got, test.want)
			}
			if warned := strings.Contains(log.String(), "window.bytes"); warned != test.warns {
				t.Errorf("the log is %q, want a warning: %v", log.String(), test.warns)
			}
		})
	}
}
