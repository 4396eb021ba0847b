//go:build synctests

package processor_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"seriatim/processor"
)

// A worker whose deployment is wrong is asked one record at a time, later and
// later, from alternating partitions. Attempts do not count, and all goes on when
// it is mended.
func TestOutagePausesDispatchAndProbes(t *testing.T) {
	const outage = 2 * time.Minute
	virtual(t, 2, func(b *bed) {
		opts := b.options()
		opts.Retry.Attempts = 1
		opts.Workers = 8
		mended := time.Now().Add(outage)
		var mu sync.Mutex
		type probe struct {
			at        time.Time
			partition int32
		}
		var probes []probe
		b.produceToAll(2, 0, 100)
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			if in.Attempt != 1 {
				b.t.Errorf("offset %d has attempt %d", in.Offset, in.Attempt)
			}
			if time.Now().After(mended) {
				return passOn(ctx, in, out)
			}
			mu.Lock()
			defer mu.Unlock()
			probes = append(probes, probe{time.Now(), in.Partition})
			return &processor.Failure{Kind: processor.Deployment, Err: errors.New("404 no such route")}
		}))
		<-time.After(outage / 2)
		if reason := b.problem(r, "transform"); !strings.Contains(reason, "404 no such route") {
			b.t.Errorf("the problem of the transform is %q", reason)
		}
		b.caughtUp(2)
		if s := b.status(r); len(s.Problems) != 0 || s.Attempts["deployment"] != uint64(len(probes)) {
			b.t.Errorf("problems are %v, attempts %v with %d in the outage", s.Problems, s.Attempts, len(probes))
		}
		// The first attempts were dispatched before anybody knew.
		first := 0
		for first < len(probes) && probes[first].at.Sub(probes[0].at) < 500*time.Millisecond {
			first++
		}
		if first > opts.Workers {
			b.t.Errorf("%d attempts ran at once before the outage was known, with %d workers", first, opts.Workers)
		}
		probes = probes[first:]
		if n := len(probes); n < 20 || n > 40 {
			b.t.Errorf("%d probes in %v, want one each five seconds after the first few", n, outage)
		}
		for i := 1; i < len(probes); i++ {
			if wait := probes[i].at.Sub(probes[i-1].at); wait < time.Second || wait > 6*time.Second {
				b.t.Errorf("probe %d came %v after the one before", i, wait)
			}
			if probes[i].partition == probes[i-1].partition {
				b.t.Errorf("probes %d and %d are both of partition %d", i-1, i, probes[i].partition)
			}
		}
		b.stop(r)
		for p := range int32(2) {
			b.inOrder(p, 0, 100)
		}
	})
}

// One record alone gets the answer that blames the deployment: it is the record,
// which is rejected, and the others are let through.
func TestRecordThatAloneMeetsAnOutageIsRejected(t *testing.T) {
	virtual(t, 3, func(b *bed) {
		opts := b.options()
		opts.OnExhausted = processor.Stop
		b.produceToAll(3, 0, 100)
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			if in.Partition == 1 && in.Offset == 30 {
				return &processor.Failure{Kind: processor.Deployment, Err: errors.New("405")}
			}
			return passOn(ctx, in, out)
		}))
		b.eventually("the others are done", func() bool { return b.committed(0) == 100 && b.committed(2) == 100 })
		b.produce("in", 2, 100, 110) // if all else was done before, there is somebody to compare with
		b.eventually("the partition is stopped at the record", func() bool {
			p := b.status(r).Partitions[1]
			return strings.Contains(p.Stopped, "offset 30 alone gets this answer: 405") && b.committed(1) == 30
		})
		if reason := b.problem(r, "transform"); reason != "" {
			b.t.Errorf("the transform still has the problem %q", reason)
		}
		b.inOrder(1, 0, 30)
	})
}

// Without another record to compare with, the suspect is never rejected.
func TestLoneSuspectIsProbedForEver(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		opts := b.options()
		opts.Retry.Attempts = 1
		b.produce("in", 0, 0, 1)
		mended := time.Now().Add(30 * time.Minute)
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			if time.Now().Before(mended) {
				return &processor.Failure{Kind: processor.Deployment, Err: errors.New("404")}
			}
			return passOn(ctx, in, out)
		}))
		b.caughtUp(1)
		if late := time.Since(mended); late > 10*time.Second {
			b.t.Errorf("it was done %v after the worker was mended", late)
		}
		b.stop(r)
	})
}

// The partition of the suspect is lost amid an outage, between two probes or while
// one runs: the next assignment finds out by itself.
func TestOutageEndsWithTheTenureOfItsSuspect(t *testing.T) {
	for _, test := range []struct {
		when    string
		hanging bool
	}{{"between probes", false}, {"while a probe runs", true}} {
		t.Run(test.when, func(t *testing.T) {
			virtual(t, 1, func(b *bed) {
				b.produce("in", 0, 0, 20)
				opts := b.options()
				opts.Workers = 1
				mended := time.Now().Add(2 * time.Minute)
				var calls atomic.Int64
				r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
					if time.Now().After(mended) {
						return passOn(ctx, in, out)
					}
					if calls.Add(1) == 2 && test.hanging { // the first probe
						<-ctx.Done()
					}
					return &processor.Failure{Kind: processor.Deployment, Err: errors.New("404")}
				}))
				<-time.After(20 * time.Second)
				thrownOut(b, opts)
				b.caughtUp(1)
				if late := time.Since(mended); late > 10*time.Second {
					b.t.Errorf("it was done %v after the worker was mended", late)
				}
				b.stop(r)
				b.inOrder(0, 0, 20)
			})
		})
	}
}
