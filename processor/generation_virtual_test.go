//go:build synctests

package processor_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/journal"
	"seriatim/processor"
)

// remember writes a state record about a record of "in/0", or about the partition, as another owner would.
func (b *bed) remember(key string, value []byte) {
	b.write(&kgo.Record{Topic: "state", Partition: journal.Place("in", 0, 3), Key: []byte("group/in/0/" + key), Value: value})
}

// Two owners never have the same generation: one that has lost the partition, and has read of the same
// generations as its successor, replaces nothing.
func TestOwnersNeverShareAGeneration(t *testing.T) {
	stateful(t, 1, func(b *bed) {
		b.remember("-/open/before", journal.Encode(journal.Open{Generation: 10, Group: 10})) // the group was made anew since
		b.remember("-/open/zombie", journal.Encode(journal.Open{Generation: 1, Group: 1}))
		opts, _ := b.mortal("one")
		opts.Retry = processor.Retries{Initial: time.Hour, Max: time.Hour}
		b.step = time.Second
		r := b.run(opts, processor.TransformFunc(func(context.Context, processor.Input, *processor.Outputs) error { return errors.New("down") }))
		b.produce("in", 0, 0, 1)
		b.eventually("there were two attempts", func() bool { return b.status(r).Attempts["retry"] == 2 })
		b.remember("-/open/zombie", journal.Encode(journal.Open{Generation: 11, Group: 1})) // it has read the first marker, and not ours
		b.remember("0/attempts/11", journal.Encode(journal.Attempts{Generation: 11, Begun: 9, Failed: 9, Error: "of a zombie"}))
		<-time.After(10 * time.Second)
		if k := b.state(0).Records[0]; k == nil || k.Attempts == nil || k.Attempts.Error != "down" || k.Attempts.Begun != 2 {
			b.t.Errorf("what is known is %+v, want the two attempts of the owner", k)
		}
	})
}

// An owner that has lost the partition and does not know it may write its marker after that of its successor,
// and take itself for the younger one: it does not keep the successor from writing.
func TestMarkerThatComesLate(t *testing.T) {
	stateful(t, 1, func(b *bed) {
		opts, _ := b.mortal("one")
		opts.Retry = processor.Retries{Attempts: 4, Initial: time.Minute, Max: time.Minute}
		b.step = time.Second
		var attempts []int
		r := b.run(opts, processor.TransformFunc(func(_ context.Context, in processor.Input, _ *processor.Outputs) error {
			attempts = append(attempts, in.Attempt)
			return errors.New("down")
		}))
		b.produce("in", 0, 0, 1)
		b.eventually("there was an attempt", func() bool { return b.status(r).Attempts["retry"] >= 1 })
		b.remember("-/open/zombie", journal.Encode(journal.Open{Generation: 0, Group: 0}))
		b.remember("-/open/zombie", journal.Encode(journal.Open{Generation: 2, Group: 0}))
		b.remember("0/attempts/2", journal.Encode(journal.Attempts{Generation: 2, Begun: 1, Failed: 1, Error: "of a zombie"}))
		b.patience = 10 * time.Minute
		b.holds(r, "failed 4 times")
		b.eventually("the hold is known", func() bool {
			k := b.state(0).Records[0]
			return k != nil && k.Held() && k.Attempts.Begun == 4 && k.Attempts.Error == "down"
		})
		if m := b.state(0); len(m.Open) != 1 {
			b.t.Errorf("the markers are %v, want that of the owner alone", m.Open)
		}
		b.decides(r, processor.Decision{Verdict: processor.SkipIt})
		b.caughtUp(1)
		b.stop(r)
		b.nothingKept(1)
	})
}
