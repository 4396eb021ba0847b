package processor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/journal"
)

// A stateLog is the loop's access to Options.StateTopic: a producer, outside of any
// transaction, and a reader that follows the partitions which the tenures need. What
// takes time runs beside the loop.
type stateLog struct {
	topic    string
	producer *kgo.Client
	written  *written
	sink     *sink // nil until the topic has been seen
	follower *follower
	counts   *stateCounts
	pending  int64 // bytes written and not answered
	// judged is up to where what cannot be read was counted, by partition: a follower
	// may read again what another one has read.
	judged map[int32]int64
	told   map[string]time.Time // when the log last told of a kind of these
}

// stateCounts outlive memberships.
type stateCounts struct {
	writes  map[string]uint64 // state records written, by kind
	ignored map[string]uint64 // state records ignored, by kind
}

func newStateLog(opts *Options) *stateLog {
	if opts.StateTopic == "" {
		return nil
	}
	return &stateLog{
		topic: opts.StateTopic, written: &written{wake: make(chan struct{}, 1)},
		judged: make(map[int32]int64), told: make(map[string]time.Time),
		counts: &stateCounts{
			writes:  map[string]uint64{"open": 0, "attempts": 0, "note": 0, "hold": 0, "decision": 0, "reply": 0, "delete": 0},
			ignored: map[string]uint64{"foreign": 0, "torn": 0, "oversized": 0, "older": 0},
		},
	}
}

// saw takes the topic as it was seen. Partitions that are added later are not used: what is
// remembered of a partition stays where it is looked for.
func (s *stateLog) saw(topic *sink) {
	if s.sink == nil {
		s.sink = topic
	}
}

// wakes tells the loop that answers have come; it is nil where there are none.
func (s *stateLog) wakes() <-chan struct{} {
	if s == nil {
		return nil
	}
	return s.written.wake
}

// written carries the answers to what was written to the loop.
type written struct {
	wake chan struct{} // has room for one

	mu      sync.Mutex
	answers []func()
}

func (w *written) answer(f func()) {
	w.mu.Lock()
	w.answers = append(w.answers, f)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// takeWritten does what waits for state records to be acknowledged.
func (l *loop) takeWritten() {
	w := l.stateLog.written
	w.mu.Lock()
	answers := w.answers
	w.answers = nil
	w.mu.Unlock()
	for _, f := range answers {
		f()
	}
}

// mostPending is how much may be written and not acknowledged before what can be done without, results
// and notes, is not written: then calls are perhaps repeated, or a note is lost in a crash. What
// must be written holds back its record, so that there is never more of it than windows hold.
const mostPending = 16 << 20

// crowded reports whether nothing is to be written that can be done without.
func (s *stateLog) crowded() bool { return s.pending > mostPending }

// write writes a state record; no value deletes the one with that key. The loop calls
// then, if it is not nil, when the broker has answered.
func (l *loop) write(kind string, key journal.Key, value []byte, then func(error)) {
	s := l.stateLog
	s.counts.writes[kind]++
	r := &kgo.Record{
		Topic: s.topic, Partition: journal.Place(key.Topic, key.Partition, s.sink.partitions), Key: []byte(key.String()), Value: value,
	}
	size := recordSize(r)
	s.pending += size
	s.producer.Produce(context.Background(), r, func(_ *kgo.Record, err error) {
		s.written.answer(func() {
			s.pending -= size
			switch {
			case err == nil:
				l.over("state written")
			case errors.Is(err, kgo.ErrClientClosed):
				return
			default:
				l.note("state written", "state topic "+s.topic, "cannot be written; trying again: "+explainState(err), repeats)
			}
			if then != nil {
				then(err)
			}
		})
	})
}

// explainState adds to an error of the state topic what a person can do about it.
func explainState(err error) string {
	if errors.Is(err, kerr.TopicAuthorizationFailed) {
		return err.Error() + ": grant this user READ, WRITE and DESCRIBE on it"
	}
	return explain(err)
}

// stateRetry is how long a refused state record waits before it is written again.
const stateRetry = time.Second

// keep writes a state record of a tenure, again and again while that lasts, and calls
// then when it is acknowledged.
func (l *loop) keep(t *tenure, kind string, key journal.Key, value []byte, then func()) {
	l.write(kind, key, value, func(err error) {
		switch {
		case t.phase == closed:
		case err == nil:
			if then != nil {
				then()
			}
		default:
			l.at(l.now.Add(stateRetry), func() {
				if t.phase != closed {
					l.keep(t, kind, key, value, then)
				}
			})
		}
	})
}

// erase deletes a state record. One that stays is deleted by whoever finds it next.
func (l *loop) erase(key journal.Key) { l.write("delete", key, nil, nil) }

// A read is a state record as it was read.
type read struct {
	partition int32 // of the state topic, as offset
	offset    int64
	record    journal.Record
	err       error // why it is ignored
}

// stateFetchBytes is the most that is read of the state topic at a time.
const stateFetchBytes = 4 << 20

// readState reads partitions of the state topic from some offsets on, until ctx ends or
// take, which gets what is of the group and what cannot be read, says that it has enough.
func readState(ctx context.Context, opts *Options, from map[int32]kgo.Offset, take func([]read) bool, failed func(error)) {
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{opts.StateTopic: from}),
		kgo.FetchMaxBytes(stateFetchBytes),
		kgo.FetchMaxWait(fetchMaxWait),
		kgo.MetadataMinAge(metadataMinAge),
		kgo.WithContext(ctx),
	}, opts.Client...)...)
	if err != nil {
		failed(err)
		return
	}
	defer client.Close()
	for ctx.Err() == nil {
		fetches := client.PollFetches(ctx)
		fetches.EachError(func(_ string, _ int32, err error) {
			if ctx.Err() == nil {
				failed(err)
			}
		})
		var reads []read
		fetches.EachRecord(func(r *kgo.Record) {
			record, ours, err := journal.Decode(opts.Source.Group, r.Key, r.Value)
			if ours || err != nil {
				reads = append(reads, read{r.Partition, r.Offset, record, err})
			}
		})
		if len(reads) > 0 && !take(reads) {
			return
		}
		if fetches.Err() != nil && fetches.NumRecords() == 0 {
			select {
			case <-ctx.Done():
			case <-time.After(fetchMaxWait):
			}
		}
	}
}

// A follower reads what the tenures of a moment need, and goes on reading. When others
// are assigned another one takes its place.
type follower struct{ stop context.CancelFunc }

// follow has a follower read for all tenures that there are: for new ones from the
// beginning, for others from where they are.
func (l *loop) follow() {
	from := make(map[int32]kgo.Offset)
	for _, t := range l.tenures {
		if m := t.memory; m != nil && m.begun {
			if old, ok := from[m.at]; !ok || m.next < old.EpochOffset().Offset {
				from[m.at] = kgo.NewOffset().At(m.next)
			}
		}
	}
	if l.stateLog.follower != nil {
		l.stateLog.follower.stop()
	}
	ctx, stop := context.WithCancel(l.life)
	f := &follower{stop}
	l.stateLog.follower = f
	if len(from) == 0 {
		return
	}
	opts := *l.opts
	l.beside.Go(func() { // ends when another one takes its place, or with the loop
		readState(ctx, &opts, from, func(reads []read) bool {
			return ctx.Err() == nil && l.do(func() {
				if l.stateLog.follower == f {
					l.over("state read")
					l.recollect(reads)
				}
			})
		}, func(err error) {
			l.do(func() {
				if l.stateLog.follower == f {
					l.note("state read", "state topic "+opts.StateTopic, "cannot be read; trying again: "+explainState(err), repeats)
				}
			})
		})
	})
}

// tellEvery is how often the log tells of state records that cannot be read.
const tellEvery = time.Minute

// ignore counts a state record that is ignored, and says why.
func (l *loop) ignore(r *read) {
	s := l.stateLog
	kind := "older"
	switch {
	case r.err == nil:
	case errors.Is(r.err, journal.ErrTorn):
		kind = "torn"
	case errors.Is(r.err, journal.ErrOversized):
		kind = "oversized"
	default:
		kind = "foreign"
	}
	if r.err != nil && r.offset < s.judged[r.partition] {
		return
	}
	s.judged[r.partition] = max(s.judged[r.partition], r.offset+1)
	s.counts.ignored[kind]++
	if last, ok := s.told[kind]; ok && l.now.Sub(last) < tellEvery {
		return
	}
	s.told[kind] = l.now
	reason := "an owner that had lost the partition wrote it"
	if r.err != nil {
		reason = r.err.Error()
	}
	l.log.Warn("a record of the state topic is ignored, and others of its kind within the next minute", "kind", kind,
		"place", fmt.Sprintf("%s/%d at offset %d", s.topic, r.partition, r.offset), "reason", reason)
}

// stateFlush bounds how long the end of a membership waits for what it has written last.
const stateFlush = 500 * time.Millisecond

// close has what was written last acknowledged, if that is soon.
func (s *stateLog) close() {
	if s == nil || s.producer == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stateFlush)
	defer cancel()
	_ = s.producer.Flush(ctx) // what is missing is told by nobody: whoever comes next is more careful
	s.producer.Close()
}

// stateProducerOpts are those of the producer, which is idempotent and belongs to no
// transaction: a count that must outlive a crash cannot wait for one to be committed.
func (p *Pipeline) stateProducerOpts() []kgo.Opt {
	return append([]kgo.Opt{
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0),
		kgo.MetadataMaxAge(metadataAge),
		kgo.MetadataMinAge(metadataMinAge),
		kgo.ProducerBatchMaxBytesFn(p.loop.Load().batchLimit),
		kgo.MaxBufferedRecords(1 << 30), // the loop must never wait here
		kgo.UnknownTopicRetries(-1),
	}, p.opts.Client...)
}
