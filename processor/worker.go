package processor

import (
	"context"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/seeded"
	"seriatim/resequence"
)

// A chunk is what one worker gets at a time: attempts at records of one
// partition. The loop fills it, one worker runs it, the loop takes it back. In
// between the loop may read the attempts that are finished, no others.
type chunk struct {
	tenure   *tenure
	attempts []attempt
	slab     slab
	outputs  Outputs // of the attempt that runs; here, so that it costs no allocation
	items    []Item  // of the batch that runs
	suspects int     // attempts of the batch that were left without an answer

	finished atomic.Int32 // attempts that the worker is done with, for the loop to read
	taken    int          // of these by the loop, which is not to wait for the rest: see harvest

	ctx       context.Context
	notes     *notes             // where its attempts note something
	asked     *atomic.Value      // nil without hedges
	cancel    context.CancelFunc // nil if ctx is the tenure's
	race      *race              // nil if it is alone with its record
	hedged    bool               // another one was started beside it
	beaten    bool               // another one was answered first
	preempted bool               // cancelled, because others want its worker

	started    time.Time // dispatched, by the loop's clock
	took       time.Duration
	prev, next *chunk // the tenure's running chunks, oldest first
}

// An attempt is one call of the transform for one record, and its result.
type attempt struct {
	seq    resequence.Seq
	record *kgo.Record
	past   *past // nil: there was none
	call   int32 // slot.calls
	number int32 // 1-based

	ran     bool
	shared  bool  // the error is that of a whole batch, or of those that it left out
	n       int32 // outputs
	outputs *output
	size    int64 // of the record
	bytes   int64 // of the outputs
	err     error
}

// A past is what an attempt is told of those before it.
type past struct {
	last error // of the attempt before
	note string
}

// maxChunk is the most records that a worker gets at a time. chunkTime is how
// long it shall be busy with them: long enough that handing over costs little
// (14 ns a record were measured at 64), short enough to delay nobody.
const (
	maxChunk  = 64
	chunkTime = 20 * time.Microsecond
)

// giveBack is after which time a worker returns the rest of its chunk: the
// transform has become slow since the chunk was cut, and the others of the chunk
// shall not wait for it in a row.
const giveBack = time.Millisecond

// work runs chunks until there are no more. finished has room for every chunk,
// so that reporting never blocks.
func work(transform Transform, opts *Options, chunks <-chan *chunk, finished chan<- *chunk) {
	for c := range chunks {
		if opts.Batch.Records > 0 {
			c.runBatch(transform.(BatchTransform), opts)
		} else {
			c.run(transform, opts)
		}
		finished <- c
	}
}

func (c *chunk) run(transform Transform, opts *Options) {
	c.slab.reset(len(c.attempts))
	began := time.Now()
	for i := range c.attempts {
		if i > 0 && i%8 == 0 && time.Since(began) > giveBack {
			break
		}
		c.attempt(&c.attempts[i], transform, opts)
		c.finished.Store(int32(i + 1))
	}
	c.took = time.Since(began)
}

func (c *chunk) attempt(a *attempt, transform Transform, opts *Options) {
	c.outputs = Outputs{in: a.record, slab: &c.slab}
	a.ran = true
	if err := call(c.ctx, transform, c.input(a, opts), &c.outputs); err != nil {
		a.err = err
	} else {
		c.result(a, &c.outputs, opts)
	}
}

func (c *chunk) input(a *attempt, opts *Options) Input {
	t := c.tenure
	in := Input{
		Record: a.record, Pipeline: opts.Name, TopicID: t.topicID, Attempt: int(a.number), Asked: c.asked,
		source: source{place{t, a.seq, a.call}, c.notes},
	}
	if a.past != nil {
		in.Last, in.Note = a.past.last, a.past.note
	}
	return in
}

// result takes the outputs of an attempt that has succeeded.
func (c *chunk) result(a *attempt, out *Outputs, opts *Options) {
	t, s := c.tenure, &c.slab
	a.outputs, a.n = out.head, int32(out.n)
	a.size = recordSize(a.record)
	i := 0
	for o := out.head; o != nil; o = o.next {
		i++
		o.tenure, o.seq, o.of = t, a.seq, a.n
		o.record.Topic, o.record.Partition = t.output, t.partition
		o.record.Context = o //nolint:fatcontext // not nested: each output is the context of its own record
		if opts.Output.Provenance {
			s.provenance(o, t.provenance, a.record.Offset, i, out.n)
		}
		a.bytes += o.size()
	}
}

// call runs one attempt. A panic of the transform becomes its error, so that the
// slot is filled whatever happens: an empty one would block the partition for ever.
func call(ctx context.Context, transform Transform, in Input, out *Outputs) (err error) {
	defer func() {
		if v := recover(); v != nil && !seeded.Bug("panic-filters") {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return transform.Transform(ctx, in, out)
}

// Call runs one attempt of a transform as a pipeline would, for tests of
// transforms: it returns the outputs, or the error that fails the attempt, which
// is a [*PanicError] if the transform panicked.
func Call(ctx context.Context, transform Transform, in Input) ([]*kgo.Record, error) {
	out := Outputs{in: in.Record, slab: new(slab)}
	if err := call(ctx, transform, in, &out); err != nil {
		return nil, err
	}
	var records []*kgo.Record
	for o := out.head; o != nil; o = o.next {
		records = append(records, &o.record)
	}
	return records, nil
}
