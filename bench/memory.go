package main

import (
	"context"
	"fmt"
	"time"
)

// memoryAtSpeed measures the memory of the program with default settings while it copies, as
// fast as it can, what lies there before it begins.
func memoryAtSpeed(size int) func(context.Context, *bed) ([]figure, error) {
	return func(ctx context.Context, b *bed) ([]figure, error) {
		rss, _, err := b.copies(ctx, size)
		return []figure{{name: fmt.Sprintf("most RSS above window.bytes (%d MiB)", windowMiB), value: rss, unit: "MiB", most: 120}}, err
	}
}

// collected measures what other settings of the garbage collector come to, in turn: its limit
// beside window.bytes, and GOGC. Those of the program are 100 MiB and 400.
func collected(size int) func(context.Context, *bed) ([]figure, error) {
	return func(ctx context.Context, b *bed) ([]figure, error) {
		var figures []figure
		for _, set := range []struct{ besideMiB, percent int }{
			{75, 200}, {100, 100}, {100, 200}, {100, 400}, {150, 100}, {150, 400},
		} {
			rss, cpu, err := b.copies(ctx, size, fmt.Sprintf("GOMEMLIMIT=%dMiB", windowMiB+set.besideMiB), fmt.Sprintf("GOGC=%d", set.percent))
			if err != nil {
				return nil, err
			}
			name := fmt.Sprintf("limit %d MiB, GOGC %d", set.besideMiB, set.percent)
			figures = append(figures, figure{name: name + ": most RSS above window.bytes", value: rss, unit: "MiB"}, figure{name: name + ": CPU a record", value: cpu, unit: "µs"})
		}
		return figures, nil
	}
}

// copies has the program copy 600 MB with this in its environment, and tells its most RSS above
// window.bytes, in MiB, and its CPU time a record, in µs.
func (b *bed) copies(ctx context.Context, size int, env ...string) (rss, cpu float64, err error) {
	program, err := b.program(ctx)
	if err != nil {
		return 0, 0, err
	}
	set := *program
	set.env = env
	const partitions = 6
	input := topic{partitions: partitions, records: int64(600_000_000 / partitions / size), size: size}
	in, err := b.input(ctx, input)
	if err != nil {
		return 0, 0, err
	}
	out := fmt.Sprintf("out-%d", time.Now().UnixNano())
	if err := b.create(ctx, out, partitions); err != nil {
		return 0, 0, err
	}
	instance, err := set.startInstance(b.brokers[0], "one", passConfig(in, out, passing))
	if err != nil {
		return 0, 0, err
	}
	if err := b.awaitEnds(ctx, out, input.counts()); err != nil {
		return 0, 0, err
	}
	peak, err := memory(instance.Pid(), "VmHWM")
	if err != nil {
		return 0, 0, err
	}
	used, err := processCPU(instance.Pid())
	if err != nil {
		return 0, 0, err
	}
	if err := instance.leave(); err != nil {
		return 0, 0, err
	}
	cpu = float64(used.Nanoseconds()) / 1000 / float64(partitions*input.records)
	return float64(peak - windowMiB), cpu, b.remove(ctx, out)
}
