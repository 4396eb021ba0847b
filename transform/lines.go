package transform

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

// appendRequest appends an attempt as the line that a process gets.
func appendRequest(dst []byte, id uint64, in processor.Input, deadline time.Time) []byte {
	var room [96]byte
	key := in.AppendIdempotencyKey(room[:0])
	dst = strconv.AppendUint(append(dst, `{"id":`...), id, 10)
	dst = appendText(append(dst, `,"pipeline":`...), []byte(in.Pipeline))
	dst = appendText(append(dst, `,"topic":`...), []byte(in.Topic))
	dst = strconv.AppendInt(append(dst, `,"partition":`...), int64(in.Partition), 10)
	dst = strconv.AppendInt(append(dst, `,"offset":`...), in.Offset, 10)
	dst = strconv.AppendInt(append(dst, `,"timestamp":`...), in.Timestamp.UnixMilli(), 10)
	dst = appendBytes(append(dst, `,"key":`...), in.Key)
	dst = appendBytes(append(dst, `,"value":`...), in.Value)
	dst = appendHeaders(append(dst, `,"headers":`...), in.Headers)
	dst = strconv.AppendInt(append(dst, `,"attempt":`...), int64(in.Attempt), 10)
	dst = strconv.AppendInt(append(dst, `,"deadline_ms":`...), deadline.UnixMilli(), 10)
	dst = appendText(append(dst, `,"idempotency_key":`...), key)
	if in.Note != "" {
		dst = appendText(append(dst, `,"note":`...), []byte(in.Note))
	}
	dst = appendTrace(append(dst, `,"traceparent":"`...), in, key)
	return append(dst, "\"}\n"...)
}

// appendBytes appends bytes as they stand in JSON, see textOf.
func appendBytes(dst, b []byte) []byte {
	switch {
	case b == nil:
		return append(dst, "null"...)
	case utf8.Valid(b):
		return appendText(dst, b)
	default:
		dst = append(dst, `{"base64":"`...)
		return append(base64.StdEncoding.AppendEncode(dst, b), `"}`...)
	}
}

// appendText appends UTF-8 text as a JSON string. U+2028 and U+2029 are escaped
// too: JSON does not ask for it, but some readers of lines end one there, such as
// Python's splitlines.
func appendText(dst, text []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i, c := range text {
		separator := c == 0xe2 && i+2 < len(text) && text[i+1] == 0x80 && text[i+2]&^1 == 0xa8
		if c >= ' ' && c != '"' && c != '\\' && !separator {
			continue
		}
		dst = append(dst, text[from:i]...)
		if separator {
			dst = append(dst, `\u202`...)
			dst = append(dst, hex[text[i+2]&15])
			from = i + 3
			continue
		}
		from = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(append(dst, text[from:]...), '"')
}

// appendHeaders appends headers as headersOf makes them.
func appendHeaders(dst []byte, headers []kgo.RecordHeader) []byte {
	if len(headers) == 0 {
		return append(dst, "{}"...)
	}
	object := headersOf(headers)
	dst = append(dst, '{')
	for i := range headers {
		name := strings.ToValidUTF8(headers[i].Key, "\uFFFD")
		value, first := object[name]
		if !first {
			continue // written with the first of its name
		}
		delete(object, name)
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(appendText(dst, []byte(name)), ':')
		text, err := json.Marshal(value)
		if err != nil {
			panic("headers cannot be written as JSON: " + err.Error()) // text, null, arrays of them
		}
		dst = append(dst, text...)
	}
	return append(dst, '}')
}

// idOf returns the id of an answer. If that begins with it nothing else is read:
// the whole line is for the attempt to read, beside others.
func idOf(line []byte) (id uint64, ok bool) {
	if id, ok := leadingID(line); ok {
		return id, true
	}
	var a struct{ ID *uint64 }
	if json.Unmarshal(line, &a) != nil || a.ID == nil {
		return 0, false
	}
	return *a.ID, true
}

func leadingID(line []byte) (id uint64, ok bool) {
	rest := bytes.TrimLeft(line, " \t")
	for _, token := range []string{"{", `"id"`, ":"} {
		if !bytes.HasPrefix(rest, []byte(token)) {
			return 0, false
		}
		rest = bytes.TrimLeft(rest[len(token):], " \t")
	}
	digits := 0
	for digits < len(rest) && '0' <= rest[digits] && rest[digits] <= '9' {
		digits++
	}
	// 1e+05 begins like the id of another record: some libraries write 100000 so.
	if digits == len(rest) || !strings.ContainsRune(",} \t\r\n", rune(rest[digits])) {
		return 0, false
	}
	id, err := strconv.ParseUint(string(rest[:digits]), 10, 64)
	return id, err == nil
}

// A failer makes the failure of a worker, beginning with its name.
type failer func(kind processor.Kind, format string, args ...any) *processor.Failure

// answer reads an answer: it adds the outputs, or returns why the attempt failed.
func (fail failer) answer(v *values, text []byte, in processor.Input, out *processor.Outputs) error {
	if v.quick(text, in, out) {
		return nil
	}
	return fail.judged(fail.read(text, in, out))
}

// judged makes a failure of an answer that breaks the contract.
func (fail failer) judged(err error) error {
	var broken *malformedError
	switch {
	case errors.As(err, &broken):
		return fail(processor.Retry, "its answer breaks the contract: %w; mend the worker (docs/workers.md)", broken)
	case errors.Is(err, errTooMany):
		return fail(processor.Reject, "its answer has more than %d outputs; have it make fewer of one record", maxOutputs)
	}
	return err
}

func (fail failer) read(text []byte, in processor.Input, out *processor.Outputs) error {
	if !utf8.Valid(text) { // the decoder would replace what is not
		return malformed(`it is not UTF-8; send such bytes as {"base64": "…"}`)
	}
	var a struct {
		spoken

		ID      json.RawMessage
		Outputs json.RawMessage
	}
	if err := decodeAnswer(text, &a); err != nil {
		return malformed(`it is not one JSON object of "id" and "outputs", or "id", "error", "kind" and "after_ms"`)
	}
	switch failed, err := a.failure(fail); {
	case err != nil:
		return err
	case (a.Outputs == nil) == (failed == nil):
		return malformed(`it must have one of "outputs" and "error"; [] is no output`)
	case failed != nil:
		return failed
	case a.Outputs[0] != '[':
		return malformed(`"outputs" is not an array`)
	}
	return addOutputs(outline{in.Key, in.Headers}, a.Outputs, out)
}

// decodeAnswer decodes one JSON object into a, all of whose fields a must know.
func decodeAnswer(text []byte, a any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(a); err != nil {
		return err
	}
	if decoder.More() {
		return errors.New("there is more than one object")
	}
	return nil
}

// spoken is how an answer tells of a failure.
type spoken struct {
	Error   *string
	Kind    string
	AfterMS uint32 `json:"after_ms"`
}

// failure is the failure that an answer tells of, nil if none. The error is one of the
// contract.
func (s spoken) failure(fail failer) (*processor.Failure, error) {
	switch {
	case s.Error == nil && (s.Kind != "" || s.AfterMS != 0):
		return nil, malformed(`"kind" and "after_ms" stand with "error" only`)
	case s.Error == nil:
		return nil, nil //nolint:nilnil // there is none
	case s.Kind == "reject":
		return fail(processor.Reject, "answered reject: this record can never work: %s", said(*s.Error)), nil
	case s.Kind == "retry" || s.Kind == "":
		failure := fail(processor.Retry, "answered retry: %s", said(*s.Error))
		failure.After = time.Duration(s.AfterMS) * time.Millisecond
		return failure, nil
	default:
		return nil, malformed(`"kind" must be retry or reject`)
	}
}
