package processor_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"seriatim/processor"
)

// Workers know a record again by its key: at every attempt, and after a restart.
func TestIdempotencyKeyIsTheSameAtEveryAttempt(t *testing.T) {
	b := newBed(t, 1, nil)
	var mu sync.Mutex
	keys := make(map[int64][]string) // by offset
	transform := processor.TransformFunc(func(_ context.Context, in processor.Input, _ *processor.Outputs) error {
		mu.Lock()
		defer mu.Unlock()
		keys[in.Offset] = append(keys[in.Offset], in.IdempotencyKey())
		return errors.New("always")
	})
	opts := b.options()
	opts.Retry = processor.Retries{Attempts: 3, Initial: time.Millisecond, Max: 2 * time.Millisecond}
	b.produce("in", 0, 0, 2)
	for runs := 1; runs <= 2; runs++ {
		r := b.run(opts, transform)
		b.eventually("every attempt is made", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(keys[0]) == 3*runs && len(keys[1]) >= 1
		})
		b.stop(r)
	}
	for offset, all := range keys {
		for _, key := range all {
			if key != all[0] || !strings.HasPrefix(key, "test/") || !strings.HasSuffix(key, []string{"/0/0", "/0/1"}[offset]) {
				t.Errorf("the record at offset %d has the keys %q, want one alone: pipeline/topic id/partition/offset", offset, all)
				break
			}
		}
	}
}
