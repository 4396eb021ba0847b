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

// An OldBrokersError is returned by [Pipeline.Run] when exactly-once delivery is
// wanted of a cluster whose transactions do not fence each other: there a request
// that was delayed can end a later transaction (KAFKA-17754), and records are lost
// or doubled. KIP-890, transaction.version 2, mended it in Kafka 4.0.
type OldBrokersError struct{ TransactionVersion int16 }

// Error says what to do.
func (e *OldBrokersError) Error() string {
	return fmt.Sprintf("exactly-once delivery needs Kafka 4.0 with transaction.version 2, the cluster has %d: upgrade it (kafka-features.sh upgrade --feature transaction.version=2), or set allow_old_brokers and accept KAFKA-17754", e.TransactionVersion)
}

// A GroupProtocolError is returned by [Pipeline.Run] when Source.ServerSide is set and no
// broker knows the protocol of KIP-848. The client would join as a classic member
// instead, with a balancer of its own and without the session timeout that was set.
type GroupProtocolError struct{}

// Error says what to do.
func (*GroupProtocolError) Error() string {
	return "input.group_protocol is consumer, and the brokers do not have that protocol (KIP-848, since Kafka 4.0): upgrade them, or set classic"
}

// A PartitionsError is returned by [Pipeline.Run] when the first look at the cluster
// finds an output topic with fewer partitions than its source, although outputs
// are to go to the partition of their source. Where that comes about later, or a
// topic appears later, the partitions without a counterpart wait instead.
type PartitionsError struct {
	Output, Input string // topics
	Have, Want    int    // partitions of these
	Command       string // mends it
}

// Error says what to do.
func (e *PartitionsError) Error() string {
	return fmt.Sprintf("output topic %s has %d partitions, but the input topic %s has %d and output.partition is source: %s",
		e.Output, e.Have, e.Input, e.Want, e.Command)
}

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
