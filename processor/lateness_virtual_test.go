//go:build synctests

package processor_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// Requests of transactions are held up, so that they are given up and carried out later, and those that
// join the group for longer than it waits, while members come, go, are thrown out and get bad
// answers, and records with and without outputs follow each other. The group never goes back, nobody takes a late request for a twin, and
// readers of committed records see every output once, in order.
func TestLateRequestsUnderChurn(t *testing.T) {
	plans(t, 12, func(t *testing.T, rng *rand.Rand) {
		partitions := 1 + rng.Int32N(3)
		virtual(t, partitions, func(b *bed) {
			punctual := b.late(rng)
			c := newChurn(b, rng, partitions)
			c.exactlyOnce = true
			c.drain = time.Duration(1+rng.IntN(15)) * time.Second
			// Of three members at most, whose joins are tried again after this and ten seconds, two
			// are then further apart than this. The broker in the process begins to wait anew with each join, and
			// keeps a member that it could not answer: with 23 s three members joined for ever.
			c.rebalance = time.Duration(2+rng.IntN(3)) * time.Second
			slow := jitter(rng.Uint64(), time.Duration(1+rng.IntN(1000))*time.Millisecond)
			emits := func(value int) bool { return value/40%2 == 0 || value%7 == 0 }
			c.transform = processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
				if value, err := strconv.Atoi(string(in.Value)); err != nil || !emits(value) {
					return err
				}
				return slow.Transform(ctx, in, out)
			})
			done := b.neverBack(partitions)
			for range 25 {
				err := c.turn(func() {
					if rng.IntN(3) == 0 {
						c.kick()
					} else {
						c.mishap()
					}
				})
				if err != nil && !errors.Is(err, processor.ErrDrainDeadline) {
					b.t.Errorf("a member that left returned %v", err)
				}
				c.pause(8 * time.Second)
			}
			punctual()
			if err := c.finish(); err != nil && !errors.Is(err, processor.ErrDrainDeadline) {
				b.t.Errorf("members returned %v", err)
			}
			<-time.After(mostLate) // nothing is held any more
			done()
			for p := range partitions {
				var want []string
				for value := range c.produced[p] {
					if emits(value) {
						want = append(want, strconv.Itoa(value))
					}
				}
				if got := b.values("out", p); !slices.Equal(got, want) {
					b.t.Errorf("partition %d has %d outputs, want %d:\n%v\n%v", p, len(got), len(want), got, want)
				}
			}
		})
	})
}

// mostLate is longer than a client waits for an answer, and than a transaction may take.
const mostLate = 45 * time.Second

// late holds up some of the requests that commit, emit and join, until punctual is called.
func (b *bed) late(rng *rand.Rand) (punctual func()) {
	var mu sync.Mutex
	delays, rate := rand.New(rand.NewPCG(rng.Uint64(), 0)), 4+rng.IntN(40)
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.OffsetCommit, kmsg.TxnOffsetCommit, kmsg.EndTxn, kmsg.InitProducerID, kmsg.JoinGroup, kmsg.SyncGroup} {
		b.cluster.ControlKey(key.Int16(), func(r kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			if produce, ok := r.(*kmsg.ProduceRequest); ok && produce.TransactionID == nil {
				return nil, nil, false // the test's own
			}
			mu.Lock()
			var late time.Duration
			if rate > 0 && delays.IntN(rate) == 0 {
				late = upTo(delays, []time.Duration{time.Second, 12 * time.Second, mostLate}[delays.IntN(3)])
			}
			mu.Unlock()
			if late > 0 {
				b.cluster.SleepControl(func() { <-time.After(late) })
			}
			return nil, nil, false
		})
	}
	return func() {
		mu.Lock()
		defer mu.Unlock()
		rate = 0
	}
}

// neverBack fails the test if the group's offsets go back before done is called.
func (b *bed) neverBack(partitions int32) (done func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		most := slices.Repeat([]int64{-1}, int(partitions))
		for {
			for p := range partitions {
				at := b.committed(p)
				if at < most[p] {
					b.t.Errorf("partition %d: the group is back at %d from %d", p, at, most[p])
				}
				most[p] = at
			}
			select {
			case <-end:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return func() { close(end); <-ended }
}
