package transform

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/itchyny/gojq"
	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/jq"
	"seriatim/processor"
)

// JQOptions are the settings of [JQ].
type JQOptions struct {
	// Program is in the jq language, and must not be empty.
	Program string
	// Timeout is for the run of the program on one record; 2s if zero. It bounds
	// what a program that goes astray can take of the machine.
	Timeout time.Duration
}

// A program is a jq program as a transform. Make one with [JQ].
type program struct {
	code    *gojq.Code
	timeout time.Duration
	// running has room for as many runs as there are CPUs: more would not be faster,
	// and with their number the memory would grow that programs gone astray take.
	running chan struct{}
}

// JQ returns a transform that runs a jq program on each value, which must be JSON:
// see docs/workers.md. The error says what is wrong with the program, or that
// Timeout is negative.
func JQ(opts JQOptions) (processor.Transform, error) {
	if opts.Timeout < 0 {
		return nil, fmt.Errorf("timeout: %v is negative", opts.Timeout)
	}
	if opts.Timeout == 0 {
		opts.Timeout = 2 * time.Second
	}
	code, err := jq.Compile(opts.Program)
	if err != nil {
		return nil, fmt.Errorf("jq: %w", err)
	}
	return &program{code, opts.Timeout, make(chan struct{}, runtime.GOMAXPROCS(0))}, nil
}

// Transform runs the program.
func (p *program) Transform(parent context.Context, in processor.Input, out *processor.Outputs) error {
	select {
	case p.running <- struct{}{}:
		defer func() { <-p.running }()
	case <-parent.Done():
		return context.Cause(parent)
	}
	value, err := parseJSON(in.Value)
	if err != nil {
		return failed(processor.Reject, "the record %w", err)
	}
	ctx, cancel := context.WithTimeout(parent, p.timeout)
	defer cancel()
	results := p.code.RunWithContext(ctx, value, // as in jq.Variables
		textOf(in.Key), headersOf(in.Headers), int(in.Timestamp.UnixMilli()), in.Topic, int(in.Partition), int(in.Offset))
	size := 0
	for {
		result, more := results.Next()
		if !more {
			return nil
		}
		if err, stopped := result.(error); stopped {
			switch {
			case parent.Err() != nil:
				return context.Cause(parent)
			case ctx.Err() != nil:
				return failed(processor.Retry, "the program had not ended after %v", p.timeout)
			default:
				return mishap(err)
			}
		}
		if out.Len() == maxOutputs {
			return failed(processor.Reject, "the program makes more than %d outputs of the record", maxOutputs)
		}
		if result == nil {
			out.Add(nil)
			continue
		}
		text, err := gojq.Marshal(result)
		if err != nil {
			return failed(processor.Reject, "an output cannot be written as JSON")
		}
		if size += len(text); size > maxList {
			return failed(processor.Reject, "the program makes more than %d bytes of the record", maxList)
		}
		out.Add(text)
	}
}

func failed(kind processor.Kind, format string, args ...any) *processor.Failure {
	return &processor.Failure{Kind: kind, Err: fmt.Errorf("jq: "+format, args...)}
}

// harmless is the part of an error of the jq library that quotes nothing: it says
// types before the values, which are in brackets or quotes, or numbers.
var harmless = regexp.MustCompile(`^[^("\[{0-9-]*`)

// mishap says how the program ended without coming to its end. The same would
// happen again: it is a reject, but for halt, which is an end, and which halt_error
// differs from by its exit code alone where its value is null.
func mishap(err error) error {
	own, byProgram := err.(interface { //nolint:errorlint // the library does not wrap it
		gojq.ValueError
		ExitCode() int
	})
	var halt *gojq.HaltError
	switch {
	case errors.As(err, &halt) && halt.Value() == nil && halt.ExitCode() == 0:
		return nil
	case byProgram:
		return failed(processor.Reject, "the program rejects the record: %s", said(own.Value()))
	default:
		what := strings.TrimRight(harmless.FindString(err.Error()), " :")
		return failed(processor.Reject, "the program does not get on with the record: %s", what)
	}
}

// said is what a program gave to error or halt_error, as the end of a message.
func said(value any) string {
	const longest = 500
	text, ok := value.(string)
	if !ok {
		b, _ := gojq.Marshal(value) // it knows every value of a program
		text = string(b)
	}
	return strconv.Quote(text[:min(len(text), longest)]) // no control characters in logs
}

// parseJSON returns a value as a program gets it. Numbers stay as they are
// written as long as no program counts with them. The null value is null.
func parseJSON(text []byte) (value any, _ error) {
	if text == nil {
		return nil, nil
	}
	if !utf8.Valid(text) { // the decoder would replace what is not
		return nil, errors.New("is not JSON: it is not UTF-8")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil { // which may quote the record
		return nil, fmt.Errorf("is not JSON, from byte %d on", decoder.InputOffset())
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("is not JSON: more follows at byte %d", decoder.InputOffset())
	}
	return value, nil
}

// textOf returns bytes as they stand in JSON: a string, {"base64": "…"} if they
// are not UTF-8, or null.
func textOf(b []byte) any {
	switch {
	case b == nil:
		return nil
	case utf8.Valid(b):
		return string(b)
	default:
		return map[string]any{"base64": base64.StdEncoding.EncodeToString(b)}
	}
}

// headersOf returns headers as they stand in JSON: an object, with an array for a
// name that is repeated.
func headersOf(headers []kgo.RecordHeader) map[string]any {
	object := make(map[string]any, len(headers))
	for i := range headers {
		name, value := strings.ToValidUTF8(headers[i].Key, "\uFFFD"), textOf(headers[i].Value)
		switch before := object[name].(type) {
		case []any:
			object[name] = append(before, value)
		default:
			if _, repeated := object[name]; repeated {
				value = []any{before, value}
			}
			object[name] = value
		}
	}
	return object
}
