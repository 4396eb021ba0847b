package demo

// An order checks one stream whose records are numbered 0, 1, 2 and so on. The
// zero order has seen nothing.
type order struct {
	next    int64              // all before it were seen
	ahead   map[int64]struct{} // seen, and beyond next
	highest int64              // seen; one less than next if nothing is ahead

	outOfOrder int // records that came after a later one
	repeated   int // records that came again
}

// see takes the next record that came.
func (o *order) see(n int64) {
	if _, again := o.ahead[n]; again || n < o.next {
		o.repeated++
		return
	}
	if n < o.highest {
		o.outOfOrder++
	}
	if o.highest = max(o.highest, n); n != o.next {
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

// missing counts the records before end that were not seen.
func (o *order) missing(end int64) int {
	missing := end - o.next
	for n := range o.ahead {
		if n < end {
			missing--
		}
	}
	return int(max(0, missing))
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
