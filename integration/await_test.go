package integration

import (
	"context"
	"testing"
	"time"
)

// patience is how long tests wait for what should happen soon.
const patience = 60 * time.Second

// await returns when done reports true. It fails the test after the time allowed,
// telling what it waited for and what done said last, and at once if an instance
// of the test has ended by itself.
func await(t *testing.T, allowed time.Duration, what string, done func() (ok bool, state string)) {
	t.Helper()
	deadline := time.NewTimer(allowed)
	defer deadline.Stop()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		mustRun(t)
		ok, state := done()
		if ok {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("waited %v for %s; at the end: %s", allowed, what, state)
		case <-look.C:
		}
	}
}

// lasting returns a context for what is done after a test, whose own has ended.
func lasting(allowed time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), allowed)
}

// within returns a context that ends after the time allowed, or with the test.
func within(t *testing.T, allowed time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), allowed)
	t.Cleanup(cancel)
	return ctx
}
