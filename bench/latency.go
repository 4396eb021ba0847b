package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// settling is how much of the begin of a flow does not count: the group forms, and
// connections are opened.
const settling = 3 * time.Second

// flowSeconds is how long most flows last, that time included.
const flowSeconds = 11

// latencies measure how long records take, at rates that leave workers free.
var latencies = []trial{
	{
		name: "2,000/s, sigma 1, 8 partitions", times: 7, quick: true, bars: true,
		run: aboveOptimum(2000, 8, true),
	},
	{
		name: "2,000/s, sigma 1, 1 partition", times: 3,
		run: aboveOptimum(2000, 1, true),
	},
	{name: "1,600/s (25 % of capacity), sigma 1, 8 partitions", times: 1, run: aboveOptimum(1600, 8, false)},
	{name: "3,200/s (50 % of capacity), sigma 1, 8 partitions", times: 1, run: aboveOptimum(3200, 8, false)},
	{name: "4,800/s (75 % of capacity), sigma 1, 8 partitions", times: 1, run: aboveOptimum(4800, 8, false)},
	{name: "48/s, 750 ms each, one each 250 ms in 12 partitions", times: 7, bars: true, run: constant},
	{name: "2,000/s, pass, against the bare loop", times: 7, bars: true, warmUp: true, run: effort},
	{name: "stuck, 1 of 8 for 8 s, 2,000/s, sigma 1", times: 7, bars: true, run: besideStuck},
}

// A transit is how a flow fared through a job.
type transit struct {
	passage
	client, broker time.Duration // CPU
	starved        float64       // the share of the time in which a thread waited for a core, in percent
}

// through sends a flow through a job; without one (nil) it is read where it is written.
func (b *bed) through(ctx context.Context, f *flow, j *job) (t transit, err error) {
	f.in = fmt.Sprintf("in-%d", time.Now().UnixNano())
	f.out = f.in
	topics := []string{f.in}
	if j != nil {
		f.out = "out" + f.in[2:]
		topics = append(topics, f.out)
	}
	for _, topic := range topics {
		if err := b.create(ctx, topic, int32(f.partitions)); err != nil {
			return t, err
		}
	}
	before, err := b.brokerCPU()
	if err != nil {
		return t, err
	}
	began, starved := time.Now(), starvation()
	ended := make(chan error, 1)
	if j == nil {
		ended <- nil
	} else {
		measured := *j
		measured.Brokers, measured.In, measured.Out, measured.Group, measured.Profile = b.brokers, f.in, f.out, f.out, b.profiles
		measured.Records = int64(len(f.at))
		go func() {
			r, err := measured.spawn(ctx)
			t.client = r.CPU
			ended <- err
		}()
	}
	passed, err := f.run(ctx, b)
	if err != nil {
		return t, err
	}
	if err := <-ended; err != nil {
		return t, err
	}
	t.passage = passed
	t.starved = 100 * (starvation() - starved).Seconds() / time.Since(began).Seconds()
	after, err := b.brokerCPU()
	if err != nil {
		return t, err
	}
	t.broker = after - before
	return t, b.remove(ctx, topics...)
}

// late is how much later than wanted the records were seen, ascending, but for those that
// arrived while all was settling.
func (p passage) late(wanted []time.Duration) []time.Duration {
	var late []time.Duration
	for i, seen := range p.seen {
		if p.arrived[i] >= settling {
			late = append(late, seen-wanted[i])
		}
	}
	slices.Sort(late)
	return late
}

// quantile is the least of the sorted values that is as great as such a share of them.
func quantile(sorted []time.Duration, share float64) time.Duration {
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]
}

// aboveOptimum compares latencies with what they would be at best, and beside that those
// of the bare loop, whose records take no time: two hops.
func aboveOptimum(rate float64, partitions int, barred bool) func(context.Context, *bed) ([]figure, error) {
	return func(ctx context.Context, b *bed) ([]figure, error) {
		n := int(rate * flowSeconds)
		f := flow{partitions: partitions, at: randomly(n, rate), takes: lognormally(n, 10*time.Millisecond, 1)}
		t, err := b.through(ctx, &f, &job{Workers: workers, Window: window, Timed: true})
		if err != nil {
			return nil, err
		}
		best := f.optimum(t.arrived, workers)
		above := t.late(best)
		var bars [2]float64
		if barred {
			bars = [2]float64{1.5, 10}
		}
		figures := []figure{
			milliseconds("p50 above the optimum", quantile(above, 0.5), bars[0]),
			milliseconds("p99 above the optimum", quantile(above, 0.99), bars[1]),
			milliseconds("p99.9 above the optimum", quantile(above, 0.999), 0),
			{name: "the time in which a thread waited for a core", value: t.starved, unit: "%"},
		}
		waits := passage{arrived: t.arrived, seen: best}.late(t.arrived)
		figures = append(figures, milliseconds("p50 of the optimum", quantile(waits, 0.5), 0), milliseconds("p99 of the optimum", quantile(waits, 0.99), 0))
		f.takes = nil
		if t, err = b.through(ctx, &f, &bareLoop); err != nil {
			return nil, err
		}
		hops := t.late(t.arrived)
		return append(figures,
			milliseconds("p50 of two hops of a bare loop", quantile(hops, 0.5), 0),
			milliseconds("p99 of two hops of a bare loop", quantile(hops, 0.99), 0),
			milliseconds("p99.9 of two hops of a bare loop", quantile(hops, 0.999), 0),
			figure{name: "the time in which a thread waited for a core", value: t.starved, unit: "%"}), nil
	}
}

// constant is the arrival that Seriatim was made for.
func constant(ctx context.Context, b *bed) ([]figure, error) {
	const partitions, each = 12, 64
	f := flow{partitions: partitions, at: steadily(partitions*each, partitions/0.250), takes: slices.Repeat([]time.Duration{750 * time.Millisecond}, partitions*each)}
	t, err := b.through(ctx, &f, &job{Workers: workers, Window: window, Timed: true})
	if err != nil {
		return nil, err
	}
	took := t.late(t.arrived)
	return []figure{
		milliseconds("p50 from record to output", quantile(took, 0.5), 0),
		milliseconds("p99 from record to output", quantile(took, 0.99), 775),
		milliseconds("worst from record to output", took[len(took)-1], 0),
	}, nil
}

// effort compares the CPU time of client and broker for a record that takes no time, above
// what it takes to write the input and to read it.
func effort(ctx context.Context, b *bed) ([]figure, error) {
	const rate, n = 2000, 2000 * flowSeconds
	f := flow{partitions: 8, at: randomly(n, rate)}
	nothing, err := b.through(ctx, &f, nil)
	if err != nil {
		return nil, err
	}
	costs := func(t transit) float64 { return float64((t.client + t.broker - nothing.broker).Microseconds()) / n }
	ours, err := b.through(ctx, &f, &pass)
	if err != nil {
		return nil, err
	}
	bare, err := b.through(ctx, &f, &bareLoop)
	if err != nil {
		return nil, err
	}
	patient, err := b.through(ctx, &f, &job{By: byBare, Patient: true})
	if err != nil {
		return nil, err
	}
	more, hops := ours.late(ours.arrived), bare.late(bare.arrived)
	return []figure{
		{name: "CPU of client and broker a record", value: costs(ours), unit: "µs"},
		{name: "that of the bare loop", value: costs(bare), unit: "µs"},
		{name: "the one against the other", value: costs(ours) / costs(bare), most: 0.6},
		milliseconds("p50 from record to output", quantile(more, 0.5), 0),
		milliseconds("that of the bare loop", quantile(hops, 0.5), 0),
		{name: "CPU of a bare loop that waits for 1 ms in both hops, against the bare loop", value: costs(patient) / costs(bare)},
		milliseconds("p50 of that loop", quantile(patient.late(patient.arrived), 0.5), 0),
	}, nil
}

// besideStuck compares how long records of the other partitions take while the head of one is
// stuck for 8 s with how long they take while none is.
func besideStuck(ctx context.Context, b *bed) ([]figure, error) {
	const rate, partitions, n = 2000, 8, 2000 * flowSeconds
	f := flow{partitions: partitions, at: randomly(n, rate), takes: lognormally(n, 10*time.Millisecond, 1)}
	var p50, p99 [2]time.Duration
	for i, head := range []time.Duration{8 * time.Second, 10 * time.Millisecond} {
		f.takes[rate*2/partitions*partitions] = head // of partition 0, after two seconds
		t, err := b.through(ctx, &f, &job{Workers: workers, Window: window, Timed: true})
		if err != nil {
			return nil, err
		}
		var took []time.Duration
		for r, seen := range t.seen {
			if r%partitions != 0 && t.arrived[r] >= settling {
				took = append(took, seen-t.arrived[r])
			}
		}
		slices.Sort(took)
		p50[i], p99[i] = quantile(took, 0.5), quantile(took, 0.99)
	}
	return []figure{
		milliseconds("p50 of the other partitions", p50[0], 0),
		milliseconds("... while none is stuck", p50[1], 0),
		milliseconds("p99 of the other partitions", p99[0], 0),
		milliseconds("... while none is stuck", p99[1], 0),
		{name: "the one against the other", value: p99[0].Seconds() / p99[1].Seconds(), most: 1.10},
	}, nil
}
