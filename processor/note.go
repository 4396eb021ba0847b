package processor

import (
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

	mu     sync.Mutex
	latest map[place]string // of each attempt: never more than there are attempts
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
	in.source.notes.set(in.source.place, text)
}

func (n *notes) set(of place, text string) {
	n.mu.Lock()
	if n.latest == nil {
		n.latest = make(map[place]string)
	}
	n.latest[of] = text
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
	latest := l.notes.latest
	l.notes.latest = nil
	l.notes.mu.Unlock()
	for of, text := range latest {
		if of.tenure.phase == closed {
			continue
		}
		// A slot that is freed, and one whose attempt is over, say no more.
		s := of.tenure.window.Slot(of.seq)
		if s == nil || s.state != running || s.calls != of.call && !seeded.Bug("late-note-kept") {
			continue
		}
		s.note = &text
		l.keepNote(of.tenure, s)
	}
}

// past is what the next attempt is told of those before it.
func (s *slot) past() *past {
	p := &past{note: s.noteText()}
	if s.failed != nil {
		p.last = s.failed.err
	}
	return p
}

// noteText is the note about the record; empty if there is none.
func (s *slot) noteText() string {
	if s.note == nil {
		return ""
	}
	return *s.note
}
