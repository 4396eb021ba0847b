//go:build !race

package explore

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"seriatim/offsets"
	"seriatim/resequence"
)

// A kind says what becomes of a record.
type kind uint8

const (
	echo     kind = iota // one output
	filtered             // none
	aborted              // nobody reads it
	marker               // the end of a transaction
)

type record struct {
	offset offsets.Offset
	kind   kind
}

// A source is the log of a partition. Between its records are offsets without any.
type source struct {
	start   offsets.Next
	records []record
}

var sources = [partitions]source{
	{10, []record{{10, echo}, {12, filtered}, {13, echo}, {14, echo}}},
	{0, []record{{3, echo}, {4, aborted}, {5, marker}, {8, echo}}},
}

const mostRecords = 4

func (s *source) end() offsets.Next { return s.records[len(s.records)-1].offset.Next() }

// delivered returns the index of the first record from i on that a reader gets.
func (s *source) delivered(i int) int {
	for i < len(s.records) && s.records[i].kind == aborted {
		i++
	}
	return i
}

// at returns the index of the first record at or behind an offset.
func (s *source) at(from offsets.Next) int {
	i := 0
	for i < len(s.records) && s.records[i].offset < offsets.Offset(from) {
		i++
	}
	return i
}

// windowRecords is how many records a window holds.
const windowRecords = 2

// A stage is how far a tenure is with a record.
type stage uint8

const (
	unread    stage = iota
	running         // admitted, and dispatched at once
	completed       // released, maybe
	sent            // its output is with the producer
	written         // its output is in the log, the producer does not know
	settled
)

// A tenure is what an instance has of a partition. It does with window and tracker
// what the engine does with them.
type tenure struct {
	source   *source
	mistake  mistake
	window   *resequence.Window[int] // indices of records
	tracker  *offsets.Tracker
	index    []int // by Seq
	stages   [mostRecords]stage
	released resequence.Seq
	emitNext resequence.Seq
}

// An op is a step of a tenure.
type op struct {
	do     doing
	record int // index
}

type doing uint8

const (
	admit doing = iota
	complete
	emit
	write
	ack
)

func (d doing) String() string {
	return [...]string{"admits", "completes", "emits", "has written its output of", "learns of its output of"}[d]
}

func newTenure(s *source, from offsets.Next, m mistake) *tenure {
	return &tenure{
		source: s, mistake: m, tracker: offsets.NewTracker(from),
		window: resequence.New[int](resequence.Limits{Records: windowRecords, Bytes: 1 << 20}),
	}
}

// ops returns what may happen next.
func (t *tenure) ops() []op {
	var list []op
	if i := t.source.delivered(t.source.at(t.tracker.Position())); i < len(t.source.records) && t.window.Fits(1) {
		list = append(list, op{admit, i})
	}
	for i, s := range t.stages {
		if s == running {
			list = append(list, op{complete, i})
		}
	}
	if t.emitNext < t.released {
		list = append(list, op{emit, t.index[t.emitNext]})
	}
	if i := slices.Index(t.stages[:], sent); i >= 0 {
		list = append(list, op{write, i})
	}
	if i := slices.Index(t.stages[:], written); i >= 0 {
		list = append(list, op{ack, i})
	}
	return list
}

func (t *tenure) seq(record int) resequence.Seq { return resequence.Seq(slices.Index(t.index, record)) }

// step does what o says. An error is a broken rule.
func (t *tenure) step(o op) error {
	switch o.do {
	case admit:
		if _, err := t.tracker.Track(t.source.records[o.record].offset, 0); err != nil {
			return err
		}
		seq, slot, err := t.window.Admit(1)
		if err != nil {
			return err
		}
		if held := t.window.Len(); held > windowRecords {
			return fmt.Errorf("the window holds %d records, more than %d", held, windowRecords)
		}
		*slot = o.record
		t.index = append(t.index, o.record)
		t.stages[o.record] = running
		if t.source.records[o.record].kind == marker {
			t.stages[o.record] = completed
			if err := t.window.Complete(seq, 0); err != nil {
				return err
			}
		}
	case complete:
		t.stages[o.record] = completed
		if err := t.window.Complete(t.seq(o.record), 1); err != nil {
			return err
		}
	case emit:
		t.stages[o.record] = sent
		t.emitNext++
		if t.mistake == settledBeforeAck {
			if err := t.settle(t.seq(o.record)); err != nil {
				return err
			}
			t.stages[o.record] = sent
		}
	case write:
		t.stages[o.record] = written
		if t.mistake == settledBeforeAck {
			t.stages[o.record] = settled
		}
	case ack:
		if err := t.settle(t.seq(o.record)); err != nil {
			return err
		}
	}
	return t.advance()
}

// advance releases what is finished, and settles what has no output when its turn
// to be emitted comes.
func (t *tenure) advance() error {
	for {
		seq, slot, ok := t.window.Release()
		if !ok {
			break
		}
		if seq != t.released || *slot != t.index[seq] || t.stages[*slot] != completed {
			return fmt.Errorf("seq %d was released with record %d, which is in stage %d; want seq %d", seq, *slot, t.stages[*slot], t.released)
		}
		t.released++
	}
	for t.emitNext < t.released && t.source.records[t.index[t.emitNext]].kind != echo {
		t.emitNext++
		if t.mistake == filteredNeverSettles {
			continue
		}
		if err := t.settle(t.emitNext - 1); err != nil {
			return err
		}
	}
	return nil
}

func (t *tenure) settle(seq resequence.Seq) error {
	if err := t.tracker.SettleRange(uint64(seq), uint64(seq)+1); err != nil {
		return err
	}
	t.stages[t.index[seq]] = settled
	return t.window.Free(resequence.Seq(t.tracker.Settled()))
}

// quiet reports whether all that was admitted is settled.
func (t *tenure) quiet() bool {
	return !slices.ContainsFunc(t.stages[:], func(s stage) bool { return s != unread && s != settled })
}

// fingerprint tells two tenures apart. All of their state is in it, but for what
// only says when an idle ring of more than 64 slots is given back.
func (t *tenure) fingerprint() string {
	var b strings.Builder
	fmt.Fprint(&b, t.source.start, t.index, t.stages, t.released, t.emitNext)
	for _, v := range []reflect.Value{reflect.ValueOf(t.window).Elem(), reflect.ValueOf(t.tracker).Elem()} {
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; name != "peak" && name != "calm" {
				fmt.Fprint(&b, " ", v.Field(i))
			}
		}
	}
	return b.String()
}
