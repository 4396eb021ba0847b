package processor

import (
	"time"

	"seriatim/internal/seeded"
)

// A budget shares Window.Bytes between the assigned partitions: each is
// guaranteed bytes / (2 x assigned), and at least one record; only the other half
// is shared. So a partition whose head is stuck can fill its window without
// stopping the others.
type budget struct {
	limit     int64
	assigned  int
	used      int64 // all that is held
	overdrawn int64 // what tenures hold above their guarantee
	replies   int64 // of used: results from the state topic whose records are still to come

	// growth is the moving average of the size of a record's outputs over its own.
	// Outputs exist when they are counted and are never refused, so room for them is
	// set aside when their record is admitted.
	growth float64
}

// stuckHead is the age of a head from which its partition takes no more of the
// shared half.
const stuckHead = time.Second

func (b *budget) guarantee() int64 { return b.limit / int64(2*max(1, b.assigned)) }

// leastFetch is a batch of a producer with its defaults: with less, brokers would send
// parts of batches, which are of no use.
const leastFetch = 16 << 10

// fetch is how much of a partition a broker may send at a time. Of every partition one
// answer can arrive before it is paused, and small records take several times as much here
// as on the way: 3 million records of 100 bytes over 1,000 partitions held 1.3 GiB when each
// was sent by the megabyte.
func (b *budget) fetch() int32 { return int32(min(max(b.guarantee()/4, leastFetch), 1<<30)) }

func (b *budget) shared() int64 { return b.limit / 2 }

// allows says whether t may admit a record of the given size that is not counted
// in t yet.
func (b *budget) allows(t *tenure, size int64, headAge time.Duration) bool {
	size += int64(b.growth * float64(size))
	if held := t.window.Bytes() + b.expected(t); held == 0 || held+size <= b.guarantee() {
		return true
	}
	if headAge > stuckHead && !seeded.Bug("stuck-head-takes-all") {
		return false
	}
	over := max(0, t.bytes()+b.expected(t)+size-b.guarantee())
	return b.overdrawn-t.overdraft+over <= b.shared()
}

// expected is the size of the outputs that are not there yet.
func (b *budget) expected(t *tenure) int64 { return int64(b.growth * float64(t.unfinished)) }

// learn takes the size of a record and of its outputs.
func (b *budget) learn(in, out int64) { b.growth += (float64(out)/float64(in) - b.growth) / 64 }

// account brings the sums up to date after t has grown or shrunk.
func (b *budget) account(t *tenure) {
	held := t.bytes() + b.expected(t)
	b.used += held - t.held
	t.held = held
	if t.memory != nil {
		b.replies += t.memory.Replies - t.replies
		t.replies = t.memory.Replies
	}
	over := max(0, held-b.guarantee())
	b.overdrawn += over - t.overdraft
	t.overdraft = over
}

// assign changes the number of tenures, and with it every guarantee.
func (b *budget) assign(tenures map[partitionKey]*tenure) {
	b.assigned = len(tenures)
	b.used, b.overdrawn, b.replies = 0, 0, 0
	for _, t := range tenures {
		t.held, t.overdraft, t.replies = 0, 0, 0
		b.account(t)
	}
}
