package main

import (
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"seriatim/config"
)

// memoryBeside is what a pipeline needs beside its window: about 8 MiB of fetched
// records of each broker, three times over, and what the program itself needs. At full speed
// garbage fills all that the collector is given: RSS is 12 MiB more than the limit.
const memoryBeside = 100 << 20

// garbage is how much of it the heap may hold, as GOGC counts it, while it is far from the
// limit. With 100 the collector would run as often while there is room: measured at full
// speed, records of 1 KiB took 10 % more CPU, those of 100 B 4 % more.
const garbage = 400

// limitMemory has the garbage collector work harder as the heap comes near to
// what the pipelines are meant to need, or to nine tenths of what the container has
// (contained, which fails where there is no limit) if that is less. Without it the heap
// would grow to twice what is alive, and a full window would cost its double. The limit
// is a soft one: beyond it the collector takes up to half of the CPU time, and nothing
// fails. Far from the limit it works less than it would by itself. GOMEMLIMIT and GOGC
// in the environment win.
func limitMemory(pipelines []config.Pipeline, contained memlimit.Provider, log *slog.Logger) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	var need int64
	for i := range pipelines {
		need += pipelines[i].Window.Bytes + memoryBeside
	}
	limit := need
	if total, err := contained(); err == nil && total < 1<<62 { // cgroup v1 says "none" by a huge number
		limit = min(need, int64(total/10*9))
		if limit < need {
			log.Warn("full windows need more memory than the container has, which would have it killed: lower window.bytes or raise the container's limit",
				"needed_mib", need>>20, "limit_mib", total>>20)
		}
	}
	debug.SetMemoryLimit(limit)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
}
