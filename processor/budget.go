package processor

import "time"

// A budget shares Window.Bytes between the assigned partitions: each is
// guaranteed bytes / (2 x assigned), and at least one record; only the other half
// is shared. So a partition whose head is stuck can fill its window without
// stopping the others.
type budget struct {
	limit     int64
	assigned  int
	used      int64 // all that is held
	overdrawn int64 // what tenures hold above their guarantee
}

// stuckHead is the age of a head from which its partition takes no more of the
// shared half.
const stuckHead = time.Second

func (b *budget) guarantee() int64 { return b.limit / int64(2*max(1, b.assigned)) }
func (b *budget) shared() int64    { return b.limit / 2 }

// allows says whether t may admit a record of the given size that is not counted
// in t yet.
func (b *budget) allows(t *tenure, size int64, headAge time.Duration) bool {
	held := t.window.Bytes()
	if held == 0 || held+size <= b.guarantee() {
		return true
	}
	if headAge > stuckHead {
		return false
	}
	over := max(0, t.bytes()+size-b.guarantee())
	return b.overdrawn-t.overdraft+over <= b.shared()
}

// account brings the sums up to date after t has grown or shrunk.
func (b *budget) account(t *tenure) {
	held := t.bytes()
	b.used += held - t.held
	t.held = held
	over := max(0, held-b.guarantee())
	b.overdrawn += over - t.overdraft
	t.overdraft = over
}

// assign changes the number of tenures, and with it every guarantee.
func (b *budget) assign(tenures map[partitionKey]*tenure) {
	b.assigned = len(tenures)
	b.used, b.overdrawn = 0, 0
	for _, t := range tenures {
		t.held, t.overdraft = 0, 0
		b.account(t)
	}
}
