package transform

import (
	"bytes"
	"encoding/json"
	"time"

	"seriatim/processor"
)

// A report is what a process says about a call that it works on: one of the two.
type report struct {
	extend *float64 // milliseconds
	note   *string
}

// longestReport is the longest line that may be one: a note of which each byte is escaped.
const longestReport = 8 << 10

// reportOf returns the report that a line is, or nil for any other. The error is one of
// the contract.
func reportOf(line []byte) (*report, error) {
	if len(line) > longestReport || !bytes.Contains(line, []byte(`"extend"`)) && !bytes.Contains(line, []byte(`"note"`)) {
		return nil, nil //nolint:nilnil // an answer, and nothing to look at closer
	}
	var r struct {
		ID     json.RawMessage
		Extend *float64
		Note   *string
	}
	var answer struct{ Outputs, Error, Answers json.RawMessage }
	switch {
	case json.Unmarshal(line, &answer) != nil, answer.Outputs != nil, answer.Error != nil, answer.Answers != nil:
		return nil, nil //nolint:nilnil // a word in a value of an answer
	case decodeAnswer(line, &r) != nil, (r.Extend == nil) == (r.Note == nil):
		return nil, malformed(`a report is "id" and "extend", a number of milliseconds, or "note", a text`)
	case r.Extend != nil && *r.Extend < 1:
		return nil, malformed(`"extend" is less than 1`)
	case r.Note != nil && len(*r.Note) > processor.MaxNote:
		return nil, malformed(`"note" has more than %d bytes`, processor.MaxNote)
	}
	return &report{r.Extend, r.Note}, nil
}

// reported takes a report. One about a call that is over, or never was, changes nothing.
func (p *Pool) reported(w *process, id uint64, r *report) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := w.calls[id]
	if c == nil || c.abandoned {
		p.ignored++
		p.log.Debug("a report about a record that the worker does not have is ignored", "pid", w.pid, "id", id, "ignored", p.ignored)
		return
	}
	w.alive = time.Now()
	if r.note != nil {
		c.note(*r.note)
	} else {
		c.term.extend(milliseconds(*r.extend))
	}
}
