package demo

// An order checks one stream whose records are numbered 0, 1, 2 and so on. The
// zero order has seen nothing.
type order struct {
	next  int64              // all before it were seen
	ahead map[int64]struct{} // seen, and beyond next
	end   int64              // one past the last of those that were seen

	outOfOrder int // records that came after a later one
	repeated   int // records that came again
}

// see takes the next record that came.
func (o *order) see(n int64) {
	if _, again := o.ahead[n]; again || n < o.next {
		o.repeated++
		return
	}
	if n < o.end {
		o.outOfOrder++
	}
	if o.end = max(o.end, n+1); n != o.next {
		if o.ahead == nil {
			o.ahead = make(map[int64]struct{})
		}
		o.ahead[n] = struct{}{}
		return
	}
	for o.next++; len(o.ahead) > 0; o.next++ {
		if _, seen := o.ahead[o.next]; !seen {
			return
		}
		delete(o.ahead, o.next)
	}
}

// missing counts the records before sent that were not seen: those that later
// ones came before, and those that may still be under way.
func (o *order) missing(sent int64) (skipped, coming int) {
	for n := o.next; n < min(o.end, sent); n++ {
		if _, seen := o.ahead[n]; !seen {
			skipped++
		}
	}
	return skipped, int(max(0, sent-o.end))
}

// A sparseOrder checks one stream whose numbers have gaps and may repeat, as the
// source offsets of outputs do.
type sparseOrder struct {
	highest    int64
	outOfOrder int
}

func (o *sparseOrder) see(n int64) {
	if n < o.highest {
		o.outOfOrder++
	}
	o.highest = max(o.highest, n)
}
