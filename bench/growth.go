package main

import (
	"context"
	"fmt"
	"time"
)

// A sweep is the speed of jobs that differ in one setting, each measured once.
type sweep struct {
	name   string
	over   string // the setting; it names the picture
	points []int
	curves []curve
}

// A curve is one kind of job over the points of its sweep.
type curve struct {
	name  string
	speed func(ctx context.Context, b *bed, at int) (float64, error)
}

// sweepTime is about how long the slow jobs of a point take.
const sweepTime = 5 * time.Second

var simulated = job{Workers: workers, Window: window, Latency: 10 * time.Millisecond, Sigma: 1}

var sweeps = []sweep{
	{
		name: "growth, workers of 10 ms, sigma 1, 8 partitions", over: "workers", points: []int{1, 4, 16, 64, 256, 1024},
		curves: []curve{
			{"Seriatim", func(ctx context.Context, b *bed, at int) (float64, error) {
				j := simulated
				j.Workers = at
				return b.sweepSlow(ctx, j, 8)
			}},
			{"workers ÷ 10 ms", func(_ context.Context, _ *bed, at int) (float64, error) { return float64(at) * 100, nil }},
		},
	},
	{
		name: "growth, window of 64 workers of 10 ms, 1 partition", over: "window", points: []int{64, 256, 1024, 4096, 16384, 65536},
		curves: []curve{sweepWindow(0.5), sweepWindow(1)},
	},
	{
		name: "growth, instances with 64 workers of 10 ms each, sigma 1, 8 partitions", over: "instances", points: []int{1, 2, 3, 4},
		curves: []curve{
			{"Seriatim", sweepInstances},
			{"64 ÷ 10 ms each", func(_ context.Context, _ *bed, at int) (float64, error) { return float64(at) * 6400, nil }},
		},
	},
	{
		name: "growth, partitions, pass, 100 B", over: "partitions", points: []int{1, 8, 64, 256, 1000},
		curves: []curve{{"Seriatim", sweepPartitions(pass)}, {"bare loop", sweepPartitions(bareLoop)}},
	},
	{
		name: "growth, KiB that a broker sends at a time, pass, 6 partitions", over: "fetch", points: []int{64, 256, 1024, 4096, 8192, 32768},
		curves: sweepSizes(func(j *job, bytes int32) { j.Fetch = bytes }),
	},
	{
		name: "growth, KiB of a batch that is produced, pass, 6 partitions", over: "batch", points: []int{16, 64, 256, 1024},
		curves: sweepSizes(func(j *job, bytes int32) { j.Produce = bytes }),
	},
}

// sweepSizes are curves of small and large records over a size in KiB.
func sweepSizes(set func(j *job, bytes int32)) []curve {
	var curves []curve
	for _, of := range []struct {
		name string
		size int
	}{{"100 B", 100}, {"1 KiB", 1024}} {
		curves = append(curves, curve{of.name, func(ctx context.Context, b *bed, at int) (float64, error) {
			j := pass
			set(&j, int32(at)<<10)
			return b.sweepJob(ctx, j, topic{partitions: 6, records: int64(600_000_000 / 6 / of.size), size: of.size})
		}})
	}
	return curves
}

// A drawing is a sweep with the speeds of its curves, by point.
type drawing struct {
	sweep
	speeds  [][]float64
	foreign float64 // the CPU that others used meanwhile
}

// measure measures each point.
func (s sweep) measure(ctx context.Context, b *bed) (drawing, error) {
	speeds := make([][]float64, len(s.curves))
	before := readLoad()
	for _, at := range s.points {
		for i, c := range s.curves {
			speed, err := c.speed(ctx, b, at)
			if err != nil {
				return drawing{}, err
			}
			progress("%s %d, %s: %.0f/s\n", s.over, at, c.name, speed)
			speeds[i] = append(speeds[i], speed)
		}
	}
	return drawing{s, speeds, readLoad().foreign(before)}, nil
}

func (d drawing) table() string {
	head := []string{d.over}
	for _, c := range d.curves {
		head = append(head, c.name)
	}
	cells := [][]string{head}
	for p, at := range d.points {
		line := []string{fmt.Sprint(at)}
		for i := range d.curves {
			line = append(line, fmt.Sprintf("%.0f/s", d.speeds[i][p]))
		}
		cells = append(cells, line)
	}
	return markdown(cells)
}

// sweepSlow is the speed of a slow job.
func (b *bed) sweepSlow(ctx context.Context, j job, partitions int32) (float64, error) {
	all := int64(sweepTime.Seconds() * float64(j.Workers) / j.Latency.Seconds())
	return b.sweepJob(ctx, j, topic{partitions: partitions, records: (all + int64(partitions) - 1) / int64(partitions), size: 100})
}

// sweepJob is the speed of a job over an input of its own.
func (b *bed) sweepJob(ctx context.Context, j job, input topic) (float64, error) {
	input.name = fmt.Sprintf("in-%d", time.Now().UnixNano())
	if err := b.fill(ctx, input); err != nil {
		return 0, err
	}
	r := row{input: input}
	measured, err := r.once(ctx, b, j, false)
	if err != nil {
		return 0, err
	}
	return measured.rate(), b.remove(ctx, input.name)
}

func sweepWindow(sigma float64) curve {
	return curve{fmt.Sprintf("sigma %.1f", sigma), func(ctx context.Context, b *bed, at int) (float64, error) {
		j := with(simulated, at)
		j.Sigma = sigma
		return b.sweepSlow(ctx, j, 1)
	}}
}

func sweepPartitions(j job) func(context.Context, *bed, int) (float64, error) {
	return func(ctx context.Context, b *bed, at int) (float64, error) {
		return b.sweepJob(ctx, j, topic{partitions: int32(at), records: int64(3_000_000 / at), size: 100})
	}
}

// sweepInstances is the speed of several instances together, once each of them works.
func sweepInstances(ctx context.Context, b *bed, at int) (float64, error) {
	const partitions = 8
	input := topic{name: fmt.Sprintf("in-%d", time.Now().UnixNano()), partitions: partitions, records: int64(at) * 6400 * 20 / partitions, size: 100}
	if err := b.fill(ctx, input); err != nil {
		return 0, err
	}
	out := "out" + input.name[2:]
	if err := b.create(ctx, out, partitions); err != nil {
		return 0, err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	j := simulated
	j.Brokers, j.In, j.Out, j.Group, j.Records = b.brokers, input.name, out, out, input.records*partitions
	ended := make(chan error, at)
	for range at {
		go func() {
			_, err := j.spawn(running)
			ended <- err
		}()
	}
	var counts [2]int64
	for i, wait := range []time.Duration{8 * time.Second, sweepTime} { // they join; they work
		select {
		case err := <-ended:
			return 0, fmt.Errorf("an instance ended: %w", err)
		case <-time.After(wait):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		ends, err := b.ends(ctx, out, partitions)
		if err != nil {
			return 0, err
		}
		for _, end := range ends {
			counts[i] += end
		}
	}
	stop()
	for range at {
		_ = <-ended // with an error: they were stopped
	}
	return float64(counts[1]-counts[0]) / sweepTime.Seconds(), b.remove(ctx, input.name, out)
}
