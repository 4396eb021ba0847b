package processor

import (
	"slices"
	"strings"
	"sync"

	"seriatim/internal/seeded"
	"seriatim/resequence"
)

// MaxNote is how many bytes of a note are kept.
const MaxNote = 1024

// notes carries what running attempts note about their records to the loop.
type notes struct {
	wake chan struct{} // has room for one

	mu      sync.Mutex
	entries []noted
}

// A noted is what one attempt has noted.
type noted struct {
	place
	text string
}

// A place is an attempt as the loop knows it.
type place struct {
	tenure *tenure
	seq    resequence.Seq
	call   int32 // slot.calls
}

// A source is where what an attempt notes goes.
type source struct {
	place
	notes *notes
}

// SetNote notes how far the attempt has come, such as "salary service called": the next
// attempt at the record is given it as [Input.Note], should there be one. A later note takes
// the place of an earlier one; an empty one removes it. No more than [MaxNote] bytes are
// kept, and only those that are UTF-8. It is safe for use by many goroutines, and does nothing once the attempt is over.
func (in Input) SetNote(text string) {
	if in.source.notes == nil {
		return
	}
	text = strings.Clone(strings.ToValidUTF8(text[:min(len(text), MaxNote)], ""))
	in.source.notes.add(noted{in.source.place, text})
}

// add takes the place of what is there of the same attempt, so that there are never more
// entries than attempts.
func (n *notes) add(note noted) {
	n.mu.Lock()
	if i := slices.IndexFunc(n.entries, func(other noted) bool { return other.place == note.place }); i >= 0 {
		n.entries[i] = note
	} else {
		n.entries = append(n.entries, note)
	}
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// takeNotes keeps what was noted. The loop calls it before it takes the result of any
// attempt, so that a note comes before the end of the attempt that made it.
func (l *loop) takeNotes() {
	l.notes.mu.Lock()
	entries := l.notes.entries
	l.notes.entries = nil
	l.notes.mu.Unlock()
	for _, e := range entries {
		if e.tenure.phase == closed {
			continue
		}
		// A slot that is freed, and one whose attempt is over, say no more.
		s := e.tenure.window.Slot(e.seq)
		if s == nil || s.state != running || s.calls != e.call && !seeded.Bug("late-note-kept") {
			continue
		}
		s.note = &e.text
		l.keepNote(e.tenure, s)
	}
}

// noteText is the note about the record; empty if there is none.
func (s *slot) noteText() string {
	if s.note == nil {
		return ""
	}
	return *s.note
}
