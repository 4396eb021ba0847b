package main

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// client reads the input, and writes at once where it is told to.
func (j job) client() (*kgo.Client, error) { return kgo.NewClient(j.options()...) }

func (j job) options() []kgo.Opt {
	return []kgo.Opt{
		kgo.SeedBrokers(j.Brokers...),
		kgo.ConsumerGroup(j.Group),
		kgo.ConsumeTopics(j.In),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(j.patience()),
		kgo.ProducerBatchCompression(codecs[j.Codec]),
	}
}

// patience is how long it waits for more records.
func (j job) patience() time.Duration {
	if j.Patient {
		return time.Millisecond
	}
	return 0
}

// bare is the fastest loop we know of around the same client: the fetched record
// itself is produced again, into its own partition.
func (j job) bare(ctx context.Context) error {
	client, err := j.client()
	if err != nil {
		return err
	}
	defer client.Close()
	var acked int64
	done := make(chan error, 1)
	promise := func(_ *kgo.Record, err error) { // called by one goroutine at a time
		acked++
		if err != nil || acked == j.Records {
			select {
			case done <- err:
			default:
			}
		}
	}
	stamps := stamps{topic: j.In}
	for polled := int64(0); polled < j.Records; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			polled++
			r.Topic = j.Out
			if j.Provenance {
				stamps.put(r)
			}
			client.Produce(ctx, r, promise)
		})
		time.Sleep(j.patience())
	}
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	return client.CommitUncommittedOffsets(ctx)
}

// session is the loop that the client offers for exactly once: poll and produce in a transaction,
// which is ended as often as those of the pipeline, or after each poll.
func (j job) session(ctx context.Context) error {
	session, err := kgo.NewGroupTransactSession(append(j.options(),
		kgo.TransactionalID(j.Group), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.RequireStableFetchOffsets())...)
	if err != nil {
		return err
	}
	defer session.Close()
	promise := func(*kgo.Record, error) {} // the session remembers what failed
	for polled := int64(0); polled < j.Records; {
		if err := session.Begin(); err != nil {
			return err
		}
		for began := time.Now(); polled < j.Records && time.Since(began) < transaction; {
			fetches := session.PollFetches(ctx)
			if err := fetches.Err(); err != nil {
				return err
			}
			fetches.EachRecord(func(r *kgo.Record) {
				polled++
				r.Topic = j.Out
				session.Produce(ctx, r, promise)
			})
			if j.EachPoll {
				break
			}
		}
		committed, err := session.End(ctx, kgo.TryCommit)
		if err != nil {
			return err
		}
		if !committed {
			return errors.New("a transaction was aborted")
		}
	}
	return nil
}

// transaction is how long a transaction lasts.
const transaction = 100 * time.Millisecond

// stamps are the headers that tell where a record came from, in few allocations, as the pipeline
// writes them.
type stamps struct {
	topic   string
	headers []kgo.RecordHeader
	bytes   []byte
}

// put adds the header to a record, which has no others.
func (s *stamps) put(r *kgo.Record) {
	if len(s.headers) == cap(s.headers) {
		s.headers = make([]kgo.RecordHeader, 0, 64)
	}
	if s.bytes = s.bytes[len(s.bytes):]; cap(s.bytes) < len(s.topic)+64 {
		s.bytes = make([]byte, 0, 64*(len(s.topic)+64))
	}
	s.bytes = append(append(s.bytes, s.topic...), '/')
	s.bytes = append(strconv.AppendInt(s.bytes, int64(r.Partition), 10), '/')
	s.bytes = strconv.AppendInt(s.bytes, r.Offset, 10)
	n := len(s.headers)
	s.headers = append(s.headers, kgo.RecordHeader{Key: "seriatim.source", Value: slices.Clip(s.bytes)})
	r.Headers = s.headers[n : n+1 : n+1]
}
