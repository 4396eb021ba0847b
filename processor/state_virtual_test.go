//go:build synctests

package processor_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/internal/journal"
	"seriatim/processor"
)

var compact = map[string]string{"cleanup.policy": "compact"}

// stateful has a topic "state", and pipelines that use it.
func stateful(t *testing.T, partitions int32, test func(b *bed)) {
	t.Helper()
	virtual(t, partitions, func(b *bed) {
		b.create("state", 3, compact)
		test(b)
	})
}

// A wire is the network of one pipeline. Once it is cut the pipeline is, for everybody
// else, as dead as a killed one.
type wire struct {
	mu    sync.Mutex
	dead  bool
	conns []net.Conn
	dial  func(ctx context.Context, network, addr string) (net.Conn, error)
}

func (w *wire) dialer(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	conn, err := w.dial(ctx, network, addr)
	if err == nil {
		w.conns = append(w.conns, conn)
	}
	return conn, err
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = true
	for _, conn := range w.conns {
		conn.Close()
	}
}

// mortal are options of a pipeline that can be killed.
func (b *bed) mortal(name string) (processor.Options, *wire) {
	w := &wire{dial: b.dial}
	opts := b.options()
	opts.Instance, opts.StateTopic = name, "state"
	opts.DrainTimeout = time.Second
	opts.Client = append(slices.Clone(opts.Client), kgo.Dialer(w.dialer))
	return opts, w
}

// state reads what all state records come to, of "in".
func (b *bed) state(partition int32) *journal.Memory {
	b.t.Helper()
	m := journal.NewMemory()
	for _, r := range b.records("state", journal.Place("in", partition, 3)) {
		record, ours, err := journal.Decode("group", r.Key, r.Value)
		if err == nil && ours && record.Partition == partition {
			m.Apply(&record)
		}
	}
	return m
}

// nothingKept waits until nothing is left in the state topic.
func (b *bed) nothingKept(partitions int32) {
	b.t.Helper()
	for p := range partitions {
		b.eventually("nothing is left in the state topic", func() bool {
			m := b.state(p)
			return len(m.Records) == 0 && len(m.Open) == 0
		})
	}
}

// Nothing is written about a record that succeeds at the first attempt, and what was
// written about others is deleted when they are done.
func TestStateOfWhatIsDoneIsDeleted(t *testing.T) {
	for _, exactlyOnce := range []bool{false, true} {
		t.Run(fmt.Sprint("exactly once ", exactlyOnce), func(t *testing.T) {
			stateful(t, 2, func(b *bed) {
				opts, _ := b.mortal("one")
				opts.ExactlyOnce = exactlyOnce
				r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
					if in.Partition == 1 && in.Offset%10 == 0 && in.Attempt < 3 {
						return errors.New("not yet")
					}
					return passOn(ctx, in, out)
				}))
				b.produce("in", 0, 0, 1000)
				b.eventually("the first partition is done", func() bool { return b.committed(0) == 1000 })
				if s := b.status(r); s.StateWrites["open"] != 2 || s.StateWrites["attempts"] != 0 || s.StateWrites["delete"] != 0 {
					b.t.Errorf("without a failure there are these writes: %v", s.StateWrites)
				}
				b.produce("in", 1, 0, 100)
				b.caughtUp(2)
				b.eventually("what is known is deleted", func() bool { return len(b.state(1).Records) == 0 })
				if s := b.status(r); s.StateWrites["attempts"] != 20 || s.StateWrites["delete"] != 10 {
					b.t.Errorf("with 10 records that failed twice there are these writes: %v", s.StateWrites)
				}
				b.stop(r)
				b.nothingKept(2)
				b.inOrder(0, 0, 1000)
				b.inOrder(1, 0, 100)
			})
		})
	}
}

// What is not ours, torn, too large or too late is ignored, counted and deleted where it
// is ours to delete.
func TestStateThatCannotBeRead(t *testing.T) {
	stateful(t, 1, func(b *bed) {
		at := journal.Place("in", 0, 3)
		put := func(key, value string) {
			b.write(&kgo.Record{Topic: "state", Partition: at, Key: []byte(key), Value: []byte(value)})
		}
		put("customer-17", "hello")
		put("group/in/0/3/attempts/9", `{"v":1,"state":{"generation":9,"beg`)
		put("group/in/0/3/reply/9", strings.Repeat(" ", 600_000))
		put("group/in/0/3/attempts/10", string(journal.Encode(journal.Attempts{Generation: 10, Begun: 2, Failed: 2, Error: "before"})))
		put("group/in/0/3/attempts/8", string(journal.Encode(journal.Attempts{Generation: 8, Begun: 4, Failed: 4})))
		put("another/in/0/3/attempts/8", "of another group")
		b.produce("in", 0, 0, 10)
		var numbers []int
		opts, _ := b.mortal("one")
		opts.Workers = 1
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			if in.Offset == 3 {
				numbers = append(numbers, in.Attempt)
			}
			return passOn(ctx, in, out)
		}))
		b.caughtUp(1)
		// Somebody who has lost the partition does not know it yet.
		put("group/in/0/20/attempts/10", string(journal.Encode(journal.Attempts{Generation: 10, Begun: 5, Failed: 5})))
		put("group/in/0/-/open/zombie", string(journal.Encode(journal.Open{Generation: 10})))
		b.eventually("it is counted", func() bool { return b.status(r).StateIgnored["older"] == 1 })
		if s := b.status(r); s.StateIgnored["foreign"] != 1 || s.StateIgnored["torn"] != 2 || len(s.Problems) != 0 {
			b.t.Errorf("ignored are %v, problems %v", s.StateIgnored, s.Problems)
		}
		if !slices.Equal(numbers, []int{3}) {
			b.t.Errorf("the attempts are %v, want 3 alone", numbers)
		}
		b.eventually("what came too late is deleted", func() bool { m := b.state(0); return len(m.Records) == 0 && len(m.Open) == 1 })
		b.stop(r)
		b.nothingKept(1)
		b.inOrder(0, 0, 10)
	})
}

// Nothing is dispatched before the state topic is there, compacted, and read; the reason
// has the command that mends it.
func TestStateTopicThatIsMissing(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		b.produce("in", 0, 0, 10)
		opts, _ := b.mortal("one")
		r := b.run(opts, processor.TransformFunc(passOn))
		b.eventually("the problem is told", func() bool {
			reason := b.problem(r, "state topic state")
			return strings.Contains(reason, "kafka-topics.sh") && strings.Contains(reason, "--create --topic state --partitions N --config cleanup.policy=compact")
		})
		<-time.After(time.Minute)
		if s := b.status(r); s.Attempts["ok"] != 0 || b.committed(0) != 0 || !strings.Contains(b.problem(r, "in/0"), "has not been read") {
			b.t.Errorf("attempts are %v, committed is %d, problems %v", s.Attempts, b.committed(0), s.Problems)
		}
		b.create("state", 3, nil)
		b.eventually("the problem is told", func() bool {
			reason := b.problem(r, "state topic state")
			return strings.Contains(reason, "is not compacted") && strings.Contains(reason, "--add-config cleanup.policy=compact")
		})
		b.stop(r)
	})
	stateful(t, 1, func(b *bed) {
		b.produce("in", 0, 0, 10)
		opts, _ := b.mortal("one")
		r := b.run(opts, processor.TransformFunc(passOn))
		b.caughtUp(1)
		if s := b.status(r); len(s.Problems) > 0 {
			b.t.Errorf("problems are %v", s.Problems)
		}
	})
}

// A count that cannot be written holds back the attempt, and nothing else; it is told,
// and goes on when it can.
func TestRefusedCounts(t *testing.T) {
	stateful(t, 1, func(b *bed) {
		b.produce("in", 0, 0, 10)
		var mu sync.Mutex
		var late time.Time
		opts, _ := b.mortal("one")
		opts.Retry = processor.Retries{Initial: time.Millisecond}
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			if in.Offset == 5 {
				mu.Lock()
				defer mu.Unlock()
				late = time.Now()
				if in.Attempt == 1 {
					b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "state", Err: kerr.TopicAuthorizationFailed, Count: 30})
					return errors.New("once")
				}
			}
			return passOn(ctx, in, out)
		}))
		b.eventually("the problem is told", func() bool { return strings.Contains(b.problem(r, "state topic state"), "READ, WRITE and DESCRIBE") })
		first := time.Now()
		b.eventually("those before it are done", func() bool { return b.committed(0) == 5 })
		b.caughtUp(1)
		mu.Lock()
		defer mu.Unlock()
		if waited := late.Sub(first); waited < 20*time.Second {
			b.t.Errorf("the second attempt came after %v, before its count could be written", waited)
		}
		b.eventually("the problem is over", func() bool { return len(b.status(r).Problems) == 0 })
	})
}

// Notes are not kept for ever while the state topic takes nothing: they belong to attempts that
// nothing holds back. The last one of an attempt is written with the next attempt.
func TestNotesWhileTheStateTopicIsDown(t *testing.T) {
	const notes = 30_000
	stateful(t, 1, func(b *bed) {
		opts, _ := b.mortal("one")
		b.unhurried(&opts)
		opts.StateTopic, opts.Retry.Initial = "state", time.Millisecond
		var last string
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			if last = in.Note; in.Attempt > 1 {
				return passOn(ctx, in, out)
			}
			for i := range notes {
				in.SetNote(fmt.Sprintf("%0*d", processor.MaxNote, i))
				<-time.After(time.Millisecond)
			}
			return errors.New("once")
		}))
		b.eventually("its marker is written", func() bool { return len(b.state(0).Open) == 1 })
		down := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "state", Err: kerr.NotLeaderForPartition, Count: -1})
		b.produce("in", 0, 0, 1)
		b.eventually("the attempt has failed", func() bool { return b.status(r).Attempts["retry"] == 1 })
		if n := b.status(r).StateWrites["note"]; n < 1000 || n*processor.MaxNote > 20<<20 {
			b.t.Errorf("%d notes were written while none could be, want 16 MiB of them at most", n)
		}
		down.Remove()
		b.caughtUp(1)
		if want := fmt.Sprintf("%0*d", processor.MaxNote, notes-1); last != want {
			b.t.Errorf("the second attempt was given the note %.20q, want the last one", last)
		}
	})
}
