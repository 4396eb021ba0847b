package processor

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/offsets"
	"seriatim/resequence"
)

// A bench drives a scheduler with workers that are played: each chunk is done
// after the time that its tenure's records take.
type bench struct {
	t     *testing.T
	sched *scheduler
	now   time.Time
	busy  []*chunk
	takes map[*tenure]time.Duration // each record
	done  map[*tenure]int           // records
	most  map[*tenure]int           // chunks at a time
}

func newBench(t *testing.T, workers, perPartition int) *bench {
	return &bench{
		t: t, sched: newScheduler(workers, perPartition, 0), now: time.Unix(0, 0),
		takes: make(map[*tenure]time.Duration), done: make(map[*tenure]int), most: make(map[*tenure]int),
	}
}

// tenure makes one that has records to dispatch.
func (b *bench) tenure(records int, takes time.Duration) *tenure {
	t := newTenure(partitionKey{"in", int32(len(b.takes))}, &Options{Window: Window{Records: 1 << 20, Bytes: 1 << 40}}, new(counters), b.now)
	t.tracker = offsets.NewTracker(0)
	b.takes[t] = takes
	b.admit(t, records)
	return t
}

func (b *bench) admit(t *tenure, records int) {
	b.t.Helper()
	for range records {
		_, s, err := t.window.Admit(1)
		if err != nil {
			b.t.Fatal(err)
		}
		*s = slot{record: new(kgo.Record)}
	}
	b.sched.want(t)
}

// dispatch does what the loop does after each message.
func (b *bench) dispatch() {
	for b.sched.free > 0 {
		t := b.sched.turn(b.now)
		if t == nil {
			return
		}
		if c := b.sched.cut(t, b.now, 1); c != nil {
			b.busy = append(b.busy, c)
		}
		b.sched.want(t)
		b.most[t] = max(b.most[t], t.running)
	}
}

// run lets time pass.
func (b *bench) run(d time.Duration) {
	for end := b.now.Add(d); b.now.Before(end); b.now = b.now.Add(time.Millisecond) {
		busy := b.busy
		b.busy = nil
		for _, c := range busy {
			took := b.takes[c.tenure] * time.Duration(len(c.attempts))
			if b.now.Sub(c.started) < took {
				b.busy = append(b.busy, c)
				continue
			}
			c.took = took
			for i := range c.attempts {
				c.attempts[i].ran = true
			}
			b.done[c.tenure] += len(c.attempts)
			t := c.tenure
			b.sched.done(c)
			b.sched.want(t)
			b.sched.recycle(c)
			b.dispatch()
		}
		b.dispatch()
	}
}

// Records of one partition hang or take longer, all others take 10 ms: the others
// keep their share of the workers.
func TestHangingPartitionStarvesNobody(t *testing.T) {
	const workers, partitions, lasts = 64, 8, 2 * time.Second
	for _, test := range []struct {
		what string
		slow time.Duration
	}{{"for ever", 1000 * time.Hour}, {"for seconds", 5 * time.Second}, {"for 80 ms", 80 * time.Millisecond}} {
		t.Run(test.what, func(t *testing.T) {
			b := newBench(t, workers, 0)
			slow := b.tenure(2000, test.slow)
			for range partitions - 1 {
				b.tenure(10000, 10*time.Millisecond)
			}
			b.run(lasts)
			share := workers / partitions
			want := int(lasts/(11*time.Millisecond)) * share * 9 / 10
			for tenure, n := range b.done {
				if tenure != slow && n < want {
					t.Errorf("partition %d did %d records, want at least %d", tenure.partition, n, want)
				}
			}
		})
	}
}

// One partition has work, the others have none: it gets every worker, and gives
// them back when others come.
func TestHotPartitionUsesWhatOthersLeave(t *testing.T) {
	b := newBench(t, 64, 0)
	hot := b.tenure(50000, 10*time.Millisecond)
	idle := b.tenure(0, 10*time.Millisecond)
	b.run(100 * time.Millisecond)
	if b.most[hot] != 64 {
		t.Errorf("the hot partition had at most %d workers, want all 64", b.most[hot])
	}
	b.admit(idle, 1000)
	b.run(500 * time.Millisecond)
	if b.done[idle] != 1000 {
		t.Errorf("the other partition did %d of 1000 records in half a second", b.done[idle])
	}
}

func TestWorkersPerPartitionIsTheMost(t *testing.T) {
	b := newBench(t, 64, 5)
	for range 3 {
		b.tenure(1000, 10*time.Millisecond)
	}
	b.run(100 * time.Millisecond)
	for tenure, most := range b.most {
		if most != 5 {
			t.Errorf("partition %d had at most %d workers, want 5", tenure.partition, most)
		}
	}
}

// Chunks begin at one record, grow to 64 for cheap transforms, and shrink again
// when they get slow.
func TestChunksAdaptToTheTransform(t *testing.T) {
	b := newBench(t, 1, 0)
	if n := b.sched.chunkSize(); n != 1 {
		t.Errorf("the first chunk has %d records, want 1", n)
	}
	tenure := b.tenure(20000, 100*time.Nanosecond)
	b.run(150 * time.Millisecond)
	if n := b.sched.chunkSize(); n != maxChunk {
		t.Errorf("with transforms of 100 ns a chunk has %d records, want %d", n, maxChunk)
	}
	b.takes[tenure] = 2 * time.Microsecond
	b.run(100 * time.Millisecond)
	if n := b.sched.chunkSize(); n < 8 || n > 12 {
		t.Errorf("with transforms of 2 µs a chunk has %d records, want about 10", n)
	}
	b.takes[tenure] = 10 * time.Millisecond
	b.run(200 * time.Millisecond)
	if n := b.sched.chunkSize(); n != 1 {
		t.Errorf("with transforms of 10 ms a chunk has %d records, want 1", n)
	}
}

// What waits for another attempt goes first, by age and alone.
func TestRetriesAreCutFirstAndAlone(t *testing.T) {
	b := newBench(t, 4, 0)
	b.sched.mean = 1 // cheap: chunks of 64
	tenure := b.tenure(100, time.Millisecond)
	first := b.sched.cut(tenure, b.now, 1)
	if len(first.attempts) != maxChunk {
		t.Fatalf("the first chunk has %d records, want %d", len(first.attempts), maxChunk)
	}
	for _, seq := range []resequence.Seq{7, 3, 5} {
		tenure.again(seq)
	}
	for _, want := range []resequence.Seq{3, 5, 7} {
		c := b.sched.cut(tenure, b.now, 2)
		if len(c.attempts) != 1 || c.attempts[0].seq != want || c.attempts[0].number != 2 {
			t.Errorf("the next chunk is %+v, want the second attempt at %d alone", c.attempts, want)
		}
	}
	if b.sched.free != 0 || b.sched.turn(b.now) != tenure {
		t.Errorf("%d workers are free, the rest of the records waits: %v", b.sched.free, tenure.wants())
	}
}

// Control records are complete when they are admitted; no worker sees them.
func TestControlRecordsAreNotDispatched(t *testing.T) {
	b := newBench(t, 4, 0)
	b.sched.mean = 1
	tenure := b.tenure(6, time.Millisecond)
	for _, seq := range []resequence.Seq{0, 1, 3, 5} {
		tenure.window.Slot(seq).state = control
	}
	c := b.sched.cut(tenure, b.now, 1)
	if len(c.attempts) != 2 || c.attempts[0].seq != 2 || c.attempts[1].seq != 4 {
		t.Errorf("the chunk is %+v, want the records 2 and 4", c.attempts)
	}
	b.admit(tenure, 1)
	tenure.window.Slot(6).state = control
	if c := b.sched.cut(tenure, b.now, 1); c != nil || tenure.wants() || b.sched.free != 3 {
		t.Errorf("a control record alone made the chunk %+v, %d workers free", c, b.sched.free)
	}
}

// A partition that has nothing to dispatch any more when its turn comes, since it has stopped or what it
// had is settled, has no share of the workers that another one must leave to it.
func TestWhoHasNothingLeftHasNoShare(t *testing.T) {
	b := newBench(t, 4, 0)
	b.tenure(10, time.Hour)
	stopped := b.tenure(10, time.Hour)
	stopped.stopAt = 0
	b.dispatch()
	if got := b.sched.share(); got != 4 {
		t.Errorf("the other one's share is %d workers, want all 4", got)
	}
}
