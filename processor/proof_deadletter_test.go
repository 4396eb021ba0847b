//go:build synctests

package processor_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// While the dead-letter topic refuses records nothing is committed past the record
// that has to go there; when it takes them again, each arrives once.
func TestDeadLettersAreAwaited(t *testing.T) {
	for name, exactlyOnce := range map[string]bool{"at least once": false, "exactly once": true} {
		t.Run(name, func(t *testing.T) {
			virtual(t, 1, func(b *bed) {
				b.create("dead", 1, nil)
				refusal := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "dead", Err: kerr.TopicAuthorizationFailed, Count: -1})
				opts := b.options()
				opts.ExactlyOnce = exactlyOnce
				opts.OnExhausted, opts.DeadLetterTopic = processor.DeadLetter, "dead"
				opts.Retry = processor.Retries{Attempts: 3, Initial: time.Millisecond, Max: 2 * time.Millisecond}
				b.produce("in", 0, 0, 10)
				r := b.run(opts, processor.TransformFunc(poison))
				b.eventually("a dead letter was refused", func() bool { return refusal.Hits() > 0 })
				<-time.After(time.Minute)
				if at := b.committed(0); at > 5 {
					b.t.Errorf("committed is %d, beyond the record 5 that has no outcome", at)
				}
				refusal.Remove()
				b.caughtUp(1)
				b.stop(r)
				if got := b.values("dead", 0); len(got) != 2 || got[0] != "5" || got[1] != "7" {
					b.t.Errorf("dead letters %v, want 5 and 7", got)
				}
				if got := b.values("out", 0); len(got) != 8 {
					b.t.Errorf("outputs %v, want 0-9 without 5 and 7", got)
				}
			})
		})
	}
}
