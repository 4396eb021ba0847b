package processor_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"seriatim/processor"
)

// What an attempt notes is given to the next one at that record, and to no other. An
// attempt that is over notes nothing any more.
func TestNotesReachTheNextAttempt(t *testing.T) {
	const records, attempts = 20, 4
	b := newBed(t, 1, nil)
	b.produce("in", 0, 0, records)
	opts := b.options()
	opts.OnExhausted = processor.Drop
	opts.Retry = processor.Retries{Attempts: attempts, Initial: time.Millisecond, Max: time.Millisecond}
	var mu sync.Mutex
	got := make(map[int64][]string)
	ended := make(map[int64]processor.Input)
	r := b.run(opts, processor.TransformFunc(func(_ context.Context, in processor.Input, _ *processor.Outputs) error {
		mu.Lock()
		defer mu.Unlock()
		got[in.Offset] = append(got[in.Offset], in.Note)
		if before, ok := ended[in.Offset]; ok {
			before.SetNote("too late")
		}
		ended[in.Offset] = in
		switch in.Attempt {
		case 1:
			in.SetNote("overwritten")
			in.SetNote(fmt.Sprintf("stage 1 of %d", in.Offset))
		case 3:
			in.SetNote("")
		}
		return errors.New("not yet")
	}))
	b.caughtUp(1)
	b.stop(r)
	for offset := range int64(records) {
		stage := fmt.Sprintf("stage 1 of %d", offset)
		if want := []string{"", stage, stage, ""}; !slices.Equal(got[offset], want) {
			t.Errorf("the attempts at offset %d were given %q, want %q", offset, got[offset], want)
		}
	}
}

// A note is kept to its first 1024 bytes, of which none are half a letter, and shown
// with the record when it is held.
func TestNoteOfAHeldRecord(t *testing.T) {
	b := newBed(t, 1, nil)
	b.produce("in", 0, 0, 1)
	opts := b.options()
	opts.OnExhausted, opts.Retry.Attempts = processor.Hold, 1
	r := b.run(opts, processor.TransformFunc(func(_ context.Context, in processor.Input, _ *processor.Outputs) error {
		in.SetNote(strings.Repeat("é", 1000) + "€")
		return errors.New("not yet")
	}))
	var held []processor.HeldRecord
	b.eventually("it is held", func() bool {
		if s := b.status(r); len(s.Partitions) == 1 {
			held = s.Partitions[0].Held
		}
		return len(held) == 1
	})
	if want := strings.Repeat("é", processor.MaxNote/2); held[0].Note != want {
		t.Errorf("the note has %d bytes, want %d", len(held[0].Note), len(want))
	}
}

// A transform that is called without a pipeline may note what it likes.
func TestNoteWithoutAPipeline(t *testing.T) {
	_, err := processor.Call(t.Context(), processor.TransformFunc(func(_ context.Context, in processor.Input, _ *processor.Outputs) error {
		in.SetNote("stage 1")
		return nil
	}), processor.Input{})
	if err != nil {
		t.Error(err)
	}
}
