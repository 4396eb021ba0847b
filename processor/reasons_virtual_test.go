//go:build synctests

package processor_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// A person has a record attempted again whose output its topic did not take. The record is released
// since, and holds its partition all the same while its attempt runs: the reason says so.
func TestAttemptAfterAnOutputWasHeldIsNamed(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		largest(b, "out")
		b.produce("in", 0, 0, 10)
		r := b.run(b.options(), processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			if in.Attempt > 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return inflate(ctx, in, out)
		}))
		b.holds(r, "offset 5")
		b.decides(r, processor.Decision{Offset: 5, Verdict: processor.RetryIt})
		<-time.After(time.Minute)
		if reason, want := b.problem(r, "in/0"), "the record at offset 5 holds the partition: attempt 2 runs"; !strings.Contains(reason, want) {
			b.t.Errorf("the reason is %q, want %q in it", reason, want)
		}
	})
}

// A dead letter is refused, or not answered: the topic that is named is that of dead letters.
func TestTopicThatRefusesADeadLetterIsNamed(t *testing.T) {
	for want, fault := range map[string]kfake.Fault{
		"outputs to dead are refused":       {Err: kerr.TopicAuthorizationFailed},
		"of the record at offset 0 to dead": {Err: kerr.NotEnoughReplicas}, // the client tries again
	} {
		t.Run(want, func(t *testing.T) {
			virtual(t, 1, func(b *bed) {
				b.create("dead", 1, nil)
				fault.Keys, fault.Topic, fault.Count = []kmsg.Key{kmsg.Produce}, "dead", -1
				b.cluster.Fault(fault)
				opts := b.options()
				opts.OnExhausted, opts.DeadLetterTopic = processor.DeadLetter, "dead"
				b.produce("in", 0, 0, 1)
				r := b.run(opts, processor.TransformFunc(rejectAll))
				<-time.After(time.Minute)
				if reason := b.problem(r, "in/0"); !strings.Contains(reason, want) {
					b.t.Errorf("the reason is %q, want %q in it", reason, want)
				}
			})
		})
	}
}

// The input has grown, and its output has not: that is the reason, and no broker that does not
// acknowledge. Who stops does not wait for outputs that cannot leave.
func TestPartitionWithoutACounterpart(t *testing.T) {
	for _, exactlyOnce := range []bool{false, true} {
		t.Run(fmt.Sprintf("exactlyOnce=%v", exactlyOnce), func(t *testing.T) {
			virtual(t, 1, func(b *bed) {
				opts := b.options()
				opts.ExactlyOnce = exactlyOnce
				r := b.run(opts, processor.TransformFunc(passOn))
				b.produce("in", 0, 0, 10)
				b.caughtUp(1)
				b.setPartitions("in", 2)
				b.produce("in", 1, 0, 10)
				b.eventually("its records are done", func() bool { return b.status(r).Attempts["ok"] == 20 })
				<-time.After(time.Minute)
				if reason := b.problem(r, "output topic out"); !strings.Contains(reason, "--alter --topic out --partitions 2") {
					b.t.Errorf("the reason is %q", reason)
				}
				if reason := b.problem(r, "in/1"); reason != "" {
					b.t.Errorf("another reason is %q", reason)
				}
				began := time.Now()
				b.stop(r)
				if took := time.Since(began); took > 2*time.Second {
					b.t.Errorf("it took %v to stop", took)
				}
			})
		})
	}
}
