package processor

import (
	"errors"
	"fmt"
)

// ErrDrainDeadline is returned by [Pipeline.Run] when the pipeline was told to
// stop and could not finish what was running within Options.DrainTimeout. Nothing
// is lost: whoever gets the partitions does it again.
var ErrDrainDeadline = errors.New("the drain deadline passed before everything that was running had finished")

// A FencedError is returned by [Pipeline.Run] when another process uses the same
// instance name.
type FencedError struct {
	Instance string
	Err      error
}

// Error says what to do.
func (e *FencedError) Error() string {
	return fmt.Sprintf("another process uses instance %q: give each process its own `instance`: %v", e.Instance, e.Err)
}

// Unwrap returns the broker's error.
func (e *FencedError) Unwrap() error { return e.Err }

// An InvariantError is a bug: a rule of the engine does not hold. The pipeline
// stops with it, because going on could lose a record.
type InvariantError struct {
	Partition string
	Err       error
}

// Error names the partition and the broken rule.
func (e *InvariantError) Error() string {
	return fmt.Sprintf("%s: broken invariant: %v", e.Partition, e.Err)
}

// Unwrap returns the broken rule.
func (e *InvariantError) Unwrap() error { return e.Err }
