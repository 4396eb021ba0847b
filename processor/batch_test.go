//go:build synctests

package processor_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

// A batchFunc takes batches, and nothing else.
type batchFunc func(ctx context.Context, items []processor.Item) error

func (f batchFunc) TransformBatch(ctx context.Context, items []processor.Item) error {
	return f(ctx, items)
}

func (batchFunc) Transform(context.Context, processor.Input, *processor.Outputs) error {
	return errors.New("called with one record beside batches")
}

// passAll answers all items with their records.
func passAll(ctx context.Context, items []processor.Item) error {
	for i := range items {
		items[i].Answer(passOn(ctx, items[i].Input, &items[i].Outputs))
	}
	return nil
}

// A batchLog records calls.
type batchLog struct {
	mu          sync.Mutex
	sizes       []int
	began       []time.Time
	now, most   int                     // calls at the same time
	others      []bool                  // calls that are not of partition 0
	attempts    map[int32]map[int64]int // by partition and offset, the most
	unsorted    bool
	otherSource bool
}

func (l *batchLog) begin(items []processor.Item) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sizes = append(l.sizes, len(items))
	l.began = append(l.began, time.Now())
	l.now++
	l.most = max(l.most, l.now)
	p := items[0].Partition
	l.others = append(l.others, p != 0)
	if l.attempts == nil {
		l.attempts = make(map[int32]map[int64]int)
	}
	if l.attempts[p] == nil {
		l.attempts[p] = make(map[int64]int)
	}
	for i := range items {
		l.attempts[p][items[i].Offset] = max(l.attempts[p][items[i].Offset], items[i].Attempt)
		if i > 0 {
			l.unsorted = l.unsorted || items[i].Offset <= items[i-1].Offset
			l.otherSource = l.otherSource || items[i].Partition != p
		}
	}
}

func (l *batchLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now--
}

func (l *batchLog) calls() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.sizes)
}

// logged is transform with its calls in log, each of which takes so long.
func logged(log *batchLog, takes time.Duration, transform batchFunc) batchFunc {
	return func(ctx context.Context, items []processor.Item) error {
		log.begin(items)
		defer log.end()
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return ctx.Err()
		}
		return transform(ctx, items)
	}
}

// One call settles the thousand, and several of a partition run at the same time.
func TestOneCallSettlesABatch(t *testing.T) {
	const records, size = 8000, 1000
	for _, exactlyOnce := range []bool{false, true} {
		virtual(t, 1, func(b *bed) {
			var log batchLog
			opts := b.options()
			opts.ExactlyOnce = exactlyOnce
			opts.Batch = processor.Batch{Records: size, Wait: time.Minute}
			b.produce("in", 0, 0, records)
			r := b.run(opts, logged(&log, time.Second, passAll))
			b.eventually("all is settled", func() bool {
				s := b.status(r)
				return len(s.Partitions) == 1 && s.Partitions[0].Settled == records
			})
			if !slices.Equal(log.sizes, slices.Repeat([]int{size}, records/size)) {
				b.t.Errorf("the calls had %d records, want %d of %d", log.sizes, records/size, size)
			}
			if log.most < 4 || log.unsorted || log.otherSource {
				b.t.Errorf("%d calls ran at the same time, want several; unsorted: %v, of several partitions: %v", log.most, log.unsorted, log.otherSource)
			}
			if s := b.status(r); s.Attempts["ok"] != records {
				b.t.Errorf("attempts are %v, want one ok for each record", s.Attempts)
			}
			b.stop(r)
			b.inOrder(0, 0, records)
		})
	}
}

// Records wait for others, but never longer than they may, and without a worker.
func TestBatchWaitsAndNotForLonger(t *testing.T) {
	const wait = 10 * time.Second
	virtual(t, 2, func(b *bed) {
		var log batchLog
		opts := b.options()
		opts.Workers = 1
		opts.Batch = processor.Batch{Records: 100, Wait: wait}
		r := b.run(opts, logged(&log, 0, passAll))
		b.eventually("it has its partitions", func() bool { return len(b.status(r).Partitions) == 2 })
		began := time.Now()
		b.produce("in", 0, 0, 10)
		<-time.After(wait / 2)
		b.produce("in", 0, 10, 20)
		b.produce("in", 1, 0, 100)
		b.eventually("a full batch of another partition has not waited", func() bool { return b.committed(1) == 100 })
		if took := time.Since(began); took > wait*3/4 {
			b.t.Errorf("it took until %v after the first record", took)
		}
		b.eventually("the records have waited", func() bool { return log.calls() == 2 })
		if waited := log.began[1].Sub(began); log.sizes[1] != 20 || waited < wait || waited > wait+500*time.Millisecond {
			b.t.Errorf("%d records went after %v, want 20 after %v", log.sizes[1], waited, wait)
		}
		second := time.Now()
		b.produce("in", 0, 20, 21)
		b.caughtUp(2)
		if waited := log.began[2].Sub(second); waited < wait || waited > wait+500*time.Millisecond {
			b.t.Errorf("the next record went after %v, want %v", waited, wait)
		}
		b.stop(r)
		b.inOrder(0, 0, 21)
	})
}

// A batch is full when it has its bytes; a record with more than these goes alone.
func TestBatchIsFullByBytes(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		var log batchLog
		opts := b.options()
		opts.Workers = 1
		opts.Batch = processor.Batch{Records: 1000, Wait: time.Hour, Bytes: 1000}
		var records int
		for _, size := range []int{300, 300, 300, 300, 300, 300, 5000, 900, 94} { // and 3 of each key
			b.write(&kgo.Record{Topic: "in", Key: []byte("key"), Value: bytes.Repeat([]byte("x"), size)})
			records++
		}
		r := b.run(opts, logged(&log, 0, passAll))
		b.caughtUp(1)
		if want := []int{3, 3, 1, 2}; !slices.Equal(log.sizes, want) {
			b.t.Errorf("the calls had %d records, want %d", log.sizes, want)
		}
		b.stop(r)
		if n := len(b.values("out", 0)); n != records {
			b.t.Errorf("%d outputs, want %d", n, records)
		}
	})
}

// What a window cannot hold is not waited for.
func TestWindowSmallerThanABatch(t *testing.T) {
	for _, window := range []processor.Window{{Records: 100}, {Bytes: 100 * 300}} {
		virtual(t, 1, func(b *bed) {
			const wait, records = 15 * time.Second, 1000
			var log batchLog
			opts := b.options()
			opts.Window = window
			opts.Batch = processor.Batch{Records: records, Wait: wait}
			b.produce("in", 0, 0, records)
			r := b.run(opts, logged(&log, 0, passAll))
			began := time.Now()
			b.caughtUp(1)
			if took := time.Since(began); took > 2*wait { // what is left at the end waits
				b.t.Errorf("it took %v, with calls of %d", took, log.sizes)
			}
			b.stop(r)
			b.inOrder(0, 0, records)
		})
	}
}

// One record fails every batch that it is in, in whatever way: it alone is exhausted, in
// few calls, and all others leave in order.
func TestPoisonIsIsolated(t *testing.T) {
	const records, poison = 1000, 637
	failures := map[string]func() error{
		"retry":      func() error { return errors.New("500 for all") },
		"reject":     func() error { return &processor.Failure{Kind: processor.Reject, Err: errors.New("422 for all")} },
		"deployment": func() error { return &processor.Failure{Kind: processor.Deployment, Err: errors.New("404 for all")} },
		"panic":      func() error { panic("for all") },
		"silent":     func() error { return nil },
	}
	for what, fail := range failures {
		for _, attempts := range []int{1, 2, 5, 50} {
			t.Run(what+strconv.Itoa(attempts), func(t *testing.T) {
				stateful(t, 2, func(b *bed) {
					var log batchLog
					opts := b.options()
					if attempts == 5 {
						opts.StateTopic = "state"
					}
					opts.Batch = processor.Batch{Records: records, Wait: time.Second}
					opts.Retry.Attempts = attempts
					opts.OnExhausted, opts.DeadLetterTopic = processor.DeadLetter, "dead"
					b.create("dead", 1, nil)
					b.produce("in", 0, 0, records)
					b.produce("in", 1, 0, 20)
					r := b.run(opts, logged(&log, 0, func(ctx context.Context, items []processor.Item) error {
						for i := range items {
							if items[i].Partition == 0 && items[i].Offset == poison {
								if what == "silent" { // what comes before it is answered
									_ = passAll(ctx, items[:i])
								}
								return fail()
							}
						}
						return passAll(ctx, items)
					}))
					// An outage needs somebody to compare with.
					for n := 20; b.committed(0) != records; n++ {
						b.produce("in", 1, n, n+1)
						<-time.After(time.Second)
					}
					b.stop(r)
					var want []string
					for i := range records {
						if i != poison {
							want = append(want, strconv.Itoa(i))
						}
					}
					if got := b.values("out", 0); !slices.Equal(got, want) {
						b.t.Errorf("the output has %d records, want %d: all but the poison", len(got), len(want))
					}
					if dead := b.values("dead", 0); !slices.Equal(dead, []string{strconv.Itoa(poison)}) {
						b.t.Errorf("dead letters are %q, want the poison alone", dead)
					}
					calls, most := 0, 32+attempts // 1 of 1000, 10 of 100, 10 of 10, 10 alone, those of the other partition
					if what == "deployment" {
						most += 6 // two probes each time
					}
					if opts.StateTopic != "" {
						most += 10 // a batch goes with those whose counts are acknowledged by then
					}
					for i := range log.sizes {
						if !log.others[i] {
							calls++
						}
					}
					if calls > most || log.attempts[0][poison] != max(attempts, 4) && what != "reject" && what != "deployment" {
						b.t.Errorf("%d calls, %d attempts at the poison; want %d calls at most: %d", calls, log.attempts[0][poison], most, log.sizes)
					}
					delete(log.attempts[0], poison)
					for offset, n := range log.attempts[0] {
						if n > 4 {
							b.t.Errorf("offset %d had %d attempts, want 4 at most", offset, n)
						}
					}
				})
			})
		}
	}
}

// Answers by record are each their own: retries go together, rejects are exhausted at once,
// and nobody's company gets smaller.
func TestEachRecordOfABatchHasItsAnswer(t *testing.T) {
	const records = 1000
	virtual(t, 1, func(b *bed) {
		var log batchLog
		opts := b.options()
		opts.Batch = processor.Batch{Records: records, Wait: time.Second}
		opts.OnExhausted = processor.Drop
		b.produce("in", 0, 0, records)
		r := b.run(opts, logged(&log, 0, func(ctx context.Context, items []processor.Item) error {
			for i := range items {
				item := &items[i]
				switch {
				case item.Offset%10 == 3 && item.Attempt < 3:
					item.Answer(errors.New("busy"))
				case item.Offset%100 == 7:
					item.Answer(&processor.Failure{Kind: processor.Reject, Err: errors.New("no JSON")})
				case item.Offset%100 == 8:
					item.Answer(nil)
				default:
					item.Answer(passOn(ctx, item.Input, &item.Outputs))
				}
			}
			return nil
		}))
		b.caughtUp(1)
		if want := []int{1000, 100, 100}; !slices.Equal(log.sizes, want) {
			b.t.Errorf("the calls had %d records, want %d", log.sizes, want)
		}
		s := b.status(r)
		if p := s.Partitions[0]; s.Attempts["retry"] != 200 || s.Attempts["reject"] != 10 || s.Attempts["filter"] != 10 || p.Dropped != 10 || p.Filtered != 10 {
			b.t.Errorf("attempts are %v, %d dropped, %d filtered", s.Attempts, p.Dropped, p.Filtered)
		}
		b.stop(r)
		var want []string
		for i := range records {
			if i%100 != 7 && i%100 != 8 {
				want = append(want, strconv.Itoa(i))
			}
		}
		if got := b.values("out", 0); !slices.Equal(got, want) {
			b.t.Errorf("the output has %d records, want %d in order", len(got), len(want))
		}
	})
}

// A worker that is out of reach says nothing about any record: batches stay as large.
func TestBatchesSurviveAnOutage(t *testing.T) {
	const records = 4000
	virtual(t, 1, func(b *bed) {
		var log batchLog
		opts := b.options()
		opts.Retry.Attempts = 1
		opts.Batch = processor.Batch{Records: 1000, Wait: time.Second}
		mended := time.Now().Add(time.Minute)
		b.produce("in", 0, 0, records)
		r := b.run(opts, logged(&log, 0, func(ctx context.Context, items []processor.Item) error {
			if time.Now().Before(mended) {
				return &processor.Failure{Kind: processor.Deployment, Unsent: true, Err: errors.New("refused")}
			}
			return passAll(ctx, items)
		}))
		b.caughtUp(1)
		after := 0
		for i, at := range log.began {
			if !at.Before(mended) {
				after++
			} else if i >= 4 && log.sizes[i] != 1 {
				b.t.Errorf("call %d of the outage had %d records, want one", i, log.sizes[i])
			}
		}
		if after > 7 { // a probe, four batches less one record, the rest
			b.t.Errorf("%d calls after the outage: %d", after, log.sizes)
		}
		b.stop(r)
		b.inOrder(0, 0, records)
	})
}

// A record that waits for a fuller batch when its partition goes is left to the next tenure.
func TestRevokeAmidAWait(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		var log batchLog
		opts := b.options()
		opts.Batch = processor.Batch{Records: 100, Wait: 20 * time.Second}
		first := b.run(opts, logged(&log, 0, passAll))
		b.produce("in", 0, 0, 10)
		b.eventually("the records are there", func() bool {
			s := b.status(first)
			return len(s.Partitions) == 1 && s.Partitions[0].WindowRecords == 10
		})
		b.stop(first)
		if log.calls() != 0 {
			b.t.Errorf("there were calls of %d records before the wait was over", log.sizes)
		}
		b.run(opts, logged(&log, 0, passAll))
		b.caughtUp(1)
		b.inOrder(0, 0, 10)
	})
}

// jitterBatch is jitter for batches: some fail as a whole, some leave records out, some
// records fail by themselves.
func jitterBatch(seed uint64, most time.Duration) batchFunc {
	single := jitter(seed, most)
	return func(ctx context.Context, items []processor.Item) error {
		rng := rand.New(rand.NewPCG(seed, uint64(items[0].Offset)<<16|uint64(items[0].Attempt)))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(upTo(rng, most)):
		}
		if items[0].Attempt < 3 && rng.IntN(10) == 0 {
			return errors.New("a failure of all that passes")
		}
		order := rng.Perm(len(items))
		if items[0].Attempt < 3 && rng.IntN(10) == 0 {
			order = order[:rng.IntN(len(order))]
		}
		for _, i := range order {
			item := &items[i]
			item.Answer(single.Transform(ctx, item.Input, &item.Outputs))
		}
		return nil
	}
}

// Whoever joins, leaves or is thrown out: batches keep the promises of both ways to deliver.
func TestBatchesUnderChurn(t *testing.T) {
	plans(t, 8, func(t *testing.T, rng *rand.Rand) {
		for _, exactlyOnce := range []bool{false, true} {
			partitions := 1 + rng.Int32N(4)
			virtual(t, partitions, func(b *bed) {
				c := newChurn(b, rng, partitions)
				c.exactlyOnce = exactlyOnce
				c.drain = time.Duration(1+rng.IntN(10)) * time.Second
				c.batch = processor.Batch{Records: 1 + rng.IntN(50), Wait: upTo(rng, 2*time.Second), Bytes: 1 + rng.Int64N(500)}
				c.transform = jitterBatch(rng.Uint64(), 100*time.Millisecond)
				if rng.IntN(2) == 0 {
					b.create("state", 3, compact)
					c.state = "state"
				}
				c.disturb(2)
				if exactlyOnce {
					for p := range partitions {
						b.inOrder(p, 0, c.produced[p])
					}
				}
			})
		}
	})
}

// A batch behind which the window can take no more does not wait for others, also where it has come to
// that only when those before it had settled.
func TestBatchThatCanTakeNoMore(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		records := numbered("in", 0, 0, 4)
		records[3].Value = []byte(strings.Repeat("x", 5000))
		b.write(records...)
		opts := b.options()
		opts.Window = processor.Window{Records: 2, Bytes: 4096}
		opts.Batch = processor.Batch{Records: 10, Wait: 10 * time.Minute}
		b.run(opts, batchFunc(func(_ context.Context, items []processor.Item) error {
			for i := range items {
				if items[i].Offset > 0 {
					items[i].Add(items[i].Value)
				}
				items[i].Answer(nil)
			}
			return nil
		}))
		b.eventually("the large one is in the window", func() bool { return b.committed(0) >= 2 })
		b.patience = time.Minute
		b.eventually("it is done", func() bool { return b.committed(0) >= 3 })
	})
}

// A batch is not hedged, and needs a transform that takes it.
func TestBatchOptions(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		opts := b.options()
		opts.Batch.Records = 10
		if _, err := processor.New(opts, processor.TransformFunc(passOn)); err == nil || !strings.Contains(err.Error(), "BatchTransform") {
			b.t.Errorf("a transform of single records: %v", err)
		}
		opts.Hedge.After = time.Second
		if _, err := processor.New(opts, batchFunc(passAll)); err == nil || !strings.Contains(err.Error(), "Hedge") {
			b.t.Errorf("hedges with batches: %v", err)
		}
	})
}
