//go:build synctests

package processor_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

// gateIn is gate for one partition.
func gateIn(partition int32, offset int64, open <-chan struct{}) processor.Transform {
	shut := gate(offset, open)
	return processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
		if in.Partition == partition {
			return shut.Transform(ctx, in, out)
		}
		return passOn(ctx, in, out)
	})
}

// A partition whose window is full is not fetched until it has room; others flow
// meanwhile, and nothing is lost or comes in another order.
func TestFullWindowPausesItsPartitionAlone(t *testing.T) {
	const partitions, records, window = 3, 1000, 50
	virtual(t, partitions, func(b *bed) {
		commits := b.watchCommits()
		opts := b.options()
		opts.Window.Records = window
		open := make(chan struct{})
		r := b.run(opts, gateIn(0, 10, open))
		b.produceToAll(partitions, 0, records/2)
		b.produceToAll(partitions, records/2, records)
		b.eventually("the other partitions are done", func() bool { return b.committed(1) == records && b.committed(2) == records })
		<-time.After(time.Minute)
		for _, p := range b.status(r).Partitions {
			stuck := p.Partition == 0
			if p.Paused != stuck || (p.SpilledRecords > 0) != stuck || p.WindowRecords > window {
				b.t.Errorf("partition %d: paused %v with %d records in the window and %d spilled", p.Partition, p.Paused, p.WindowRecords, p.SpilledRecords)
			}
		}
		if at := b.committed(0); at != 10 {
			b.t.Errorf("the stuck partition is committed at %d, want 10", at)
		}
		close(open)
		b.caughtUp(partitions)
		for _, p := range b.status(r).Partitions {
			if p.Paused || p.SpilledRecords != 0 || p.WindowRecords != 0 {
				b.t.Errorf("partition %d: paused %v with %d records in the window and %d spilled at the end", p.Partition, p.Paused, p.WindowRecords, p.SpilledRecords)
			}
		}
		b.stop(r)
		for p := range int32(partitions) {
			b.inOrder(p, 0, records)
		}
		commits.holds(b, partitions)
	})
}

// The client keeps a pause over a loss and a new assignment; the new tenure must
// not.
func TestPauseEndsWithItsTenure(t *testing.T) {
	const records = 300
	virtual(t, 1, func(b *bed) {
		opts := b.options()
		opts.Window.Records = 20
		var stuck atomic.Int64
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			if in.Offset == 10 && stuck.Add(1) == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return passOn(ctx, in, out)
		}))
		b.produce("in", 0, 0, records)
		b.eventually("the partition is paused", func() bool { s := b.status(r); return len(s.Partitions) == 1 && s.Partitions[0].Paused })
		thrownOut(b, opts)
		b.caughtUp(1)
		b.stop(r)
		b.firstInOrder(0, records)
	})
}

// One stuck partition of eight takes its share of Window.Bytes and no more.
func TestStuckPartitionLeavesTheOthersTheirBytes(t *testing.T) {
	const partitions, records, size = 8, 200, 10 << 10
	const limit, fetch = 1 << 20, 128 << 10
	virtual(t, partitions, func(b *bed) {
		opts := b.options()
		opts.Window.Bytes = limit
		opts.Client = append(slices.Clone(opts.Client), kgo.FetchMaxBytes(fetch), kgo.FetchMaxPartitionBytes(fetch))
		open := make(chan struct{})
		r := b.run(opts, gateIn(0, 0, open))
		noise := rand.NewChaCha8([32]byte{}) // does not compress
		for range records / 5 {              // small batches, which are never split
			var input []*kgo.Record
			for i := range int32(5 * partitions) {
				value := make([]byte, size)
				_, _ = noise.Read(value)
				input = append(input, &kgo.Record{Topic: "in", Partition: i % partitions, Value: value})
			}
			b.write(input...)
		}
		b.eventually("the other partitions are done", func() bool {
			s := b.status(r)
			// What a fetch brings comes on top until it is admitted, and outputs, which
			// are as large as the inputs here, when they are made.
			if s.WindowBytes > 2*limit+2*fetch {
				b.t.Fatalf("the pipeline holds %d bytes, the limit is %d", s.WindowBytes, limit)
			}
			for p := int32(1); p < partitions; p++ {
				if b.committed(p) != records {
					return false
				}
			}
			return true
		})
		if s := b.status(r).Partitions[0]; s.WindowBytes > 2*(limit/2+limit/partitions/2)+2*fetch || !s.Paused {
			b.t.Errorf("the stuck partition holds %d bytes, paused %v", s.WindowBytes, s.Paused)
		}
		close(open)
		b.caughtUp(partitions)
		if s := b.status(r); s.WindowBytes != 0 {
			b.t.Errorf("the pipeline holds %d bytes at the end, want 0", s.WindowBytes)
		}
		b.stop(r)
	})
}

// A partition whose last records were filtered holds nothing any more, so that others may have the shared
// half of Window.Bytes.
func TestFilteredRecordsGiveTheirBytesBack(t *testing.T) {
	const each, size = 100, 7000
	virtual(t, 2, func(b *bed) {
		opts := b.options()
		opts.Window = processor.Window{Records: 1000, Bytes: 1 << 20}
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, _ *processor.Outputs) error {
			switch {
			case in.Partition == 1:
				<-ctx.Done()
			case in.Offset == 0:
				<-time.After(500 * time.Millisecond)
			}
			return ctx.Err()
		}))
		fill := func(p int32) {
			var records []*kgo.Record
			for range each {
				records = append(records, &kgo.Record{Topic: "in", Partition: p, Value: make([]byte, size)})
			}
			b.write(records...)
		}
		<-time.After(time.Second)
		fill(0)
		b.eventually("the first partition is done", func() bool { return b.committed(0) == each })
		fill(1)
		<-time.After(time.Second)
		if got := b.status(r).Partitions[1].WindowRecords; got != each {
			b.t.Errorf("the other partition has %d records in its window, want %d: nothing else holds any bytes", got, each)
		}
	})
}

// Nor does a partition take more than its share that waits at a record whose output its topic does not take: those
// behind it are released, but none of them leaves.
func TestHeldOutputLeavesTheOthersTheirBytes(t *testing.T) {
	const limit, size = 1 << 20, 7000
	virtual(t, 2, func(b *bed) {
		largest(b, "out")
		opts := b.options()
		opts.Window = processor.Window{Records: 1000, Bytes: limit}
		r := b.run(opts, processor.TransformFunc(func(_ context.Context, in processor.Input, out *processor.Outputs) error {
			if in.Offset == 0 {
				out.Add(large())
			}
			return nil
		}))
		b.produce("in", 0, 0, 1)
		b.eventually("it is held", func() bool { return strings.Contains(b.problem(r, "in/0"), "is held") })
		<-time.After(2 * time.Second)
		for range limit / size {
			b.write(&kgo.Record{Topic: "in", Partition: 0, Value: make([]byte, size)})
		}
		<-time.After(time.Second)
		if p := b.status(r).Partitions[0]; p.WindowRecords > limit/4/size+1 || p.SpilledRecords == 0 {
			b.t.Errorf("it has %d records in its window, and %d spilled, want a quarter of window.bytes at the most", p.WindowRecords, p.SpilledRecords)
		}
	})
}

// However many partitions have a backlog: what is fetched of all of them before they are
// paused stays near Window.Bytes.
func TestFetchesOfManyPartitions(t *testing.T) {
	const partitions, records, limit = 50, 5000, 1 << 20
	virtual(t, partitions, func(b *bed) {
		for i := range records / 200 { // batches are never split
			b.produceToAll(partitions, i*200, (i+1)*200)
		}
		opts := b.options()
		opts.Window.Bytes = limit
		open := make(chan struct{})
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			select {
			case <-open:
			case <-ctx.Done():
			}
			return passOn(ctx, in, out)
		}))
		paused := func() bool {
			s := b.status(r)
			return len(s.Partitions) == partitions && !slices.ContainsFunc(s.Partitions, func(p processor.PartitionStatus) bool { return !p.Paused })
		}
		b.eventually("all partitions are paused", paused)
		<-time.After(time.Minute)
		// Numbers compress well: 16 KiB are a thousand records or two.
		if held := b.status(r).WindowBytes; held > 24*limit {
			b.t.Errorf("the pipeline holds %d bytes, the limit is %d", held, limit)
		}
		close(open)
		b.caughtUp(partitions)
		b.stop(r)
	})
}

// Transforms of one partition take far longer than those of the others, which keep
// at least 80 % of the speed that their share of the workers allows.
func TestSlowPartitionDelaysItselfAlone(t *testing.T) {
	const partitions, workers, records = 4, 16, 400
	virtual(t, partitions, func(b *bed) {
		opts := b.options()
		opts.Workers = workers
		b.produceToAll(partitions, 0, records)
		began := time.Now()
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			takes := 10 * time.Millisecond
			if in.Partition == 0 {
				takes = 20 * time.Second
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(takes):
			}
			return passOn(ctx, in, out)
		}))
		b.step = time.Millisecond
		b.eventually("the other partitions are done", func() bool {
			return b.end("out", 1) == records && b.end("out", 2) == records && b.end("out", 3) == records
		})
		ideal := records / (workers / partitions) * 10 * time.Millisecond
		if took := time.Since(began); took > ideal*10/8 {
			b.t.Errorf("it took %v, want at most %v", took, ideal*10/8)
		}
		_ = r.stop() // abandons the slow ones
	})
}

// All transforms of a partition hang while the others have nothing to do, so it has
// every worker. When something comes for the others, they get their share of the
// workers at once, and what is cancelled for them uses up no attempts.
func TestHangingPartitionGivesWorkersBack(t *testing.T) {
	const workers, records, timeout = 16, 400, 10 * time.Second
	for name, obeys := range map[string]bool{"a transform that obeys": true, "one that does not": false} {
		t.Run(name, func(t *testing.T) {
			virtual(t, 2, func(b *bed) {
				opts := b.options()
				opts.Workers = workers
				opts.Retry.Attempts = 10
				var hangs atomic.Bool
				hangs.Store(true)
				var last atomic.Int32
				r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
					takes := 10 * time.Millisecond
					if in.Partition == 0 {
						last.Store(max(last.Load(), int32(in.Attempt)))
						if hangs.Load() {
							takes = timeout
						}
						if !obeys {
							ctx = context.WithoutCancel(ctx)
						}
					}
					select {
					case <-ctx.Done():
						return ctx.Err()
					case <-time.After(takes):
						if takes == timeout {
							return context.DeadlineExceeded
						}
					}
					return passOn(ctx, in, out)
				}))
				b.caughtUp(2)
				b.produce("in", 0, 0, records)
				b.eventually("it has every worker", func() bool { return b.status(r).WorkersBusy == workers })
				<-time.After(time.Second)
				b.produce("in", 1, 0, records)
				began := time.Now()
				b.step = time.Millisecond
				b.eventually("the other partition is done", func() bool { return b.end("out", 1) == records })
				took, ideal := time.Since(began), records/(workers/2)*10*time.Millisecond
				if obeys && took > ideal*10/8+500*time.Millisecond {
					b.t.Errorf("it took %v, want at most %v", took, ideal*10/8+500*time.Millisecond)
				}
				hangs.Store(false)
				b.caughtUp(2)
				if n := last.Load(); obeys && n > 2 {
					b.t.Errorf("the last attempt was number %d, want 2 at most", n)
				}
				b.stop(r)
				b.inOrder(0, 0, records)
			})
		})
	}
}
