//go:build !race

package explore

import (
	"errors"
	"fmt"

	"seriatim/offsets"
)

const (
	instances  = 2
	partitions = 2
)

// A mistake is one that the world makes on purpose, to see that it is found.
type mistake string

const (
	none                 mistake = ""
	settledBeforeAck     mistake = "an output counts as settled when the producer has it"
	filteredNeverSettles mistake = "the frontier does not pass a record without outputs"
	commitPolled         mistake = "what was polled is committed"
	noLastCommit         mistake = "a revoke commits nothing"
	noDrain              mistake = "a revoke drops what runs"
	noFencing            mistake = "the broker takes commits of members that are none any more"
	pollNotFlushed       mistake = "what was polled before a revoke reaches the next tenure"
	startBehind          mistake = "a tenure starts one behind what was committed"
)

// A world is one state of everything. Equal worlds have equal futures.
type world struct {
	parts  [partitions]part
	insts  [instances]instance
	held   [instances][partitions]held
	faults uint8 // that have happened
}

// A part is what broker and group know of a partition.
type part struct {
	committed uint8
	outcomes  uint8 // records with an outcome: written, or filtered; by index
	owner     uint8 // instance, or nobody
	unclean   bool  // what the last tenure wrote may not be committed
}

const nobody = instances

// held is a tenure of an instance. The zero held is none.
type held struct {
	state     uint16 // of the tenure
	committed uint8  // that the instance knows of
	draining  bool
	repeats   bool // it may: the tenure before did not end well

	polled uint8 // by a tenure that is over; for pollNotFlushed
}

type instance struct {
	life    life
	request request
}

type life uint8

const (
	up   life = iota
	lost      // the group has thrown it out, it has not noticed
	dead      // the group has not noticed
	gone      // it may start again
)

// A request is a commit.
type request struct {
	phase phase
	marks [partitions]uint8 // 0: not in it
}

type phase uint8

const (
	idle phase = iota
	travelling
	taken
)

// A step leads from one world to the next.
type step struct {
	what     string
	instance uint8
	part     uint8
	op       op
}

func (s step) String() string {
	switch {
	case s.what == "":
		return fmt.Sprintf("instance %d %s %d/%d", s.instance, s.op.do, s.part, sources[s.part].records[s.op.record].offset)
	case s.part == partitions:
		return fmt.Sprintf("instance %d %s", s.instance, s.what)
	default:
		return fmt.Sprintf("instance %d %s %d", s.instance, s.what, s.part)
	}
}

// rules are what the world runs by.
type rules struct {
	mistake mistake
	faults  uint8
	tenures *tenures
}

func (r *rules) begin() world {
	var w world
	for p := range w.parts {
		w.parts[p] = part{committed: uint8(sources[p].start), owner: nobody}
	}
	return w
}

// steps calls try with every world that may come next, or with the rule that is
// broken on the way there. It reports whether anything but faults may happen.
func (r *rules) steps(w world, try func(step, world, error)) (goesOn bool) {
	fault := func(s step, w world, err error) {
		if err == nil {
			err = r.unseen(&w)
		}
		try(s, w, err)
	}
	next := func(s step, w world, err error) {
		goesOn = true
		fault(s, w, err)
	}
	for i := range uint8(instances) {
		in := w.insts[i]
		for p := range uint8(partitions) {
			if w.held[i][p].state != 0 {
				r.work(w, i, p, next)
				r.handOver(w, i, p, next, fault)
			}
			if in.life == up && w.parts[p].owner == nobody {
				next(step{what: "gets partition", instance: i, part: p}, r.assign(w, i, p), nil)
			}
		}
		r.commits(w, i, next)
		r.lives(w, i, next, fault)
	}
	return goesOn
}

// unseen takes the steps at once of which nobody can tell when they happen, so that
// worlds which differ in them alone are one: released outputs go to the producer, and
// an instance that the group has thrown out goes on, but for what others can read.
func (r *rules) unseen(w *world) error {
	for i := range w.held {
		for p := range w.held[i] {
			h := &w.held[i][p]
			for again := h.state != 0; again; {
				again = false
				for _, e := range r.tenures.edges(h.state) {
					zombie := w.insts[i].life == lost && (e.op.do == ack || e.op.do == admit && !h.draining ||
						e.op.do == complete && sources[p].records[e.op.record].kind == echo)
					if e.op.do != emit && !zombie {
						continue
					}
					if e.err != nil {
						return e.err
					}
					h.state, again = e.to, true
					break
				}
			}
		}
	}
	return nil
}

// work has a tenure go on.
func (r *rules) work(w world, i, p uint8, next func(step, world, error)) {
	h, in := w.held[i][p], w.insts[i]
	if in.life != up && in.life != lost {
		return
	}
	for _, e := range r.tenures.edges(h.state) {
		if e.op.do == admit && h.draining {
			continue
		}
		w2, err := w, e.err
		w2.held[i][p].state = e.to
		bit := uint8(1) << e.op.record
		switch {
		case err != nil:
		case e.op.do == write:
			err = w2.appear(p, e.op.record, h.repeats)
			w2.parts[p].outcomes |= bit
		case e.op.do == complete && sources[p].records[e.op.record].kind != echo:
			w2.parts[p].outcomes |= bit
		}
		next(step{instance: i, part: p, op: e.op}, w2, err)
	}
}

// appear checks an output that is written.
func (w *world) appear(p uint8, record int, repeats bool) error {
	for i := range record {
		if sources[p].records[i].kind == echo && w.parts[p].outcomes&(1<<i) == 0 {
			return fmt.Errorf("P1: the output of %d appears before that of %d", sources[p].records[record].offset, sources[p].records[i].offset)
		}
	}
	if w.parts[p].outcomes&(1<<record) != 0 && !repeats {
		return fmt.Errorf("P3: the output of %d is repeated, and nothing explains it", sources[p].records[record].offset)
	}
	return nil
}

// beyond reports whether outputs are in the log that are not committed.
func (w *world) beyond(p uint8) bool {
	for i, r := range sources[p].records {
		if r.kind == echo && r.offset >= offsets.Offset(w.parts[p].committed) && w.parts[p].outcomes&(1<<i) != 0 {
			return true
		}
	}
	return false
}

func (r *rules) assign(w world, i, p uint8) world {
	part := &w.parts[p]
	from := offsets.Next(part.committed)
	if r.mistake == startBehind {
		from++
	}
	from = max(from, offsets.Next(w.held[i][p].polled))
	zombie := w.held[1-i][p].state != 0
	w.held[i][p] = held{state: r.tenures.begin(p, from), committed: part.committed, repeats: part.unclean || zombie}
	part.owner, part.unclean = i, false
	w.rebalanced(r)
	return w
}

// rebalanced begins another generation: commits of the last one are refused, which
// tells an instance nothing.
func (w *world) rebalanced(r *rules) {
	for i := range w.insts {
		if req := &w.insts[i].request; req.phase == travelling && r.mistake != noFencing {
			*req = request{}
		}
	}
}

// handOver revokes a partition, drains it, and gives it back.
func (r *rules) handOver(w world, i, p uint8, next, fault func(step, world, error)) {
	h, in := w.held[i][p], w.insts[i]
	if in.life != up {
		return
	}
	if !h.draining {
		if w.faults < r.faults {
			w.faults++
			w.held[i][p].draining = true
			fault(step{what: "is to give up partition", instance: i, part: p}, w, nil)
		}
		return
	}
	if in.request.phase != idle {
		return
	}
	state := r.tenures.states[h.state]
	if (state.quiet || r.mistake == noDrain) && (state.frontier == h.committed || r.mistake == noLastCommit) {
		w2 := w
		unclean := w.held[1-i][p].state != 0 || h.repeats && w.beyond(p)
		w2.release(r, i, p, unclean)
		next(step{what: "has drained partition", instance: i, part: p}, w2, nil)
	}
	if !state.quiet || state.frontier != h.committed {
		w.release(r, i, p, true)
		next(step{what: "abandons the drain of partition", instance: i, part: p}, w, nil)
	}
}

func (w *world) release(r *rules, i, p uint8, unclean bool) {
	polled := r.tenures.states[w.held[i][p].state].position
	w.held[i][p] = held{}
	if r.mistake == pollNotFlushed {
		w.held[i][p].polled = polled
	}
	w.parts[p].owner, w.parts[p].unclean = nobody, unclean
	w.rebalanced(r)
}

// commits has an instance commit.
func (r *rules) commits(w world, i uint8, next func(step, world, error)) {
	in := &w.insts[i]
	at := step{instance: i, part: partitions}
	switch in.request.phase {
	case idle:
		if in.life != up {
			return
		}
		moved := false
		for p, h := range w.held[i] {
			if h.state == 0 {
				continue
			}
			state := r.tenures.states[h.state]
			in.request.marks[p] = state.frontier
			if r.mistake == commitPolled {
				in.request.marks[p] = state.position
			}
			moved = moved || in.request.marks[p] != h.committed
		}
		if moved {
			in.request.phase = travelling
			at.what = "commits"
			next(at, w, nil)
		}
	case travelling:
		var err error
		for p, to := range in.request.marks {
			if to != 0 {
				err = errors.Join(err, w.commit(p, to))
			}
		}
		in.request.phase = taken
		if in.life == dead {
			in.request = request{}
		}
		at.what = "has its commit taken"
		next(at, w, err)
	case taken:
		for p, to := range in.request.marks {
			if h := &w.held[i][p]; to != 0 && h.state != 0 {
				h.committed = to
			}
		}
		at.what = "has its commit answered"
		in.request = request{}
		next(at, w, nil)
	}
}

// commit checks a commit that the broker takes.
func (w *world) commit(p int, to uint8) error {
	part := &w.parts[p]
	if to < part.committed {
		return fmt.Errorf("P4: the commit of partition %d moves from %d back to %d", p, part.committed, to)
	}
	for i, r := range sources[p].records {
		if (r.kind == echo || r.kind == filtered) && r.offset < offsets.Offset(to) && part.outcomes&(1<<i) == 0 {
			return fmt.Errorf("P2: the commit of partition %d at %d passes record %d, which has no outcome", p, to, r.offset)
		}
	}
	part.committed = to
	return nil
}

// lives kills instances, starts them again, and has them lose their session.
func (r *rules) lives(w world, i uint8, next, fault func(step, world, error)) {
	in := &w.insts[i]
	at := func(what string) step { return step{what: what, instance: i, part: partitions} }
	switch in.life {
	case up, lost:
		if in.life == lost {
			w2 := w
			w2.held[i], w2.insts[i] = [partitions]held{}, instance{}
			next(at("notices that its session is lost"), w2, nil)
		}
		if w.faults == r.faults {
			return
		}
		w.faults++
		for p := range w.parts {
			if w.parts[p].owner == i {
				w.parts[p].unclean = true
			}
		}
		if in.life == up {
			w2 := w
			w2.insts[i].life = lost
			for p := range w2.held[i] {
				w2.held[i][p].repeats = true
			}
			w2.expel(r, i)
			fault(at("loses its session"), w2, nil)
		}
		w.held[i] = [partitions]held{}
		w.insts[i].life = dead
		if in.request.phase != travelling {
			in.request = request{}
		}
		fault(at("crashes"), w, nil)
	case dead:
		w.insts[i] = instance{life: gone}
		w.expel(r, i)
		next(at("is missed by the group"), w, nil)
	case gone:
		in.life = up
		next(at("starts again"), w, nil)
	}
}

// expel takes its partitions from an instance.
func (w *world) expel(r *rules, i uint8) {
	for p := range w.parts {
		if w.parts[p].owner == i {
			w.parts[p].owner = nobody
		}
	}
	w.rebalanced(r)
}

// finished says what is left to do; nil if nothing is.
func (w *world) finished() error {
	for p := range w.parts {
		if end := sources[p].end(); offsets.Next(w.parts[p].committed) != end {
			return fmt.Errorf("P8: nothing more happens, and partition %d is committed at %d of %d", p, w.parts[p].committed, end)
		}
		for i, rec := range sources[p].records {
			if rec.kind == echo && w.parts[p].outcomes&(1<<i) == 0 {
				return fmt.Errorf("P2: nothing more happens, and the output of %d/%d is missing", p, rec.offset)
			}
		}
	}
	return nil
}

// key orders the instances.
func (w *world) key(i uint8) uint64 {
	in := &w.insts[i]
	key := uint64(in.life)<<2 | uint64(in.request.phase)
	for p, h := range w.held[i] {
		key = key<<5 | uint64(in.request.marks[p])
		key = key<<12 | uint64(h.state)
		key = key<<5 | uint64(h.committed)
		for _, b := range []bool{h.draining, h.repeats, w.parts[p].owner == i} {
			key <<= 1
			if b {
				key |= 1
			}
		}
	}
	return key
}

// canonical is the same world for both of a pair of mirror images: the instances are
// alike.
func (w world) canonical() (c world, mirrored bool) {
	if w.key(1) < w.key(0) {
		return w.mirrored(), true
	}
	return w, false
}

// mirrored is the same world with the instances' names swapped.
func (w world) mirrored() world {
	w.insts[0], w.insts[1] = w.insts[1], w.insts[0]
	w.held[0], w.held[1] = w.held[1], w.held[0]
	for p := range w.parts {
		if o := &w.parts[p].owner; *o != nobody {
			*o = 1 - *o
		}
	}
	return w
}
