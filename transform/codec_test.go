package transform_test

import (
	"strings"
	"testing"

	"seriatim/processor"
	"seriatim/transform"
)

// TestExecFrames: messages with their length before them may hold anything that JSON
// does, and are as long as they say.
func TestExecFrames(t *testing.T) {
	p, _ := pool(t, "frames", transform.ExecOptions{Processes: 1, LengthPrefixed: true})
	for _, value := range []string{"", "hello", "two\nlines", strings.Repeat("x", 3<<20)} {
		if got := mustAsk(t, p, value); got != value {
			t.Errorf("%.20q: got %.20q", value, got)
		}
	}
	if got := mustAsk(t, p, "say {\n  \"id\": ID,\n  \"outputs\": [\n    {\"value\": \"of many lines\"}\n  ]\n}"); got != "of many lines" {
		t.Errorf("got %q", got)
	}
	if got := mustAsk(t, p, "extend 1"); got != "extended" {
		t.Errorf("got %q", got)
	}
}

// What is no frame ends the process, and says what it is.
func TestExecBrokenFrames(t *testing.T) {
	for what, test := range map[string]struct {
		value string
		kind  processor.Kind
		want  string
	}{
		"a frame of nothing":        {`raw "\x00\x00\x00\x00"`, processor.Retry, "a frame of its output is no answer"},
		"the input ends within":     {`raw "\x00\x00\x01\x00{\"id\":1"`, processor.Retry, "it closed its output"},
		"the length ends within":    {`raw "\x00\x00"`, processor.Retry, "it closed its output"},
		"a text":                    {`raw "listening on port 9000\n"`, processor.Retry, `it begins with "list": is that text, and no length?`},
		"more than it may announce": {`raw "\xff\xff\xff\xff"`, processor.Retry, "has no end"},
		"more than it may answer":   {"huge", processor.Reject, "its answer has more than"},
		"an answer that is no JSON": {"say hello", processor.Retry, "a frame of its output is no answer"},
	} {
		t.Run(what, func(t *testing.T) {
			p, _ := pool(t, "frames", transform.ExecOptions{Processes: 1, LengthPrefixed: true})
			_, err := ask(t.Context(), p, 1, test.value)
			if f := execFailure(t, err); f.Kind != test.kind || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v %v, want %v with %q", f.Kind, err, test.kind, test.want)
			}
			if got := mustAsk(t, p, "hello"); got != "hello" {
				t.Errorf("the next record got %q", got)
			}
		})
	}
	// A worker that speaks lines is told so.
	p, _ := pool(t, "", transform.ExecOptions{Processes: 1, LengthPrefixed: true})
	_, err := ask(t.Context(), p, 1, "hello")
	if f := execFailure(t, err); f.Kind != processor.Deployment || !strings.Contains(err.Error(), `begins with "{\"se"`) {
		t.Errorf("got %v %v, want a deployment that quotes the line", f.Kind, err)
	}
}
