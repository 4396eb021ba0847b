package transform

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

// A batch that failed with others in one process waits for one to itself, gets it as soon
// as there is one, and has it alone until it is done.
func TestCrowdedBatchIsAloneNext(t *testing.T) {
	p := &Pool{opts: ExecOptions{InFlight: 8, Timeout: time.Hour}, name: "w", ctx: t.Context(), changed: make(chan struct{}), victims: make(map[victim]struct{})}
	for range 2 {
		w := &process{pool: p, calls: make(map[uint64]*call), ending: make(chan struct{})}
		p.ready = append(p.ready, w)
	}
	in := processor.Input{Record: new(kgo.Record)}
	take := func(ctx context.Context, alone bool) (*process, *call) {
		w, c, err := p.acquire(ctx, in, alone, nil)
		if err != nil {
			t.Error(err)
		}
		return w, c
	}
	end := func(w *process, c *call) {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(w.calls, c.id)
		p.wake()
	}
	for range 3 {
		take(t.Context(), false)
	}
	got := make(chan *process, 1)
	go func() {
		w, _ := take(t.Context(), true)
		got <- w
	}()
	kept := func() *process {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, w := range p.ready {
			if w.kept {
				return w
			}
		}
		return nil
	}
	await := func(what string, done func() bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !done(); <-time.After(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("waited 10s for %s", what)
			}
		}
	}
	await("a process to be kept free", func() bool { return kept() != nil })
	mine := kept()
	for range 4 {
		if w, _ := take(t.Context(), false); w == mine {
			t.Error("the process that is kept free was given another call")
		}
	}
	select {
	case <-got:
		t.Fatal("it was given a process with other calls")
	default:
	}
	p.mu.Lock()
	var there []*call
	for _, c := range mine.calls {
		there = append(there, c)
	}
	p.mu.Unlock()
	for _, c := range there {
		end(mine, c)
	}
	if w := <-got; w != mine || len(w.calls) != 1 {
		t.Errorf("it has a process with %d calls, want the one that was kept free, alone", len(w.calls))
	}
	if w, _ := take(t.Context(), false); w == mine {
		t.Error("while it runs the process was given another call")
	}
	p.share(mine)
	mine.calls = map[uint64]*call{}
	if w, _ := take(t.Context(), false); w != mine {
		t.Error("afterwards the process is not used")
	}

	// Who gives up waiting keeps nothing.
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, _, err := p.acquire(ctx, in, true, nil)
		gone <- err
	}()
	await("a process to be kept free", func() bool { return kept() != nil })
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) || kept() != nil {
		t.Errorf("got error %v, a process is still kept: %v", err, kept() != nil)
	}
}

// The calls of a process that ends know whether they were alone in it.
func TestCrowdedEnds(t *testing.T) {
	for _, n := range []int{1, 3} {
		p := &Pool{name: "w", changed: make(chan struct{}), victims: make(map[victim]struct{})}
		w := &process{pool: p, calls: make(map[uint64]*call), why: errors.New("it ended")}
		var calls []*call
		for range n {
			calls = append(calls, w.call(victim{offset: int64(len(calls))}, nil))
		}
		p.crash(w)
		for _, c := range calls {
			c.term.stop()
			if got := wasCrowded([]processor.Item{{}, {Input: processor.Input{Last: (<-c.answer).err}}}); got != (n > 1) {
				t.Errorf("with %d calls: crowded is %v", n, got)
			}
		}
	}
	if wasCrowded([]processor.Item{{}, {Input: processor.Input{Last: errors.New("busy")}}}) {
		t.Error("another failure counts as the end of a process with several calls")
	}
}

// A process that is ended gets no more records, however long it takes to go: they would
// fail with it.
func TestProcessThatIsEndedGetsNoMore(t *testing.T) {
	p, err := Exec(ExecOptions{Command: []string{os.Args[0], "be-a-worker", "stubborn"}, Processes: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	in := processor.Input{Record: &kgo.Record{Value: []byte("hello")}}
	if _, err := processor.Call(t.Context(), p, in); err != nil {
		t.Fatal(err)
	}
	takes := func() []*process {
		p.mu.Lock()
		defer p.mu.Unlock()
		return slices.Clone(p.ready)
	}
	w := takes()[0]
	w.end(errors.New("it said what is no answer"))
	for deadline := time.Now().Add(10 * time.Second); slices.Contains(takes(), w); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it still gets records after 10s")
		}
	}
	select {
	case <-w.gone:
		t.Error("it got records until it was gone")
	default:
	}
	if _, err := processor.Call(t.Context(), p, in); err != nil {
		t.Errorf("got error %v, want the answer of the next process", err)
	}
}
