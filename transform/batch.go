package transform

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"seriatim/internal/seeded"
	"seriatim/processor"
)

const (
	// maxReply is the largest reply to a batch. What is larger comes again in smaller
	// batches.
	maxReply = 32 << 20
	// maxAllOutputs is the most outputs of a batch, as maxOutputs of a record.
	maxAllOutputs = 10 * maxOutputs
)

// batchHeader says that a request is a batch, and of how many records.
const batchHeader = "Seriatim-Batch"

// TransformBatch makes one attempt at each of the records, all in one request.
func (c *Client) TransformBatch(ctx context.Context, items []processor.Item) error {
	return c.call(ctx, items[0].Input, func(s *seat, e *endpoint, authorization string) error {
		address, end := c.callbacks.begin(&s.term, inputs(items)...)
		defer end()
		deadline := s.term.end()
		s.fields().ofBatch(items, c.headers, deadline, address, authorization)
		return c.ask(s, e, appendItems(nil, items, deadline), func(resp *http.Response) error { return e.batchReply(resp, items) })
	})
}

// inputs are the records of a batch.
func inputs(items []processor.Item) []processor.Input {
	ins := make([]processor.Input, len(items))
	for i := range items {
		ins[i] = items[i].Input
	}
	return ins
}

// ofBatch collects the headers of a call for a batch.
func (f *fields) ofBatch(items []processor.Item, others []header, deadline time.Time, address, authorization string) {
	for _, h := range others {
		if h.name != "Content-Type" {
			f.add(h.name, h.value)
		}
	}
	if authorization != "" {
		f.add("Authorization", authorization)
	}
	f.add("Content-Type", linesType)
	f.number(batchHeader, int64(len(items)))
	f.source(items[0].Input, deadline, address)
}

// appendItems appends each record as a line, numbered from 1.
func appendItems(dst []byte, items []processor.Item, deadline time.Time) []byte {
	if dst == nil {
		size := 0
		for i := range items {
			size += 512 + len(items[i].Value)
		}
		dst = make([]byte, 0, size)
	}
	for i := range items {
		dst = appendRequest(dst, uint64(i+1), items[i].Input, deadline)
	}
	return dst
}

// batchReply reads a reply to a batch and answers the records. The error is for those that
// have no answer.
func (e *endpoint) batchReply(resp *http.Response, items []processor.Item) error {
	filtered, err := e.verdict(resp)
	switch {
	case err != nil:
	case filtered:
		for i := range items {
			items[i].Answer(nil)
		}
	default:
		var body []byte
		var answers []json.RawMessage
		if body, err = e.body(resp, maxReply); err == nil {
			if answers, err = answersIn(body); err == nil {
				err = failer(e.fail).answers(answers, items)
			}
		}
	}
	return e.judged(err)
}

// answersIn splits a reply: lines, or a JSON array.
func answersIn(body []byte) (answers []json.RawMessage, err error) {
	if body = bytes.TrimSpace(body); bytes.HasPrefix(body, []byte("[")) {
		if json.Unmarshal(body, &answers) != nil {
			return nil, malformed("its body is not a whole JSON array")
		}
		return answers, nil
	}
	for line := range bytes.Lines(body) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			answers = append(answers, line)
		}
	}
	return answers, nil
}

// answers gives the records of a batch their answers, by id. Ids that were not asked for,
// or come twice, cast doubt on all the others: then it gives none. The error is for
// those that have no answer.
func (fail failer) answers(answers []json.RawMessage, items []processor.Item) error {
	given := make([]bool, len(items))
	errs := make([]error, len(items))
	outputs := 0
	v := values{size: 64 << 10}
	for place, text := range answers {
		id, ok := idOf(text)
		if seeded.Bug("batch-answer-by-place") {
			id = uint64(place + 1)
		}
		switch {
		case !ok:
			return malformed(`answer %d of the batch is no JSON object with an "id"`, place+1)
		case id == 0 || id > uint64(len(items)):
			return malformed("it answers id %d of a batch with the ids 1 to %d", id, len(items))
		case given[id-1]:
			return malformed("it answers id %d of the batch twice", id)
		}
		item := &items[id-1]
		given[id-1], errs[id-1] = true, fail.answer(&v, text, item.Input, &item.Outputs)
		if outputs += item.Len(); outputs > maxAllOutputs {
			return fail(processor.Reject, "its reply has more than %d outputs; have it make fewer, or let batches have fewer records", maxAllOutputs)
		}
	}
	missing := 0
	for i := range items {
		if given[i] {
			items[i].Answer(errs[i])
		} else {
			missing++
		}
	}
	if missing > 0 {
		return fail(processor.Retry, "its reply leaves out %d of the %d records of the batch", missing, len(items))
	}
	return nil
}

// TransformBatch makes one attempt at each of the records, all of them at one process.
func (p *Pool) TransformBatch(ctx context.Context, items []processor.Item) error {
	note := func(text string) {
		for i := range items {
			items[i].SetNote(text)
		}
	}
	return p.ask(ctx, items[0].Input, wasCrowded(items), note, func(id uint64, deadline time.Time) []byte {
		return appendBatch(id, items, deadline)
	}, func(line []byte) error {
		return failer(p.fail).judged(p.readBatch(line, items))
	})
}

// appendBatch returns the line with a batch: its records as they are alone, in an array.
func appendBatch(id uint64, items []processor.Item, deadline time.Time) []byte {
	size := 64
	for i := range items {
		size += 512 + len(items[i].Value)
	}
	line := strconv.AppendUint(append(make([]byte, 0, size), `{"id":`...), id, 10)
	line = append(line, `,"batch":[`...)
	for i := range items {
		line = appendRequest(line, uint64(i+1), items[i].Input, deadline)
		line[len(line)-1] = ',' // not the end of the line
	}
	return append(line[:len(line)-1], "]}\n"...)
}

func (p *Pool) readBatch(line []byte, items []processor.Item) error {
	var a struct {
		spoken

		ID      json.RawMessage
		Answers *[]json.RawMessage
	}
	if decodeAnswer(line, &a) != nil {
		return malformed(`the answer to a batch is not one JSON object of "id" and "answers", or "id", "error", "kind" and "after_ms"`)
	}
	failed, err := a.failure(p.fail)
	switch {
	case err != nil:
		return err
	case (a.Answers == nil) == (failed == nil):
		return malformed(`the answer to a batch must have one of "answers" and "error"`)
	case failed != nil:
		return failed
	}
	return failer(p.fail).answers(*a.Answers, items)
}

var (
	_ processor.BatchTransform = (*Client)(nil)
	_ processor.BatchTransform = (*Pool)(nil)
)
