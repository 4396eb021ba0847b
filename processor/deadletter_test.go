package processor_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

// poison rejects the value 5 and fails the value 7 at every attempt.
func poison(ctx context.Context, in processor.Input, out *processor.Outputs) error {
	switch string(in.Value) {
	case "5":
		return &processor.Failure{Kind: processor.Reject, Err: errors.New("no such customer")}
	case "7":
		return errors.New("always")
	}
	return passOn(ctx, in, out)
}

func TestDeadLettersLeaveInOrderWithTheirStory(t *testing.T) {
	for name, exactlyOnce := range map[string]bool{"at least once": false, "exactly once": true} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, 2, nil, kfake.SeedTopics(1, "dead"))
			opts := b.options()
			opts.ExactlyOnce = exactlyOnce
			opts.OnExhausted, opts.DeadLetterTopic = processor.DeadLetter, "dead"
			opts.Retry = processor.Retries{Attempts: 3, Initial: time.Millisecond, Max: 2 * time.Millisecond}
			b.produce("in", 1, 0, 10)
			r := b.run(opts, processor.TransformFunc(poison))
			b.caughtUp(2)
			status := b.status(r)
			if got := status.Partitions[1].DeadLetters; got["attempts"] != 1 || got["reject"] != 1 {
				t.Errorf("dead letters by reason: %v, want one each", got)
			}
			b.stop(r)
			if got := b.values("out", 1); len(got) != 8 || got[4] != "4" || got[5] != "6" || got[6] != "8" {
				t.Errorf("outputs %v, want 0-9 without 5 and 7", got)
			}
			dead := b.records("dead", 0)
			if len(dead) != 2 || string(dead[0].Value) != "5" || string(dead[1].Value) != "7" {
				t.Fatalf("dead letters %v, want 5 and 7", dead)
			}
			for i, want := range []map[string]string{
				{"__dlq.errors.offset": "5", "__dlq.errors.delivery.count": "1", "__dlq.errors.message": "no such customer", "seriatim.error.kind": "reject"},
				{"__dlq.errors.offset": "7", "__dlq.errors.delivery.count": "3", "__dlq.errors.message": "always", "seriatim.error.kind": "attempts"},
			} {
				want["__dlq.errors.topic"], want["__dlq.errors.partition"], want["__dlq.errors.group"] = "in", "1", "group"
				want["seriatim.pipeline"], want["seriatim.attempts"] = "test", want["__dlq.errors.delivery.count"]
				got := headers(dead[i])
				for key, value := range want {
					if got[key] != value {
						t.Errorf("dead letter %d: header %s is %q, want %q", i, key, got[key], value)
					}
				}
				first, err1 := time.Parse(time.RFC3339Nano, got["seriatim.first.failure"])
				last, err2 := time.Parse(time.RFC3339Nano, got["seriatim.last.failure"])
				if err1 != nil || err2 != nil || last.Before(first) || string(dead[i].Key) != "key" {
					t.Errorf("dead letter %d: %v", i, dead[i])
				}
			}
		})
	}
}

func headers(r *kgo.Record) map[string]string {
	m := make(map[string]string)
	for _, h := range r.Headers {
		m[h.Key] = string(h.Value)
	}
	return m
}

func TestDroppedRecordsAreCountedAndPassed(t *testing.T) {
	b := newBed(t, 1, nil)
	opts := b.options()
	opts.OnExhausted = processor.Drop
	opts.Retry = processor.Retries{Attempts: 2, Initial: time.Millisecond, Max: 2 * time.Millisecond}
	b.produce("in", 0, 0, 10)
	r := b.run(opts, processor.TransformFunc(poison))
	b.caughtUp(1)
	status := b.status(r)
	if got := status.Partitions[0].Dropped; got != 2 {
		t.Errorf("dropped %d, want 2", got)
	}
	if got := len(b.values("out", 0)); got != 8 {
		t.Errorf("%s outputs, want 8", strconv.Itoa(got))
	}
}
