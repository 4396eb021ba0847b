//go:build synctests

package processor_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// A commit is one request for all partitions, however many there are, and a tick or as many records as
// Commit.Records take one.
func TestACommitIsOneRequest(t *testing.T) {
	const partitions, each = 100, 100
	virtual(t, partitions, func(b *bed) {
		var requests, positions atomic.Int64
		b.cluster.ControlKey(int16(kmsg.OffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			requests.Add(1)
			for i := range r.(*kmsg.OffsetCommitRequest).Topics {
				positions.Add(int64(len(r.(*kmsg.OffsetCommitRequest).Topics[i].Partitions)))
			}
			return nil, nil, false
		})
		opts := b.options()
		opts.Commit.Interval, opts.Commit.Records = 5*time.Second, 1000
		r := b.run(opts, processor.TransformFunc(passOn))
		b.caughtUp(partitions)
		began, before := time.Now(), requests.Load()
		b.produceToAll(partitions, 0, each)
		b.caughtUp(partitions)
		most := 1 + int64(time.Since(began)/opts.Commit.Interval) + partitions*each/int64(opts.Commit.Records)
		if n := requests.Load() - before; n == 0 || n > most {
			b.t.Errorf("%d records took %d commits, want %d at the most", partitions*each, n, most)
		}
		before, had := requests.Load(), positions.Load()
		<-time.After(time.Minute)
		if n, of := requests.Load()-before, positions.Load()-had; n < 11 || n > 13 || of != n*partitions {
			b.t.Errorf("a minute took %d commits of %d positions, want one each 5 s of all %d partitions", n, of, partitions)
		}
		b.stop(r)
	})
}
