//go:build !synctests

package processor_test

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

var (
	proofRecords = flag.Int("records", 240_000, "how many records TestKills moves")
	proofKills   = flag.Int("kills", 15, "how many members it kills, more or less")
)

// Members are killed, stopped and started again while records flow in real time.
// Every output is read and judged: at least once, the stream steps back after a
// kill only, and no further than to what was committed before it; exactly once,
// it never does.
func TestKills(t *testing.T) {
	for _, exactlyOnce := range []bool{false, true} {
		for _, serverSide := range []bool{false, true} {
			t.Run(fmt.Sprintf("exactlyOnce=%v,serverSide=%v", exactlyOnce, serverSide), func(t *testing.T) {
				kills(t, exactlyOnce, serverSide)
			})
		}
	}
}

func kills(t *testing.T, exactlyOnce, serverSide bool) {
	seed := seed()
	t.Logf("seed %d", seed)
	p := &proof{
		t: t, rng: rand.New(rand.NewPCG(seed, seed)), exactlyOnce: exactlyOnce, serverSide: serverSide,
		perPartition: int64(*proofRecords/4/proofPartitions+9) / 10 * 10,
		lastKill:     make([][]floor, proofPartitions),
		b: newBed(t, proofPartitions, nil, kfake.BrokerConfigs(map[string]string{
			"group.consumer.session.timeout.ms":    strconv.Itoa(int(proofSession.Milliseconds())),
			"group.consumer.heartbeat.interval.ms": strconv.Itoa(int(proofSession.Milliseconds() / 4)),
		})),
	}
	began := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	var beside sync.WaitGroup
	defer func() {
		if t.Failed() {
			p.explain()
		}
		cancel()
		beside.Wait()
	}()
	beside.Go(func() { p.feed(ctx) })
	beside.Go(func() { p.judge(ctx) })
	p.churn()
	p.b.eventually("every output was read", func() bool { return t.Failed() || p.all() })
	p.b.caughtUp(proofPartitions)
	for _, m := range p.members {
		if err := m.stop(); err != nil {
			t.Errorf("a member that left returned %v, want nil", err)
		}
	}
	took := time.Since(began)
	p.abandoned.Wait()
	fmt.Printf("kills: %d records, %d kills, %d clean stops, %d repeated, %v, %.0f records/s, %s\n", p.read.Load(), p.killed,
		p.stopped, p.repeated.Load(), took.Round(time.Second), float64(p.read.Load())/took.Seconds(), t.Name())
	if p.killed == 0 {
		t.Error("void: nobody was killed")
	}
	if p.killed > 9 && !exactlyOnce && p.repeated.Load() == 0 {
		t.Error("void: no kill has met work in flight")
	}
}

// explain tells what everybody waits for.
func (p *proof) explain() {
	for i := range int32(proofPartitions) {
		out := p.b.cluster.PartitionInfo("out", i)
		p.t.Logf("partition %d: in ends at %d, committed %d; out ends at %d, is stable up to %d", i, p.b.end("in", i), p.b.committed(i), out.HighWatermark, out.LastStableOffset)
	}
	for _, m := range p.members {
		s := p.b.status(m.running)
		p.t.Logf("%s is %s, transactions %v, problems %v", m.instance, s.State, s.Transactions, s.Problems)
		for _, part := range s.Partitions {
			p.t.Logf("%+v, head %+v", part, part.Head)
		}
	}
}

// all reports whether every output was read.
func (p *proof) all() bool { return p.read.Load() == proofPartitions*p.perPartition }

const (
	proofPartitions = 8
	proofMembers    = 4
	proofSession    = time.Second // after which the partitions of a dead member move
	proofAhead      = 50_000      // records that may be on their way
)

// A proof is records that carry their number, members that move them, and what
// was seen of the outputs. Every 10 inputs have 10 outputs: the one with number 3
// has none, the one with number 7 has two. The outputs are numbered in the order
// in which they have to appear.
type proof struct {
	t            *testing.T
	b            *bed
	rng          *rand.Rand
	exactlyOnce  bool
	serverSide   bool
	perPartition int64 // inputs, and outputs

	members   []*mortal
	started   int
	abandoned sync.WaitGroup
	killed    int
	stopped   int

	read     atomic.Int64 // outputs, each once
	repeated atomic.Int64

	mu       sync.Mutex
	lastKill [][]floor // by partition
}

// A floor is what a kill left of a partition: outputs from outEnd on may step back
// to the outputs of the record at committed, no further.
type floor struct{ outEnd, committed int64 }

// A mortal is a member whose connections can be cut.
type mortal struct {
	*running
	instance string
	*cutter
}

// outputNumber is the number of the first output of an input, or, if it has none,
// of the next.
func outputNumber(input int64) int64 {
	n := input % 10
	switch {
	case n > 7:
	case n > 3:
		n--
	}
	return input - input%10 + n
}

// number turns an input into its outputs. One in a thousand is slow, another one
// fails at first.
func number(ctx context.Context, in processor.Input, out *processor.Outputs) error {
	input := int64(binary.BigEndian.Uint64(in.Value))
	switch input % 1000 {
	case 500:
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	case 501:
		if in.Attempt == 1 {
			return errors.New("a failure that passes")
		}
	}
	first, n := outputNumber(input), int64(1)
	switch input % 10 {
	case 3:
		n = 0
	case 7:
		n = 2
	}
	for i := range n {
		value := make([]byte, 32)
		binary.BigEndian.PutUint64(value, uint64(first+i))
		out.Add(value)
	}
	return nil
}

// join starts a member.
func (p *proof) join(instance string) {
	opts := p.b.options()
	opts.Logger = slog.New(slog.NewTextHandler(logTo{p.t}, &slog.HandlerOptions{Level: slog.LevelError}))
	opts.Instance = instance
	opts.ExactlyOnce = p.exactlyOnce
	opts.Workers = 16
	opts.Source.ServerSide = p.serverSide
	opts.Source.SessionTimeout = proofSession
	opts.Source.RebalanceTimeout = 4 * proofSession
	opts.Retry.Initial = 10 * time.Millisecond
	opts.DrainTimeout = 3 * time.Second
	// The broker forgets members that wait for others to join for longer than their
	// session, and never answers them.
	opts.Client = append(slices.Clone(opts.Client), kgo.RequestTimeoutOverhead(proofSession))
	c := p.b.cuttable(&opts)
	p.members = append(p.members, &mortal{p.b.run(opts, processor.TransformFunc(number)), instance, c})
}

func (p *proof) joinNew() {
	p.started++
	p.join(fmt.Sprintf("i%d", p.started))
}

// churn kills, stops and starts members whenever some records have passed, so
// that there are always some on their way.
func (p *proof) churn() {
	for range proofMembers {
		p.joinNew()
	}
	each := 4 * int64(*proofRecords) / int64(5**proofKills) // four events of five are kills
	for at := int64(0); !p.t.Failed(); {
		at += 1 + p.rng.Int64N(2*each)
		if at >= proofPartitions*p.perPartition {
			return
		}
		p.b.eventually("records go on", func() bool { return p.t.Failed() || p.read.Load() >= at })
		switch n := p.rng.IntN(5); {
		case len(p.members) < proofMembers:
			p.joinNew()
		case n == 0 && p.killed > 0:
			if err := p.take().stop(); err != nil && !errors.Is(err, processor.ErrDrainDeadline) {
				p.t.Errorf("a member that left returned %v", err)
			}
			p.stopped++
		default:
			m := p.take()
			p.b.eventually("the member has work in flight", func() bool { return p.t.Failed() || p.all() || p.works(m) })
			p.kill(m)
			p.join(m.instance) // restarted by a supervisor
		}
	}
}

// take takes a random member off the list.
func (p *proof) take() *mortal {
	i := p.rng.IntN(len(p.members))
	m := p.members[i]
	p.members = append(p.members[:i], p.members[i+1:]...)
	return m
}

// works reports whether a member has records that it has not committed. The broker
// keeps one for ever that is gone before its first join is over.
func (p *proof) works(m *mortal) bool {
	for _, part := range p.b.status(m.running).Partitions {
		if part.WindowRecords > 0 || part.NextOffset > part.CommittedOffset {
			return true
		}
	}
	return false
}

// kill cuts a member off the broker for ever. What it goes on doing reaches
// nobody; its memory is given back after a while.
func (p *proof) kill(m *mortal) {
	p.killed++
	p.mu.Lock()
	for i := range p.lastKill {
		p.lastKill[i] = append(p.lastKill[i], floor{p.b.end("out", int32(i)), max(0, p.b.committed(int32(i)))})
	}
	p.mu.Unlock()
	m.cut()
	p.abandoned.Go(func() {
		<-time.After(3 * proofSession)
		_ = m.stop() // it cannot drain
	})
}

// feed writes the input, not too far ahead of what was read of the output, and
// deletes what nobody needs any more.
func (p *proof) feed(ctx context.Context) {
	producer := p.b.own
	const batch = 500
	for from := int64(0); from < p.perPartition && ctx.Err() == nil; from += batch {
		for from*proofPartitions > p.read.Load()+proofAhead {
			select {
			case <-ctx.Done():
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
		for partition := range int32(proofPartitions) {
			for n := from; n < min(from+batch, p.perPartition); n++ {
				producer.Produce(ctx, &kgo.Record{Topic: "in", Partition: partition, Value: binary.BigEndian.AppendUint64(nil, uint64(n))}, nil)
			}
		}
		if err := producer.Flush(ctx); err != nil {
			return
		}
		if from%(20*batch) == 0 {
			for partition := range int32(proofPartitions) {
				_ = p.b.cluster.DeleteRecords("in", partition, max(0, p.b.committed(partition)))
			}
		}
	}
}

// judge reads every output and holds it against what has to appear.
func (p *proof) judge(ctx context.Context) {
	start := make(map[int32]kgo.Offset)
	for partition := range int32(proofPartitions) {
		start[partition] = kgo.NewOffset().AtStart()
	}
	reader, err := kgo.NewClient(append(p.b.client[:len(p.b.client):len(p.b.client)],
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"out": start}))...)
	if err != nil {
		p.t.Error(err)
		return
	}
	defer reader.Close()
	next := make([]int64, proofPartitions)     // the number that was not seen yet
	previous := make([]int64, proofPartitions) // the number of the last output
	for i := range previous {
		previous[i] = -1
	}
	seen := 0
	for !p.all() {
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			return
		}
		if err := fetches.Err(); err != nil {
			p.t.Errorf("reading the outputs: %v", err)
			return
		}
		fresh := int64(0)
		for i := fetches.RecordIter(); !i.Done(); {
			r := i.Next()
			n := int64(binary.BigEndian.Uint64(r.Value))
			switch {
			case n == next[r.Partition]:
				next[r.Partition]++
				fresh++
			case n > next[r.Partition]:
				p.t.Errorf("out/%d at %d: output %d appears before %d", r.Partition, r.Offset, n, next[r.Partition])
				return
			case p.exactlyOnce:
				p.t.Errorf("out/%d at %d: output %d appears again", r.Partition, r.Offset, n)
				return
			default:
				p.repeated.Add(1)
				if n != previous[r.Partition]+1 {
					if lowest := p.lowest(r); n < lowest {
						p.t.Errorf("out/%d at %d: the stream steps back to output %d, before %d, which was committed when a member was killed last",
							r.Partition, r.Offset, n, lowest)
						return
					}
				}
			}
			previous[r.Partition] = n
			if seen++; seen%20_000 == 0 {
				_ = p.b.cluster.DeleteRecords("out", r.Partition, r.Offset)
			}
		}
		p.read.Add(fresh)
	}
}

// lowest is the output to which the stream may step back at r.
func (p *proof) lowest(r *kgo.Record) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	kills := p.lastKill[r.Partition]
	for len(kills) > 1 && kills[1].outEnd <= r.Offset {
		kills = kills[1:]
	}
	p.lastKill[r.Partition] = kills
	if len(kills) == 0 || kills[0].outEnd > r.Offset {
		return 0
	}
	return outputNumber(kills[0].committed)
}
