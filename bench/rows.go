package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// A row is one comparison.
type row struct {
	name  string
	input topic
	// inMemory has the broker be one in memory, in a process of its own, instead of Kafka.
	inMemory bool
	a        job // what is measured
	// b is what it is compared with; without it that is a rate in records a second.
	b    *job
	rate float64
	// The bars, of which 0 is none: the least ratio of speeds, the most ratio of CPU time a
	// record, and the most allocations a record.
	bar, mostCPU, mostAllocs float64
	// together has both sides run at the same time, which is for those that hardly use the machine.
	together bool
	// pairs is how often both are measured. Six are the least that give an
	// interval of 95 %.
	pairs int
	quick int // pairs in the selection of -quick; 0: it does not belong to it
}

func (r row) barred() bool { return r.bar > 0 || r.mostCPU > 0 || r.mostAllocs > 0 }

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

// measure fills the input and measures the pairs, the first of which is checked record by
// record. Of fast ones that only warms the broker up, unless one pair is all. Pairs during which
// others used the machine are measured again, if again.
func (r row) measure(ctx context.Context, b *bed, again bool) (outcome, error) {
	o := outcome{row: r}
	progress("%s\n", r.name)
	var err error
	if r.input.name, err = b.input(ctx, r.input); err != nil {
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
		case try == 0 && r.a.Latency == 0 && r.pairs > 1: // slow ones hardly ask the broker for anything
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
	return o, nil
}

// pair measures both sides once.
func (r row) pair(ctx context.Context, b *bed, check bool) (first, second result, err error) {
	if r.together {
		var group errgroup.Group
		group.Go(func() (err error) {
			first, err = r.once(ctx, b, r.a, check)
			return err
		})
		group.Go(func() (err error) {
			second, err = r.once(ctx, b, *r.b, check)
			return err
		})
		err = group.Wait()
		first.Broker, second.Broker = 0, 0 // nobody knows for whom
		return first, second, err
	}
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
	j.Brokers, j.In = b.brokers, r.input.name
	j.Out = fmt.Sprintf("out-%d", time.Now().UnixNano())
	j.Group, j.Profile = j.Out, b.profiles
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
		url, _, end, err := startSelf(ctx, workerCommand, "http")
		if err != nil {
			return result{}, err
		}
		defer end()
		j.URL = url
	}
	j.Size, j.Codec = r.input.size, r.input.codec
	if err := b.create(ctx, j.Out, r.input.partitions); err != nil {
		return result{}, err
	}
	before, err := b.brokerCPU()
	if err != nil {
		return result{}, err
	}
	measured, err := j.spawn(ctx)
	if err != nil {
		return result{}, err
	}
	after, err := b.brokerCPU()
	if err != nil {
		return result{}, err
	}
	measured.Broker = after - before
	if j.Most == 0 && j.By != byPool && j.By != byPlain && (check || j.By == "" && j.Latency > 0) {
		if err := b.verify(ctx, j.Out, want, j.ExactlyOnce || j.By == bySession); err != nil {
			return result{}, err
		}
	}
	return measured, b.remove(ctx, j.Out)
}

// ratios are the speeds of the pairs compared, ascending; costs their CPU times a record.
func (o outcome) ratios() []float64 { return o.compare(result.rate) }
func (o outcome) costs() []float64  { return o.compare(result.cpu) }

func (o outcome) compare(of func(result) float64) []float64 {
	var ratios []float64
	for i := range o.as {
		ratios = append(ratios, of(o.as[i])/of(o.bs[i]))
	}
	slices.Sort(ratios)
	return ratios
}

// allocs are those a record of the first side, ascending.
func (o outcome) allocs() []float64 {
	var allocs []float64
	for _, r := range o.as {
		allocs = append(allocs, r.allocs())
	}
	slices.Sort(allocs)
	return allocs
}

func (o outcome) missed() bool {
	return judge(o.ratios(), o.bar, 0) == missed ||
		o.mostCPU > 0 && judge(o.costs(), 0, o.mostCPU) == missed ||
		judge(o.allocs(), 0, o.mostAllocs) == missed
}

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
