package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// A row is one comparison.
type row struct {
	name  string
	input topic
	a     job // what is measured
	// b is what it is compared with; without it that is a rate in records a second.
	b    *job
	rate float64
	bar  float64 // the least ratio of speeds; 0 is none
	// pairs is how often both are measured. Six are the least that give an
	// interval of 95 %.
	pairs int
	quick int // pairs in the selection of -quick; 0: it does not belong to it
}

const (
	workers = 64
	window  = 16384
	// fastWindow is for transforms that take no time. At two million records a second over
	// 6 partitions the default window holds what is emitted in 50 ms: less than a loaded broker
	// takes to acknowledge it, and less than a transaction lasts.
	fastWindow = 65536
)

var (
	pass      = job{Workers: workers, Window: fastWindow}
	lognormal = job{Workers: workers, Window: window, Latency: 10 * time.Millisecond, Sigma: 1}
	bareLoop  = job{By: byBare}
	askHTTP   = job{Workers: workers, Window: window, Worker: overHTTP, Most: 100_000}
	askLines  = job{Workers: workers, Window: window, Worker: overLines, Most: 200_000}
	onceOnly  = job{Workers: workers, Window: fastWindow, ExactlyOnce: true}
)

// rows are what is measured: the bars first, then what windows and hand-written loops come to.
var rows = slices.Concat(bars, slow, sizing)

// bars are the rows of the promises. Slow transforms take a log-normal time of mean 10 ms
// and sigma 1. Of the rows with a stuck record the other partitions are counted.
var bars = []row{
	{
		name:  "pass, 100 B / bare loop",
		input: topic{partitions: 6, records: 1_500_000, size: 100},
		a:     pass, b: &bareLoop, bar: 0.70, pairs: 9, quick: 3,
	},
	{
		name:  "pass, 1 KiB / bare loop",
		input: topic{partitions: 6, records: 300_000, size: 1024},
		a:     pass, b: &bareLoop, bar: 0.85, pairs: 9,
	},
	{
		name:  "pass, 100 B, exactly once / at least once",
		input: topic{partitions: 6, records: 1_500_000, size: 100},
		a:     onceOnly, b: &pass, bar: 0.80, pairs: 7, quick: 2,
	},
	{
		name:  "pass, 1 KiB, exactly once / at least once",
		input: topic{partitions: 6, records: 300_000, size: 1024},
		a:     onceOnly, b: &pass, pairs: 7,
	},
	{
		name:  "slow, 1 partition / 64 workers by 10 ms",
		input: topic{partitions: 1, records: 128_000, size: 100},
		a:     lognormal, rate: float64(workers) / 0.010, bar: 0.90, pairs: 3,
	},
	{
		name:  "stuck, 1 of 8, slow / none stuck",
		input: topic{partitions: 8, records: 16_000, size: 100},
		a:     stuck(with(lognormal, 4096), true), b: new(stuck(with(lognormal, 4096), false)), bar: 0.95, pairs: 3,
	},
	{
		name:  "stuck, 1 of 8, pass / none stuck",
		input: topic{partitions: 8, records: 1_000_000, size: 100},
		a:     stuck(pass, true), b: new(stuck(pass, false)), bar: 0.95, pairs: 7,
	},
	{
		// All there is: with less than that the client of Kafka would have read ahead for nothing.
		name:  "workers over HTTP / a plain client",
		input: topic{partitions: 6, records: 50_000, size: 100},
		a:     all(askHTTP), b: &job{Workers: workers, By: byPlain, Worker: overHTTP}, bar: 0.80, pairs: 9,
	},
	{
		name:  "workers over lines / over HTTP",
		input: topic{partitions: 6, records: 100_000, size: 100},
		a:     askLines, b: &askHTTP, bar: 2, pairs: 7,
	},
	{
		name:  "workers over HTTP, batches of 1000 / single calls",
		input: topic{partitions: 6, records: 250_000, size: 100},
		a:     batched(askHTTP), b: &askHTTP, bar: 10, pairs: 7,
	},
	{
		name:  "workers over lines, batches of 1000 / single calls",
		input: topic{partitions: 6, records: 250_000, size: 100},
		a:     batched(askLines), b: &askLines, pairs: 7,
	},
}

// all is a job that takes all there is.
func all(j job) job {
	j.Most = 0
	return j
}

// batched is a job in batches of 1000, that takes all there is.
func batched(j job) job {
	j.Batch, j.Window = 1000, fastWindow
	return all(j)
}

// with is a job with another window.
func with(j job, window int) job {
	j.Window = window
	return j
}

// stuck is a job that waits for all partitions but the first, of which a record
// may be stuck.
func stuck(j job, is bool) job {
	j.Stuck, j.Others = is, true
	return j
}

// An outcome is a row with what was measured.
type outcome struct {
	row
	as, bs  []result
	foreign float64 // the most CPU that others used during a pair
	skipped int     // pairs that were repeated because others used more
}

// most is how much CPU other programs may use during a pair, as a share of the
// machine, before it is measured again.
const most = 0.10

// measure fills the input and measures the pairs. The first pair of fast ones only
// warms the broker up; it is checked record by record. Pairs during which others used the
// machine are measured again, if again.
func (r row) measure(ctx context.Context, b *bed, again bool) (outcome, error) {
	o := outcome{row: r}
	r.input.name = fmt.Sprintf("in-%d", time.Now().UnixNano())
	progress("%s\n  filling %d partitions with %d records of %d B each\n", r.name, r.input.partitions, r.input.records, r.input.size)
	if err := b.fill(ctx, r.input); err != nil {
		return o, err
	}
	for try := 0; len(o.as) < r.pairs; try++ {
		before := readLoad()
		first, second, err := r.pair(ctx, b, try == 0)
		if err != nil {
			return o, err
		}
		foreign := readLoad().foreign(before)
		verdict := ""
		switch {
		case try == 0 && r.a.Latency == 0: // slow ones hardly ask the broker for anything
			verdict = "warm-up"
		case again && foreign > most && o.skipped < r.pairs:
			o.skipped++
			verdict = "repeated"
		default:
			o.as, o.bs = append(o.as, first), append(o.bs, second)
			o.foreign = max(o.foreign, foreign)
		}
		progress("  %9.0f/s %6.2f µs CPU  against  %9.0f/s %6.2f µs  = %.3f  (others used %s) %s\n",
			first.rate(), first.cpu(), second.rate(), second.cpu(), first.rate()/second.rate(), percent(foreign), verdict)
	}
	return o, b.remove(ctx, r.input.name)
}

// pair measures both sides once.
func (r row) pair(ctx context.Context, b *bed, check bool) (first, second result, err error) {
	if first, err = r.once(ctx, b, r.a, check); err != nil {
		return first, second, err
	}
	if r.b == nil {
		return first, result{Records: int64(r.rate), Took: time.Second}, nil
	}
	second, err = r.once(ctx, b, *r.b, check)
	return first, second, err
}

// once runs a job into a topic of its own.
func (r row) once(ctx context.Context, b *bed, j job, check bool) (result, error) {
	j.Brokers, j.In = b.cluster.Brokers(), r.input.name
	j.Out = fmt.Sprintf("out-%d", time.Now().UnixNano())
	j.Group = j.Out
	want := r.input.counts()
	if j.Others {
		want[0] = 0
	}
	for _, n := range want {
		j.Records += n
	}
	if j.Most > 0 {
		j.Records = j.Most
	}
	if j.Worker == overHTTP {
		url, end, err := startSelf(ctx, workerCommand, "http")
		if err != nil {
			return result{}, err
		}
		defer end()
		j.URL = url
	}
	j.Size = r.input.size
	if err := b.create(ctx, j.Out, r.input.partitions); err != nil {
		return result{}, err
	}
	measured, err := j.spawn(ctx)
	if err != nil {
		return result{}, err
	}
	if j.Most == 0 && j.By != byPool && j.By != byPlain && (check || j.By == "" && j.Latency > 0) {
		if err := b.verify(ctx, j.Out, want, j.ExactlyOnce); err != nil {
			return result{}, err
		}
	}
	return measured, b.remove(ctx, j.Out)
}

// ratios are the speeds of the pairs compared, ascending.
func (o outcome) ratios() []float64 {
	var ratios []float64
	for i := range o.as {
		ratios = append(ratios, o.as[i].rate()/o.bs[i].rate())
	}
	slices.Sort(ratios)
	return ratios
}

func (o outcome) missed() bool { return o.bar > 0 && median(o.ratios()) < o.bar }

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// interval returns the narrowest pair of the sorted values, equally far from both
// ends, between which the true median lies with 95 % certainty: fewer than k of n
// values are above it, or below, as rarely as fewer than k heads in n throws of a
// coin. With less than six values it is all of them, and less certain.
func interval(sorted []float64) (low, high float64) {
	n := len(sorted)
	tail, ways, k := 0.0, 1.0, 0 // the probability of at most k-1 heads
	for total := float64(int64(1) << n); k < n/2; k++ {
		if tail += ways / total; 2*tail > 0.05 {
			break
		}
		ways *= float64(n-k) / float64(k+1)
	}
	k = max(k, 1)
	return sorted[k-1], sorted[n-k]
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format, args...) }
