//go:build synctests

package processor_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

// calls is a transform that records its calls. What a call takes, and its error, is by the
// offset of the record and the number of the call for it, from 1.
type calls struct {
	script func(offset int64, call int) (time.Duration, error)

	mu        sync.Mutex
	begun     map[int64]int
	attempts  map[int64][]int
	cancelled int
}

func newCalls(script func(offset int64, call int) (time.Duration, error)) *calls {
	return &calls{script: script, begun: make(map[int64]int), attempts: make(map[int64][]int)}
}

func (c *calls) Transform(ctx context.Context, in processor.Input, out *processor.Outputs) error {
	c.mu.Lock()
	c.begun[in.Offset]++
	c.attempts[in.Offset] = append(c.attempts[in.Offset], in.Attempt)
	takes, err := c.script(in.Offset, c.begun[in.Offset])
	c.mu.Unlock()
	select {
	case <-ctx.Done():
		c.mu.Lock()
		c.cancelled++
		c.mu.Unlock()
		return ctx.Err()
	case <-time.After(takes):
	}
	if err != nil {
		return err
	}
	return passOn(ctx, in, out)
}

func (c *calls) of(offset int64) []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.attempts[offset]
}

const hanging = time.Hour

// An attempt that runs for long gets a second one; the first answer wins and cancels
// the other.
func TestHedges(t *testing.T) {
	usual := 10 * time.Millisecond
	refused := errors.New("refused")
	hangs := func(offsets ...int64) func(int64, int) (time.Duration, error) {
		return func(offset int64, call int) (time.Duration, error) {
			for _, o := range offsets {
				if offset == o && call == 1 {
					return hanging, nil
				}
			}
			return usual, nil
		}
	}
	for _, test := range []struct {
		what      string
		hedge     processor.Hedges
		script    func(offset int64, call int) (time.Duration, error)
		calls     []int // attempt numbers of the calls for record 5
		took      time.Duration
		hedges    uint64
		cancelled int
	}{
		{
			"the head hangs",
			processor.Hedges{After: 2 * time.Second},
			hangs(5),
			[]int{1, 1},
			2 * time.Second, 1, 1,
		},
		{
			"the next head hangs too, and is hedged at once",
			processor.Hedges{After: 2 * time.Second},
			hangs(5, 9),
			[]int{1, 1},
			2 * time.Second, 2, 2,
		},
		{
			"not the head, but all are hedged",
			processor.Hedges{After: time.Second, All: true},
			func(offset int64, call int) (time.Duration, error) {
				switch {
				case offset == 0:
					return 900 * time.Millisecond, nil
				case offset == 5 && call == 1:
					return hanging, nil
				}
				return usual, nil
			},
			[]int{1, 1},
			time.Second, 1, 1,
		},
		{
			"the first attempt is answered first",
			processor.Hedges{After: 2 * time.Second},
			func(offset int64, call int) (time.Duration, error) {
				if offset == 5 {
					return 3 * time.Second, nil
				}
				return usual, nil
			},
			[]int{1, 1},
			3 * time.Second, 1, 1,
		},
		{
			"the first attempt fails while the second runs",
			processor.Hedges{After: 2 * time.Second},
			func(offset int64, call int) (time.Duration, error) {
				switch {
				case offset == 5 && call == 1:
					return 3 * time.Second, refused
				case offset == 5:
					return 3500 * time.Millisecond, nil
				}
				return usual, nil
			},
			[]int{1, 1, 1},
			5500 * time.Millisecond, 2, 1,
		},
		{
			"both fail: that was one attempt",
			processor.Hedges{After: 2 * time.Second},
			func(offset int64, call int) (time.Duration, error) {
				switch {
				case offset == 5 && call == 1:
					return 3500 * time.Millisecond, refused
				case offset == 5 && call == 2:
					return time.Second, refused
				}
				return usual, nil
			},
			[]int{1, 1, 2},
			3500 * time.Millisecond, 1, 0,
		},
		{
			"the second attempt hangs as well",
			processor.Hedges{After: 2 * time.Second},
			func(offset int64, call int) (time.Duration, error) {
				if offset == 5 && call <= 2 {
					return hanging, nil
				}
				return usual, nil
			},
			[]int{1, 1, 1},
			4 * time.Second, 2, 2,
		},
		{
			"a rejection is an answer",
			processor.Hedges{After: 2 * time.Second},
			func(offset int64, call int) (time.Duration, error) {
				switch {
				case offset == 5 && call == 1:
					return hanging, nil
				case offset == 5:
					return usual, &processor.Failure{Kind: processor.Reject, Err: refused}
				}
				return usual, nil
			},
			[]int{1, 1},
			2 * time.Second, 1, 1,
		},
		{
			"off",
			processor.Hedges{},
			func(offset int64, call int) (time.Duration, error) {
				if offset == 5 {
					return 20 * time.Second, nil
				}
				return usual, nil
			},
			[]int{1},
			20 * time.Second, 0, 0,
		},
	} {
		for _, exactlyOnce := range []bool{false, true} {
			t.Run(test.what, func(t *testing.T) {
				const records = 40
				virtual(t, 1, func(b *bed) {
					c := newCalls(test.script)
					opts := b.options()
					opts.Hedge = test.hedge
					opts.ExactlyOnce = exactlyOnce
					opts.OnExhausted = processor.Drop
					opts.Retry.Initial = time.Millisecond
					r := b.run(opts, c)
					b.eventually("the partition is assigned", func() bool { return len(b.status(r).Partitions) == 1 })
					b.step = time.Millisecond
					b.produce("in", 0, 0, records)
					began := time.Now()
					b.eventually("all is settled", func() bool { return b.status(r).Partitions[0].Settled == records })
					if took := time.Since(began); took < test.took || took > test.took+500*time.Millisecond {
						b.t.Errorf("it took %v, want %v", took, test.took)
					}
					s := b.status(r)
					if s.Hedges != test.hedges {
						b.t.Errorf("there were %d hedges, want %d", s.Hedges, test.hedges)
					}
					b.eventually("the beaten attempts have ended", func() bool { return b.status(r).WorkersBusy == 0 })
					if n := b.status(r).Attempts["cancelled"]; c.cancelled != test.cancelled || n != uint64(test.cancelled) {
						b.t.Errorf("%d attempts were cancelled and %d counted, want %d", c.cancelled, n, test.cancelled)
					}
					if got := c.of(5); !slices.Equal(got, test.calls) {
						b.t.Errorf("the calls for record 5 have the attempt numbers %v, want %v", got, test.calls)
					}
					b.stop(r)
					if s.Partitions[0].Dropped == 0 {
						b.inOrder(0, 0, records)
					}
				})
			})
		}
	}
}

// The budget bounds second attempts, whatever hangs.
func TestHedgeBudget(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		const records = 1000
		c := newCalls(func(offset int64, call int) (time.Duration, error) {
			if call == 1 && offset%4 == 0 {
				return 5 * time.Second, nil
			}
			return 10 * time.Millisecond, nil
		})
		opts := b.options()
		opts.Hedge = processor.Hedges{After: 100 * time.Millisecond, All: true, Budget: 0.05}
		began := time.Now()
		r := b.run(opts, c)
		b.produce("in", 0, 0, records)
		b.caughtUp(1)
		most := 1 + records/20 + uint64(time.Since(began)/(10*time.Second))
		if n := b.status(r).Hedges; n < 20 || n > most {
			b.t.Errorf("%d of %d records were hedged, want 20 to %d", n, records, most)
		}
		b.stop(r)
		b.inOrder(0, 0, records)
	})
}

// Where little happens the budget does not grow: a head that hangs is hedged all the same.
func TestHedgeWhereLittleHappens(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		c := newCalls(func(offset int64, call int) (time.Duration, error) {
			if call <= 2 {
				return hanging, nil
			}
			return 10 * time.Millisecond, nil
		})
		opts := b.options()
		opts.Hedge = processor.Hedges{After: time.Second, Budget: 0.001}
		r := b.run(opts, c)
		b.produce("in", 0, 0, 1)
		began := time.Now()
		b.caughtUp(1)
		if took := time.Since(began); took < 10*time.Second || took > 15*time.Second {
			b.t.Errorf("it took %v, want a second attempt after 1 s and a third one 10 s later", took)
		}
		b.stop(r)
		b.inOrder(0, 0, 1)
	})
}

// With a quantile the time after which attempts are hedged is learnt.
func TestHedgeQuantile(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		c := newCalls(func(offset int64, call int) (time.Duration, error) {
			if call == 1 && offset == 300 {
				return hanging, nil
			}
			return time.Duration(10+offset%10) * time.Millisecond, nil
		})
		opts := b.options()
		opts.Hedge = processor.Hedges{Quantile: 0.95, Budget: 1}
		r := b.run(opts, c)
		b.produce("in", 0, 0, 300)
		b.caughtUp(1)
		before := b.status(r).Hedges
		b.step = time.Millisecond
		began := time.Now()
		b.produce("in", 0, 300, 301)
		b.eventually("the record is settled", func() bool { return b.status(r).Partitions[0].Settled == 301 })
		if took := time.Since(began); took > 100*time.Millisecond {
			b.t.Errorf("it took %v", took)
		}
		if n := b.status(r).Hedges - before; n != 1 {
			b.t.Errorf("there were %d hedges, want 1", n)
		}
		b.stop(r)
		b.inOrder(0, 0, 301)
	})
}

// Hedges do not upset what else happens: members come and go, attempts hang and fail,
// and nothing is lost or overtaken.
func TestHedgesUnderChurn(t *testing.T) {
	plans(t, 6, func(t *testing.T, rng *rand.Rand) {
		partitions := 1 + rng.Int32N(4)
		virtual(t, partitions, func(b *bed) {
			c := newChurn(b, rng, partitions)
			c.drain = time.Second
			c.hedge = processor.Hedges{After: time.Millisecond + upTo(rng, 300*time.Millisecond), All: rng.IntN(2) == 0, Budget: 0.5}
			seed := rng.Uint64()
			var calls atomic.Uint64
			c.transform = processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
				rng := rand.New(rand.NewPCG(seed, calls.Add(1)))
				takes := upTo(rng, 100*time.Millisecond)
				if rng.IntN(10) == 0 {
					takes = upTo(rng, 20*time.Second)
				}
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(takes):
				}
				if rng.IntN(20) == 0 && in.Attempt < 4 {
					return errors.New("by chance")
				}
				return passOn(ctx, in, out)
			})
			c.disturb(4)
		})
	})
}

// The recipe of docs/workers.md for workers that hang now and then: a record each 250 ms,
// 750 ms of work, one call of a hundred hangs. Without hedges each of these would hold its
// partition for the 30 s that a call may take.
func TestRecipeForWorkersThatHang(t *testing.T) {
	const partitions, each = 4, 1500
	virtual(t, partitions, func(b *bed) {
		rng := rand.New(rand.NewPCG(1, 1))
		var mu sync.Mutex
		var calls, order int
		var latencies []time.Duration
		opts := b.options()
		opts.Hedge = processor.Hedges{After: 2 * time.Second}
		opts.Retry = processor.Retries{Attempts: 5, Initial: time.Second, Max: time.Minute}
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			mu.Lock()
			calls++
			takes := 750 * time.Millisecond
			if rng.IntN(100) == 0 {
				takes = 30 * time.Second
			}
			mu.Unlock()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(takes):
			}
			if takes > time.Second {
				return errors.New("timeout")
			}
			return passOn(ctx, in, out)
		}))
		reader := b.newClient(kgo.ConsumeTopics("out"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		read := make(chan struct{})
		go func() {
			defer close(read)
			next := make(map[int32]string)
			for len(latencies) < partitions*each {
				reader.PollFetches(context.Background()).EachRecord(func(r *kgo.Record) {
					latencies = append(latencies, time.Since(r.Timestamp))
					if want := next[r.Partition]; want != "" && string(r.Value) != want {
						order++
					}
					n, _ := strconv.Atoi(string(r.Value))
					next[r.Partition] = strconv.Itoa(n + 1)
				})
			}
		}()
		b.eventually("the partitions are assigned", func() bool { return len(b.status(r).Partitions) == partitions })
		for i := range each {
			b.produceToAll(partitions, i, i+1)
			<-time.After(250 * time.Millisecond)
		}
		<-read
		b.stop(r)
		slices.Sort(latencies)
		p99 := latencies[len(latencies)*99/100]
		b.t.Logf("p50 %v, p99 %v, most %v; %d calls for %d records", latencies[len(latencies)/2], p99, latencies[len(latencies)-1], calls, partitions*each)
		if p99 > 3500*time.Millisecond || calls > partitions*each*105/100 || order > 0 {
			b.t.Errorf("p99 is %v, want 3.5 s at most; %d calls, want %d at most; %d out of order", p99, calls, partitions*each*105/100, order)
		}
	})
}

// A record that is attempted again because its topic did not take its output holds its partition as
// its head does, and is hedged.
func TestAttemptAfterAnOutputWasHeldIsHedged(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		largest(b, "out")
		b.produce("in", 0, 0, 10)
		opts := b.options()
		opts.Hedge = processor.Hedges{After: 2 * time.Second}
		var calls atomic.Int32 // for the record that is held
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			if in.Offset != 5 {
				return passOn(ctx, in, out)
			}
			switch calls.Add(1) {
			case 1:
				return inflate(ctx, in, out)
			case 2:
				<-ctx.Done()
				return ctx.Err()
			}
			return passOn(ctx, in, out)
		}))
		b.holds(r, "offset 5")
		b.decides(r, processor.Decision{Offset: 5, Verdict: processor.RetryIt})
		b.patience = 30 * time.Second
		b.caughtUp(1)
		b.inOrder(0, 0, 10)
	})
}
