//go:build synctests

package processor_test

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"seriatim/processor"
)

// Records are deleted while the window is full: what was admitted leaves, and the
// loss comes after it.
func TestRetentionOvertakesARunningPartition(t *testing.T) {
	for name, policy := range policies {
		for _, exactlyOnce := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,exactlyOnce=%v", name, exactlyOnce), func(t *testing.T) {
				virtual(t, 1, func(b *bed) {
					opts := b.options()
					opts.ExactlyOnce, opts.Source.OnDataLoss = exactlyOnce, policy
					opts.Window.Records = 8
					open := make(chan struct{})
					b.produce("in", 0, 0, 20)
					r := b.run(opts, gate(0, open))
					b.eventually("the rest waits for room", func() bool {
						p := b.first(r)
						return p.Paused && p.WindowRecords+p.SpilledRecords == 20
					})
					<-time.After(time.Second) // the fetch that is under way
					b.produce("in", 0, 20, 100)
					b.deleteRecords(71)
					close(open)
					if policy == processor.LossStop {
						b.stops(r, "offsets 20 to 70 (51 records at most) are gone", "--to-offset 71")
						b.eventually("what was admitted is committed", func() bool { return b.committed(0) == 20 })
					} else {
						b.caughtUp(1)
					}
					b.ticks(r)
					b.gaps(r, map[string]uint64{"lost": map[string]uint64{"stop": 51, "earliest": 51, "latest": 80}[name]})
					b.stop(r)
					b.outputsAre(map[string][]int{"stop": {0, 20}, "earliest": {0, 20, 71, 100}, "latest": {0, 20}}[name]...)
				})
			})
		}
	}
}

// A secondFetch hears that a record was fetched again.
type secondFetch struct {
	offset  int64
	met     atomic.Int32
	fetched chan struct{}
}

// OnFetchRecordBuffered is called by the client for each record that it fetches.
func (h *secondFetch) OnFetchRecordBuffered(r *kgo.Record) {
	if r.Offset == h.offset && h.met.Add(1) == 2 {
		close(h.fetched)
	}
}

// The client goes back by itself when it tells of a truncation, and fetches on.
// Here one poll returns the error and what comes behind it.
func TestPolledWithATruncation(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		again := &secondFetch{offset: 50, fetched: make(chan struct{})}
		held, free := make(chan struct{}), make(chan struct{})
		var records atomic.Int32
		opts := b.options()
		opts.Source.OnDataLoss = processor.LossEarliest
		opts.Client = append(opts.Client[:len(opts.Client):len(opts.Client)], kgo.WithHooks(again))
		opts.Hooks.TransformDuration = func(string, time.Duration) { // holds the loop
			if records.Add(1) == 101 {
				close(held)
				<-free
			}
		}
		b.produce("in", 0, 0, 100)
		r := b.run(opts, gate(-1, nil))
		b.caughtUp(1)
		b.produce("in", 0, 100, 101)
		<-held
		b.produce("in", 0, 101, 102)
		<-time.After(time.Second) // polled, and not handed over
		b.truncate()
		<-again.fetched
		close(free)
		b.caughtUp(1)
		b.stop(r)
		b.outputsAre(0, 101, 50, 102) // 101 was admitted, and is read again
	})
}

// What waits for room when a truncation is found is forgotten as far as the log has lost it: the rest
// leaves, and the partition goes on.
func TestSpilledBeforeATruncation(t *testing.T) {
	for name, policy := range policies {
		t.Run(name, func(t *testing.T) {
			virtual(t, 1, func(b *bed) {
				opts := b.options()
				opts.Source.OnDataLoss = policy
				opts.Window.Records = 8
				open := make(chan struct{})
				b.produce("in", 0, 0, 20)
				r := b.run(opts, gate(0, open))
				b.eventually("the rest waits for room", func() bool {
					p := b.first(r)
					return p.Paused && p.WindowRecords == 8 && p.SpilledRecords == 12
				})
				b.truncateAt(15)
				b.eventually("the loss is counted", func() bool { return b.first(r).GapOffsets["truncated"] == 5 })
				close(open)
				if policy == processor.LossStop {
					b.stops(r, "offsets 15 to 19 (5 records at most) are gone", "--to-offset 15")
					b.eventually("what was admitted is committed", func() bool { return b.committed(0) == 8 })
				} else {
					b.patience = time.Minute
					b.caughtUp(1)
					b.produce("in", 0, 20, 25)
					b.caughtUp(1)
				}
				b.stop(r)
				b.outputsAre(map[string][]int{"stop": {0, 8}, "earliest": {0, 25}, "latest": {0, 15, 20, 25}}[name]...)
			})
		})
	}
}

// A slowLog takes its time with one message.
type slowLog struct {
	slog.Handler
	message string
	until   <-chan struct{}
}

// Handle implements slog.Handler.
func (h slowLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == h.message {
		select {
		case <-h.until:
		case <-time.After(time.Minute):
		}
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h slowLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return slowLog{h.Handler.WithAttrs(attrs), h.message, h.until}
}

// A slowPoll holds the poll in which a record comes for the second time.
type slowPoll struct {
	offset  int64
	met     atomic.Int32
	entered chan struct{}
}

// OnFetchRecordUnbuffered is called by the client for each record, in the
// goroutine that polls.
func (h *slowPoll) OnFetchRecordUnbuffered(r *kgo.Record, polled bool) {
	if polled && r.Partition == 0 && r.Offset == h.offset && h.met.Add(1) == 2 {
		close(h.entered)
		<-time.After(10 * time.Second)
	}
}

// Here one poll returns the error, and another one what comes behind it: before
// the pipeline has paused the partition, and it is handed over late.
func TestPolledBehindATruncation(t *testing.T) {
	virtual(t, 2, func(b *bed) {
		poll := &slowPoll{offset: 50, entered: make(chan struct{})}
		opts := b.options()
		opts.Source.OnDataLoss = processor.LossEarliest
		opts.Client = append(opts.Client[:len(opts.Client):len(opts.Client)], kgo.WithHooks(poll))
		opts.Logger = slog.New(slowLog{opts.Logger.Handler(), "records wait", poll.entered}) // of the error of in/1
		b.produceToAll(2, 0, 100)
		r := b.run(opts, gate(-1, nil))
		b.caughtUp(2)
		b.truncate()
		<-poll.entered
		b.eventually("the loss is counted", func() bool { return b.first(r).GapOffsets["truncated"] == 50 })
		b.produce("in", 0, 100, 110)
		b.caughtUp(1)
		b.stop(r)
		b.outputsAre(0, 100, 50, 110)
	})
}

// watchTopic counts the requests that commit an offset of a topic, at least once or
// in a transaction, by its name or one of its ids.
func (b *bed) watchTopic(topic string, ids ...[16]byte) *atomic.Int32 {
	var seen atomic.Int32
	count := func(name string, id [16]byte) {
		if name == topic || slices.Contains(ids, id) {
			seen.Add(1)
		}
	}
	b.cluster.ControlKey(int16(kmsg.OffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		for _, t := range r.(*kmsg.OffsetCommitRequest).Topics {
			count(t.Topic, t.TopicID)
		}
		return nil, nil, false
	})
	b.cluster.ControlKey(int16(kmsg.TxnOffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		for _, t := range r.(*kmsg.TxnOffsetCommitRequest).Topics {
			count(t.Topic, t.TopicID)
		}
		return nil, nil, false
	})
	return &seen
}

// One of two input topics is deleted and created anew, at once or after a while.
// Nothing is committed for it any more; the other one goes on, and a restart reads
// the new topic.
func TestRecreatedTopic(t *testing.T) {
	for name, test := range map[string]struct {
		exactlyOnce bool
		away        time.Duration // how long the topic is not there
		old         bool          // brokers that know topics by name
		idle        bool          // nothing was read of the topic
		busy        bool          // a record of it is transformed when it goes
	}{
		"at least once":                 {},
		"at least once, after a minute": {away: time.Minute},
		"at least once, by name":        {old: true},
		"at least once, idle":           {idle: true},
		"at least once, busy":           {busy: true, away: time.Minute},
		"exactly once":                  {exactlyOnce: true},
		"exactly once, after a minute":  {exactlyOnce: true, away: time.Minute},
		"exactly once, by name":         {exactlyOnce: true, old: true},
		"exactly once, idle":            {exactlyOnce: true, idle: true},
		"exactly once, busy":            {exactlyOnce: true, busy: true, away: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, 1, func(b *bed) {
				b.create("other", 1, nil)
				b.forget()
				opts := b.options()
				opts.ExactlyOnce = test.exactlyOnce
				opts.Source.Topics = []string{"in", "other"}
				if test.old {
					opts.Client = append(opts.Client[:len(opts.Client):len(opts.Client)], kgo.MaxVersions(kversion.V4_0_0()))
				}
				if !test.idle {
					b.produce("in", 0, 0, 100)
				}
				open := make(chan struct{})
				r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
					if in.Topic == "in" && in.Offset == 100 {
						select {
						case <-open:
						case <-ctx.Done():
							return ctx.Err()
						}
					}
					return passOn(ctx, in, out)
				}))
				b.caughtUp(1)
				if test.busy {
					b.produce("in", 0, 100, 101)
				}
				<-time.After(time.Minute)
				// In a session of fetches kfake does not forget a topic that is gone, and
				// answers at once: without this the clock would stand still.
				b.cluster.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
					b.cluster.KeepControl()
					<-time.After(20 * time.Millisecond)
					return nil, nil, false
				})
				old := b.cluster.TopicInfo("in").TopicID
				// Between two ticks: unlike Kafka, kfake commits offsets that were added to a
				// transaction before the topic was deleted.
				ticks := b.status(r).Commits["ok"]
				b.eventually("a tick is over", func() bool { return b.status(r).Commits["ok"] > ticks })
				if err := b.cluster.DeleteTopic("in"); err != nil {
					b.t.Fatal(err)
				}
				<-time.After(test.away)
				close(open)
				if test.away > 0 {
					others(b, 0, 10)
					if !slices.ContainsFunc(b.status(r).Problems, func(p processor.Problem) bool {
						return p.Scope == "in/0" && strings.Contains(p.Reason, "the topic is not there")
					}) {
						b.t.Errorf("no problem says that the topic is gone: %v", b.status(r).Problems)
					}
					if p := b.first(r); p.Stopped != "" {
						b.t.Errorf("stopped before the topic is there again: %s", p.Stopped)
					}
				}
				b.create("in", 1, nil)
				b.forget()
				b.produce("in", 0, 200, 210)
				<-time.After(time.Second) // from its first refused fetches on
				commits := b.watchTopic("in", old, b.cluster.TopicInfo("in").TopicID)
				b.stops(r, "deleted and created anew", "restart")
				others(b, 10, 20)
				before := b.status(r).Rebalances
				thrownOut(b, opts)
				b.eventually("it has joined again", func() bool { return b.status(r).Rebalances > before+1 })
				b.stops(r, "deleted and created anew")
				others(b, 20, 30)
				b.stop(r)
				if n := commits.Load(); n > 0 {
					b.t.Errorf("%d requests commit an offset of it", n)
				}

				if test.old { // a commit of before may have met the new topic
					return
				}
				if at := b.committed(0); at != -1 {
					b.t.Errorf("committed %d for the new topic, want nothing", at)
				}
				opts.Source.Topics = []string{"in"}
				r = b.run(opts, processor.TransformFunc(passOn))
				b.caughtUp(1)
				b.stop(r)
				if got := b.values("out", 0); len(got) < 10 || got[len(got)-10] != "200" || got[len(got)-1] != "209" {
					b.t.Errorf("outputs end in %v, want 200 to 209", got)
				}
			})
		})
	}
}

// The input topic cannot be seen for a while, as when a right is taken away: nothing
// is committed meanwhile, and then it goes on where it was.
func TestTopicThatIsHiddenForAWhile(t *testing.T) {
	for _, exactlyOnce := range []bool{false, true} {
		t.Run(fmt.Sprintf("exactlyOnce=%v", exactlyOnce), func(t *testing.T) {
			virtual(t, 1, func(b *bed) {
				opts := b.options()
				opts.ExactlyOnce = exactlyOnce
				r := b.run(opts, processor.TransformFunc(passOn))
				b.produce("in", 0, 0, 100)
				b.caughtUp(1)
				hidden := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "in", Err: kerr.TopicAuthorizationFailed, Count: -1})
				b.eventually("the reason is told", func() bool { return strings.Contains(b.problem(r, "in/0"), "the topic is not there") })
				commits := b.watchTopic("in", b.cluster.TopicInfo("in").TopicID)
				<-time.After(time.Minute)
				if n := commits.Load(); n > 0 {
					b.t.Errorf("%d requests commit an offset of a topic that may be another one", n)
				}
				hidden.Remove()
				b.forget()
				b.produce("in", 0, 100, 200)
				b.caughtUp(1)
				b.eventually("nothing is wrong any more", func() bool { return len(b.status(r).Problems) == 0 })
				b.stop(r)
				b.inOrder(0, 0, 200)
			})
		})
	}
}

// A pipeline that ends while its topic cannot be seen does not wait for records that
// it may not commit.
func TestDrainWhileTheTopicIsHidden(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		opts := b.options()
		b.produce("in", 0, 0, 10)
		r := b.run(opts, gate(5, nil))
		b.eventually("what is before the record that hangs is committed", func() bool { return b.committed(0) == 5 })
		b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "in", Err: kerr.TopicAuthorizationFailed, Count: -1})
		b.eventually("the reason is told", func() bool { return strings.Contains(b.problem(r, "in/0"), "the topic is not there") })
		began := time.Now()
		b.stop(r)
		if took := time.Since(began); took > 2*time.Second {
			b.t.Errorf("it took %v to stop", took)
		}
		if at := b.committed(0); at != 5 {
			b.t.Errorf("committed %d, want 5 as before", at)
		}
	})
}

// others writes records to the topic "other" and waits until they are committed.
func others(b *bed, from, to int) {
	b.t.Helper()
	b.produce("other", 0, from, to)
	b.eventually("the other topic is committed", func() bool {
		c, ok := b.cluster.GroupInfo("group").Commits["other"][0]
		return ok && c.Offset == b.end("other", 0)
	})
}

func (b *bed) setPartitions(topic string, n int) {
	b.t.Helper()
	answers, err := kadm.NewClient(b.own).UpdatePartitions(context.Background(), n, topic)
	if err == nil {
		err = answers.Error()
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.forget()
}

// forget makes the test's own client anew: it keeps to what it has seen of a topic.
func (b *bed) forget() {
	b.own.Close()
	b.own = b.newClient(kgo.RecordPartitioner(kgo.ManualPartitioner()))
}

// Partitions are added while the pipeline runs: their records are read from the
// first one, whatever start says. Those without a counterpart in the output wait
// for one, and the others do not wait for them.
func TestNewPartitions(t *testing.T) {
	const records = 3000
	for name, test := range map[string]struct{ exactlyOnce, serverSide, regex bool }{
		"at least once":       {},
		"exactly once":        {exactlyOnce: true},
		"of a new protocol":   {serverSide: true},
		"of a topic by regex": {regex: true},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, 2, func(b *bed) {
				opts := b.options()
				opts.ExactlyOnce, opts.Source.ServerSide = test.exactlyOnce, test.serverSide
				opts.Source.Start = processor.Start{End: true}
				if test.regex {
					opts.Source.Topics, opts.Source.Regex = nil, regexp.MustCompile("in")
				}
				r := b.run(opts, processor.TransformFunc(passOn))
				b.caughtUp(2)
				b.produceToAll(2, 0, 10)
				b.caughtUp(2)

				b.setPartitions("out", 3)
				b.setPartitions("in", 4)
				added := time.Now()
				for p, from := range []int{10, 10, 0, 0} {
					b.produce("in", int32(p), from, records)
				}
				b.eventually("those with a counterpart are done", func() bool {
					return b.committed(0) == records && b.committed(1) == records && b.committed(2) == records
				})
				if took := time.Since(added); took > 20*time.Second {
					b.t.Errorf("the new partition was found after %v, want 15 s at most", took)
				}
				b.eventually("the partition without a counterpart is named", func() bool {
					return slices.ContainsFunc(b.status(r).Problems, func(p processor.Problem) bool {
						return strings.Contains(p.Reason, "has 3 partitions") && strings.Contains(p.Reason, "--alter --topic out --partitions 4")
					})
				})
				b.eventually("the first record of it is the start", func() bool { return b.committed(3) == 0 })
				b.setPartitions("out", 4)
				b.caughtUp(4)
				b.eventually("nothing is wrong any more", func() bool { return len(b.status(r).Problems) == 0 })
				b.stop(r)
				for p := range int32(4) {
					b.inOrder(p, 0, records)
				}
			})
		})
	}
}

// A batch that is small, and has more when it is decompressed than is read. The client says so once.
func TestBatchThatDecompressesTooLarge(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		b.produce("in", 0, 0, 10)
		zeros := b.newClient(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.GzipCompression()))
		if err := zeros.ProduceSync(b.t.Context(), &kgo.Record{Topic: "in", Value: make([]byte, 64<<10)}).FirstErr(); err != nil {
			b.t.Fatal(err)
		}
		opts := b.options()
		opts.Client = append(opts.Client[:len(opts.Client):len(opts.Client)], kgo.MaxDecompressBatchBytes(16<<10))
		r := b.run(opts, processor.TransformFunc(passOn))
		b.stops(r, "the batch at offset 10", "reset its offset to 11")
		<-time.After(2 * time.Minute)
		b.stops(r, "the batch at offset 10")
		if at := b.committed(0); at != 10 {
			b.t.Errorf("the commit is at %d, want 10", at)
		}
		b.stop(r)
		b.inOrder(0, 0, 10)
	})
}
