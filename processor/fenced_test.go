//go:build synctests

package processor_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// A request of a dead predecessor that arrives late takes its static membership away from a
// process that has just started (seen with a coordinator that moved while an instance was
// killed and started again). It joins anew. Taken away again soon, it is used by another process.
func TestStaticMemberIsFenced(t *testing.T) {
	for _, exactlyOnce := range []bool{false, true} {
		for _, key := range []kmsg.Key{kmsg.SyncGroup, kmsg.Heartbeat} {
			t.Run(key.Name(), func(t *testing.T) {
				virtual(t, 2, func(b *bed) {
					opts := b.options()
					opts.Source.Static = true
					opts.ExactlyOnce = exactlyOnce
					fence := func() {
						b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: kerr.FencedInstanceID, Count: 1})
					}
					if key == kmsg.SyncGroup {
						fence()
					}
					r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
						<-time.After(time.Duration(in.Offset%7) * time.Millisecond)
						return passOn(ctx, in, out)
					}))
					b.produceToAll(2, 0, 50)
					b.caughtUp(2)
					if key == kmsg.Heartbeat {
						fence()
						<-time.After(30 * time.Second)
					}
					b.produceToAll(2, 50, 100)
					b.caughtUp(2)
					for p := range int32(2) {
						b.firstInOrder(p, 100)
					}
					if s := b.status(r); s.State != "running" || len(s.Partitions) != 2 {
						b.t.Errorf("the state is %s with %d partitions", s.State, len(s.Partitions))
					}
					if key == kmsg.SyncGroup {
						return
					}

					fence()
					var fenced *processor.FencedError
					if err := <-r.done; !errors.As(err, &fenced) {
						b.t.Errorf("fenced twice in a minute: Run returned %v, want a FencedError", err)
					}
					r.done <- nil // for the end of the test
				})
			})
		}
	}
}
