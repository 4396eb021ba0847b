package processor

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/seeded"
)

// Input is one attempt at one record: what a [Transform] is given. The embedded
// record is the one that the broker sent; it is shared with other attempts at
// the same record and must not be changed.
type Input struct {
	*kgo.Record

	// Pipeline is the name of the pipeline that asks.
	Pipeline string
	// TopicID is the id of the source topic; all zero where the broker has none
	// (Kafka before 2.8).
	TopicID [16]byte
	// Attempt counts the attempts at this record from 1.
	Attempt int
	// Last is the error of the attempt before, which may not have counted; nil if
	// this is the first since the partition was assigned.
	Last error
	// Asked is shared by the attempts at a record that run at the same time (see
	// [Hedges]); nil if there can be one only. A transform that has several places to
	// ask stores there where it asks, and asks somewhere else if something is there.
	Asked *atomic.Value
	// Note is the last note of an earlier attempt, see [Input.SetNote]; empty if there
	// is none.
	Note string

	source source
}

// IdempotencyKey names the record in the same words at every attempt, also
// after a restart or a rebalance: pipeline/topic id/partition/offset. Where the
// broker has no topic ids the name of the topic stands in.
func (in Input) IdempotencyKey() string { return string(in.AppendIdempotencyKey(nil)) }

// AppendIdempotencyKey appends [Input.IdempotencyKey] to dst.
func (in Input) AppendIdempotencyKey(dst []byte) []byte {
	dst = append(append(dst, in.Pipeline...), '/')
	if in.TopicID != [16]byte{} {
		dst = base64.RawURLEncoding.AppendEncode(dst, in.TopicID[:])
	} else {
		dst = append(dst, in.Topic...)
	}
	if seeded.Bug("key-changes-with-attempts") {
		dst = strconv.AppendInt(dst, int64(in.Attempt), 10)
	}
	dst = strconv.AppendInt(append(dst, '/'), int64(in.Partition), 10)
	return strconv.AppendInt(append(dst, '/'), in.Offset, 10)
}

// A Transform turns one record into its outputs.
//
// Transform is called from many goroutines at once, out of order, and at least
// once for each record: again after a failure, a crash or a rebalance, always
// with the same [Input.IdempotencyKey]. It adds its outputs to out, in the order
// in which they shall leave; adding none filters the record. It returns when it
// is done with in and out, and soon after ctx ends, which happens when the
// partition is taken away or the process stops; its result is dropped then.
//
// A nil error completes the record. Any other error fails the attempt: a
// [*Failure] says how, every other error and a panic count as [Retry].
type Transform interface {
	Transform(ctx context.Context, in Input, out *Outputs) error
}

// TransformFunc lets a function be a [Transform].
type TransformFunc func(ctx context.Context, in Input, out *Outputs) error

// Transform calls f.
func (f TransformFunc) Transform(ctx context.Context, in Input, out *Outputs) error {
	return f(ctx, in, out)
}

// Kind is what a failed attempt means for its record.
type Kind uint8

const (
	// Retry asks for another attempt after a back-off.
	Retry Kind = iota
	// Reject says that this record can never work: it is exhausted at once.
	Reject
	// Deployment says that not the record but the worker's deployment is wrong
	// (no such route, no permission): the pipeline pauses and probes until it is
	// mended; attempts do not count.
	Deployment
)

// String returns the kind as it stands in metrics and logs.
func (k Kind) String() string {
	switch k {
	case Reject:
		return "reject"
	case Deployment:
		return "deployment"
	default:
		return "retry"
	}
}

// A Failure is an error of a [Transform] that says what is to be done about it.
type Failure struct {
	Kind Kind
	// After is the least time to wait before the next attempt, as the worker
	// asked (Retry-After). It is capped at Options.Retry.Max.
	After time.Duration
	// Unsent says that the worker was never given the record (it could not be
	// reached), so that whatever is wrong cannot be the record.
	Unsent bool
	Err    error
}

// Error returns the text of the error that caused the failure.
func (f *Failure) Error() string { return f.Err.Error() }

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

// failureOf says how err fails an attempt.
func failureOf(err error) Failure {
	var f *Failure
	if errors.As(err, &f) {
		return *f
	}
	return Failure{Kind: Retry, Err: err}
}

// A PanicError is a panic of a [Transform], caught so that it fails one attempt
// and not the process.
type PanicError struct {
	Value any
	Stack []byte
}

// Error names the value that was panicked with; the stack is in Stack.
func (e *PanicError) Error() string { return fmt.Sprintf("the transform panicked: %v", e.Value) }
