package main

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"seriatim/processor"
)

// What a job is done by, beside Seriatim.
const (
	byBare    = "bare loop"            // consume and produce, nothing between
	bySession = "GroupTransactSession" // the same in transactions of 100 ms
	byPlain   = "plain client"         // asks the worker over HTTP, without Kafka
	byPool    = "pool"                 // as many workers as asked for, and no order: nothing can be faster
	byOne     = "one at a time"
	byBarrier = "batches"            // each poll is worked off before the next: poll, errgroup, wait
	byFutures = "channel of futures" // finished records wait their turn in a channel as long as there are workers
)

// A hand is a loop around the client as people write it, without retries, rebalances,
// or care for what fails: the pace of the idea alone.
type hand struct {
	job
	client    *kgo.Client
	transform processor.Transform

	mu    sync.Mutex
	acked int64
	done  chan error
}

// byHand does the job by one of these loops.
func (j job) byHand(ctx context.Context) error {
	client, err := j.client()
	if err != nil {
		return err
	}
	defer client.Close()
	transform, end, err := j.transform()
	if err != nil {
		return err
	}
	defer end()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	h := &hand{job: j, client: client, transform: transform, done: make(chan error, 1)}
	loop := map[string]func(context.Context){byPool: h.pool, byOne: h.one, byBarrier: h.barrier, byFutures: h.futures}[j.By]
	go loop(ctx)
	select {
	case err = <-h.done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	h.span.end()
	if err != nil {
		return err
	}
	return client.CommitUncommittedOffsets(ctx)
}

// poll sends records on until ctx ends.
func (h *hand) poll(ctx context.Context, records chan<- *kgo.Record) {
	for ctx.Err() == nil {
		for _, r := range h.client.PollFetches(ctx).Records() {
			select {
			case records <- r:
			case <-ctx.Done():
			}
		}
	}
}

// work transforms a record.
func (h *hand) work(ctx context.Context, r *kgo.Record) []*kgo.Record {
	outputs, err := processor.Call(ctx, h.transform, processor.Input{Record: r, Attempt: 1}) // which a simulation takes its time from
	if err != nil {
		h.end(err)
	}
	return outputs
}

// emit produces what became of a record.
func (h *hand) emit(ctx context.Context, source *kgo.Record, outputs []*kgo.Record) {
	for _, o := range outputs {
		o.Topic, o.Partition = h.Out, source.Partition
		h.client.Produce(ctx, o, h.promise)
	}
}

func (h *hand) promise(_ *kgo.Record, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.acked++; err != nil || h.acked == h.Records {
		h.end(err)
	}
}

func (h *hand) end(err error) {
	select {
	case h.done <- err:
	default:
	}
}

func (h *hand) pool(ctx context.Context) {
	records := make(chan *kgo.Record, h.Window)
	for range h.Workers {
		go func() {
			for {
				select {
				case r := <-records:
					h.emit(ctx, r, h.work(ctx, r))
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	h.poll(ctx, records)
}

func (h *hand) one(ctx context.Context) {
	for ctx.Err() == nil {
		for _, r := range h.client.PollFetches(ctx).Records() {
			h.emit(ctx, r, h.work(ctx, r))
		}
	}
}

func (h *hand) barrier(ctx context.Context) {
	for ctx.Err() == nil {
		records := h.client.PollRecords(ctx, 500).Records()
		outputs := make([][]*kgo.Record, len(records))
		var group errgroup.Group
		group.SetLimit(h.Workers)
		for i, r := range records {
			group.Go(func() error {
				outputs[i] = h.work(ctx, r)
				return nil
			})
		}
		_ = group.Wait() // work tells of errors itself
		for i, r := range records {
			h.emit(ctx, r, outputs[i])
		}
	}
}

// A future is a record with what becomes of it.
type future struct {
	record  *kgo.Record
	outputs chan []*kgo.Record
}

func (h *hand) futures(ctx context.Context) {
	line := make(chan future, h.Workers-1)
	go func() {
		records := make(chan *kgo.Record)
		go h.poll(ctx, records)
		for {
			select {
			case r := <-records:
				f := future{r, make(chan []*kgo.Record, 1)}
				select {
				case line <- f:
				case <-ctx.Done():
					return
				}
				go func() { f.outputs <- h.work(ctx, r) }()
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case f := <-line:
			h.emit(ctx, f.record, <-f.outputs)
		case <-ctx.Done():
			return
		}
	}
}
