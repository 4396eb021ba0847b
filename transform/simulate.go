package transform

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"time"

	"seriatim/processor"
)

// SimulateOptions are the settings of [Simulate].
type SimulateOptions struct {
	// Latency is the mean time of an attempt. Zero or less takes no time.
	Latency time.Duration
	// Sigma is the standard deviation of the logarithm of the time, at least 0:
	// how far apart the times lie. With 0 every attempt takes Latency.
	Sigma float64
	// FailureRate is the share of attempts that fail, 0 to 1. They fail after
	// their time and ask for a retry.
	FailureRate float64
	// Seed chooses the times and failures. With the same seed the same attempt
	// (topic, partition, offset, number) takes the same time and fares the same.
	Seed int64
}

// Simulate returns a transform that takes a log-normal time, as calls of a
// service do, and then passes the record on as [Pass] does.
func Simulate(opts SimulateOptions) processor.Transform {
	if opts.Latency <= 0 && opts.FailureRate <= 0 {
		return Pass()
	}
	return &simulation{
		SimulateOptions: opts,
		// The mean of a log-normal time is exp(mu + sigma²/2).
		mu: math.Log(float64(opts.Latency)) - opts.Sigma*opts.Sigma/2,
	}
}

type simulation struct {
	SimulateOptions
	mu float64 // of the logarithm of the time in nanoseconds
}

var errSimulated = &processor.Failure{
	Kind: processor.Retry,
	Err:  errors.New("simulated failure (simulate.failure_rate)"),
}

// Transform waits, then fails or passes the record on.
func (s *simulation) Transform(ctx context.Context, in processor.Input, out *processor.Outputs) error {
	latency, fails := s.draw(in)
	if err := wait(ctx, latency); err != nil {
		return err
	}
	if fails {
		return errSimulated
	}
	return pass(ctx, in, out)
}

// draw returns the fate of one attempt.
func (s *simulation) draw(in processor.Input) (latency time.Duration, fails bool) {
	random := rand.New(rand.NewPCG(uint64(s.Seed), s.place(in)))
	fails = random.Float64() < s.FailureRate
	if s.Latency <= 0 {
		return 0, fails
	}
	nanoseconds := math.Exp(s.mu + s.Sigma*random.NormFloat64())
	return time.Duration(min(nanoseconds, math.MaxInt64/2)), fails
}

// place is a hash (FNV-1a) of what names an attempt.
func (s *simulation) place(in processor.Input) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for i := range len(in.Topic) {
		h = (h ^ uint64(in.Topic[i])) * prime
	}
	for _, part := range [...]uint64{uint64(in.Partition), uint64(in.Offset), uint64(in.Attempt)} {
		for range 8 {
			h = (h ^ part&0xff) * prime
			part >>= 8
		}
	}
	return h
}

// wait returns after d, or earlier with the cause when ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
