package transform_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
	"seriatim/transform"
)

// batch returns records with these values at offset 40 and those after it.
func batch(values ...string) []processor.Input {
	ins := make([]processor.Input, len(values))
	for i, value := range values {
		ins[i] = input()
		ins[i].Record = &kgo.Record{
			Topic: "orders.in", Partition: 3, Offset: int64(40 + i), Timestamp: time.UnixMilli(1700000000123),
			Key: []byte("key"), Value: []byte(value), Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("1")}},
		}
	}
	return ins
}

// showResults returns what became of each record: the values of its outputs, or how and why
// it failed, with a star where it shares that with others.
func showResults(t *testing.T, results []processor.BatchResult) []string {
	t.Helper()
	shown := make([]string, len(results))
	for i, r := range results {
		var f *processor.Failure
		switch {
		case r.Err != nil && !errors.As(r.Err, &f):
			t.Errorf("record %d: got error %v, want a failure with a kind", i, r.Err)
		case r.Err != nil:
			shown[i] = fmt.Sprintf("%v: %v", f.Kind, r.Err)
			if r.Shared {
				shown[i] = "* " + shown[i]
			}
		default:
			var values []string
			for _, o := range r.Outputs {
				values = append(values, showOutput(o))
			}
			shown[i] = strings.Join(values, " + ")
		}
	}
	return shown
}

// showOutput shows what differs from the records of batch.
func showOutput(o *kgo.Record) string {
	text := strconv.Quote(string(o.Value))
	if o.Value == nil {
		text = "null"
	}
	if o.Key == nil {
		text += " without key"
	} else if string(o.Key) != "key" {
		text += " of " + strconv.Quote(string(o.Key))
	}
	if len(o.Headers) != 1 || o.Headers[0].Key != "a" || string(o.Headers[0].Value) != "1" {
		text += fmt.Sprintf(" with %q", o.Headers)
	}
	return text
}

// wants compares what became of the records with what is wanted: the whole of a value, the
// parts of a failure between dots.
func wants(t *testing.T, got []processor.BatchResult, want ...string) {
	t.Helper()
	shown := showResults(t, got)
	if len(shown) != len(want) {
		t.Fatalf("got %q, want %q", shown, want)
	}
	for i := range want {
		if want[i] != shown[i] && (got[i].Err == nil || !inTurn(shown[i], strings.Split(want[i], " … "))) {
			t.Errorf("record %d: got %s, want %s", i, shown[i], want[i])
		}
	}
}

func inTurn(text string, parts []string) bool {
	if !strings.HasPrefix(text, parts[0]) {
		return false
	}
	for _, part := range parts {
		_, after, ok := strings.Cut(text, part)
		if !ok {
			return false
		}
		text = after
	}
	return true
}

const broken = "retry: worker … breaks the contract: … mend the worker"

// Answers of a batch are the same over HTTP, as lines and as an array, and over the lines of a
// process.
func TestBatchAnswers(t *testing.T) {
	all := func(says string) []string { return []string{says, says, says} }
	many := func(n int) string { return `{"value":""}` + strings.Repeat(`,{"value":""}`, n-1) }
	for name, test := range map[string]struct {
		answers []string
		want    []string
	}{
		"in any order": {
			[]string{`{"id":3,"outputs":[{"value":"c"}]}`, `{"outputs":[{"value":"a"}],"id":1}`, ` { "id" : 2 , "outputs":[{"value":"b"}]}`},
			[]string{`"a"`, `"b"`, `"c"`},
		},
		"all that an output may be": {
			[]string{
				`{"id":1,"outputs":[]}`,
				`{"id":2,"outputs":[{"value":null},{"value":""},{"value":{"base64":"/w=="},"key":{"base64":"AAE="}}]}`,
				`{"id":3,"outputs":[{"value":"é\n","key":null,"headers":{"a":[],"b":["1",null]}}]}`,
			},
			[]string{``, `null + "" + "\xff" of "\x00\x01"`, `"é\n" without key with [{"b" "1"} {"b" ""}]`},
		},
		"each its own failure": {
			[]string{`{"id":1,"error":"no customer","kind":"reject"}`, `{"id":2,"error":"busy","after_ms":1500}`, `{"id":3,"outputs":[{"value":"c"}]}`},
			[]string{`reject: worker … answered reject: … "no customer"`, `retry: worker … answered retry: "busy"`, `"c"`},
		},
		"broken ones harm no others": {
			[]string{`{"id":1,"outputs":[{"value":7}]}`, `{"id":2}`, `{"id":3,"outputs":[{"value":"c"}]}`},
			[]string{broken, broken, `"c"`},
		},
		"broken in other ways": {
			[]string{`{"id":1,"outputs":[{"value":"a"}],"error":"and yet"}`, `{"id":2,"error":"x","kind":"drop"}`, `{"id":3,"output":[{"value":"c"}]}`},
			[]string{broken, broken, broken},
		},
		"one is missing":       {[]string{`{"id":1,"outputs":[{"value":"a"}]}`, `{"id":3,"outputs":[]}`}, []string{`"a"`, `* retry: worker … leaves out 1 of the 3 records`, ``}},
		"two are missing":      {[]string{`{"id":2,"outputs":[]}`}, []string{`* retry: … leaves out 2 of the 3`, ``, `* retry: … leaves out 2 of the 3`}},
		"all are missing":      {[]string{}, all(`* retry: … leaves out 3 of the 3`)},
		"an id never asked":    {[]string{`{"id":1,"outputs":[]}`, `{"id":2,"outputs":[]}`, `{"id":4,"outputs":[]}`}, all(`* retry: … it answers id 4 of a batch with the ids 1 to 3`)},
		"counted from zero":    {[]string{`{"id":2,"outputs":[]}`, `{"id":1,"outputs":[]}`, `{"id":0,"outputs":[]}`}, all(`* retry: … it answers id 0 of a batch`)},
		"a huge id":            {[]string{`{"id":18446744073709551615,"outputs":[]}`}, all(`* retry: … it answers id 18446744073709551615`)},
		"an id twice":          {[]string{`{"id":1,"outputs":[]}`, `{"id":2,"outputs":[]}`, `{"id":1,"outputs":[{"value":"x"}]}`}, all(`* retry: … it answers id 1 of the batch twice`)},
		"an answer without id": {[]string{`{"id":1,"outputs":[]}`, `{"outputs":[]}`}, all(`* retry: … answer 2 of the batch is no JSON object with an "id"`)},
		"an id that is text":   {[]string{`{"id":"1","outputs":[]}`}, all(`* retry: … answer 1 of the batch is no JSON object with an "id"`)},
		"an id of a fraction":  {[]string{`{"id":1,"outputs":[]}`, `{"id":2e0,"outputs":[]}`}, all(`* retry: … answer 2 of the batch is no JSON object with an "id"`)},
		"an answer of null":    {[]string{`null`}, all(`* retry: … answer 1 of the batch is no JSON object with an "id"`)},
		"too many outputs":     {[]string{`{"id":2,"outputs":[` + many(10001) + `]}`, `{"id":1,"outputs":[` + many(10000) + `]}`, `{"id":3,"outputs":[]}`}, []string{strings.TrimSuffix(strings.Repeat(`"" + `, 10000), " + "), `reject: … more than 10000 outputs`, ``}},
	} {
		t.Run(name, func(t *testing.T) {
			body := strings.Join(test.answers, "\n") + "\n"
			array := "[" + strings.Join(test.answers, ",") + "]"
			for form, text := range map[string]string{"lines": body, "crlf": strings.ReplaceAll(body, "\n", "\r\n\n"), "no end": strings.TrimSpace(body), "array": " " + array + "\n"} {
				server := serve(t, func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					w.Header().Set("Content-Type", "application/x-ndjson")
					_, _ = io.WriteString(w, text)
				})
				t.Run("http "+form, func(t *testing.T) {
					client := connect(t, server.URL, transform.HTTPOptions{})
					results := processor.CallBatch(t.Context(), client, batch("secret a", "secret b", "secret c"))
					wants(t, results, test.want...)
					discreet(t, results)
				})
			}
			t.Run("exec", func(t *testing.T) {
				p, _ := pool(t, "", transform.ExecOptions{Processes: 1})
				results := processor.CallBatch(t.Context(), p, batch(`answer "answers":`+array, "secret b", "secret c"))
				wants(t, results, test.want...)
				discreet(t, results)
			})
		})
	}
}

// discreet fails the test if an error tells of a record.
func discreet(t *testing.T, results []processor.BatchResult) {
	t.Helper()
	for _, r := range results {
		if r.Err != nil && strings.Contains(r.Err.Error(), "secret") {
			t.Errorf("the error %q tells of a record", r.Err)
		}
	}
}

// A request has the records as processes get them, one a line, and says whose they are.
func TestBatchRequest(t *testing.T) {
	ins := batch("first", "", "third", "fourth\n\u2028")
	ins[1].Value = nil
	ins[1].Key = nil
	ins[2].Value = []byte{0xff, 0}
	ins[2].Key = []byte{0xfe}
	ins[2].Attempt = 7
	ins[2].Headers = []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "b"}, {Key: "a", Value: []byte{0xff}}}
	ins[3].Headers = nil
	var header http.Header
	var body []byte
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		header = r.Header
		body, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusNoContent)
	})
	client := connect(t, server.URL, transform.HTTPOptions{Timeout: time.Minute, Headers: map[string]string{"X-Tenant": "acme", "Content-Type": "text/plain"}})
	wants(t, processor.CallBatch(t.Context(), client, ins), "", "", "", "")

	for name, want := range map[string]string{
		"Content-Type": "application/x-ndjson", "Seriatim-Batch": "4", "Seriatim-Pipeline": "orders", "Seriatim-Topic": "orders.in",
		"Seriatim-Partition": "3", "X-Tenant": "acme", "Idempotency-Key": "", "Seriatim-Offset": "", "Seriatim-Key": "", "Traceparent": "",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	deadline, err := strconv.ParseInt(header.Get("Seriatim-Deadline-Ms"), 10, 64)
	if left := time.Until(time.UnixMilli(deadline)); err != nil || left < 30*time.Second || left > time.Minute {
		t.Errorf("the deadline %q is in %v, want a minute", header.Get("Seriatim-Deadline-Ms"), left)
	}
	lines := bytes.Split(bytes.TrimSuffix(body, []byte("\n")), []byte("\n"))
	if len(lines) != len(ins) {
		t.Fatalf("the body has %d lines, want %d:\n%s", len(lines), len(ins), body)
	}
	for i, line := range lines {
		var got map[string]any
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		want := map[string]any{
			"id": float64(i + 1), "pipeline": "orders", "topic": "orders.in", "partition": 3.0, "offset": float64(40 + i), "timestamp": 1700000000123.0,
			"idempotency_key": ins[i].IdempotencyKey(), "deadline_ms": float64(deadline), "attempt": float64(ins[i].Attempt), "traceparent": got["traceparent"],
			"key":     []any{"key", nil, map[string]any{"base64": "/g=="}, "key"}[i],
			"value":   []any{"first", nil, map[string]any{"base64": "/wA="}, "fourth\n\u2028"}[i],
			"headers": []any{map[string]any{"a": "1"}, map[string]any{"a": "1"}, map[string]any{"a": []any{"1", map[string]any{"base64": "/w=="}}, "b": nil}, map[string]any{}}[i],
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("line %d is\n%v, want\n%v", i, got, want)
		}
	}

	// A process gets the same, in one line.
	p, _ := pool(t, "", transform.ExecOptions{Processes: 1})
	ins[0].Value = []byte("batch")
	wants(t, processor.CallBatch(t.Context(), p, ins), `"batch"`, `null without key`,
		`"\xff\x00" of "\xfe" with [{"a" "1"} {"b" ""} {"a" "\xff"}]`, `"fourth\n\u2028" with []`)
}

// What a whole reply says holds for all, and they share it.
func TestBatchFailsAsAWhole(t *testing.T) {
	huge := func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", strconv.Itoa(10<<30))
		_, _ = io.WriteString(w, `{"id":1,"outputs":[]}`)
	}
	endless := func(w http.ResponseWriter) {
		for block := bytes.Repeat([]byte(`{"id":1,"outputs":[]}`+"\n"), 1000); ; {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}
	torn := func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"id":1,"outputs":[]}`+"\n"+`{"id":2,"outp`)
	}
	cut := func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"id":1,"outputs":[]}`+"\n"+`{"id":2,"outp`) }
	answer := func(status int, head, body string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			if name, value, ok := strings.Cut(head, ": "); ok {
				w.Header().Set(name, value)
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	flood := func(w http.ResponseWriter) {
		one := `{"value":""}` + strings.Repeat(`,{"value":""}`, 9999)
		for id := range 11 {
			fmt.Fprintf(w, `{"id":%d,"outputs":[%s]}`+"\n", id+1, one)
		}
	}
	for name, test := range map[string]struct {
		reply func(http.ResponseWriter)
		want  string // of each
		after time.Duration
	}{
		"500":                  {answer(500, "", ""), "* retry: worker http … answered 500", 0},
		"503 with a wait":      {answer(503, "Retry-After: 7", ""), "* retry: worker http … answered 503", 7 * time.Second},
		"422":                  {answer(422, "Seriatim-Error: none%20of%20them", ""), `* reject: worker http … answered 422 … "none of them"`, 0},
		"404":                  {answer(404, "", ""), "* deployment: worker http … answered 404", 0},
		"204":                  {answer(204, "", ""), "", 0},
		"outcome filter":       {answer(200, "Seriatim-Outcome: filter", "x"), "", 0},
		"outcome reject":       {answer(200, "Seriatim-Outcome: reject", `{"id":1,"outputs":[]}`), "* reject: … answered Seriatim-Outcome: reject", 0},
		"one value":            {answer(200, "", "SECRET FIRST"), `* retry: … breaks the contract: answer 1 of the batch is no JSON object`, 0},
		"half an array":        {answer(200, "", `[{"id":1,"outputs":[]},`), `* retry: … breaks the contract: its body is not a whole JSON array`, 0},
		"two arrays":           {answer(200, "", `[][]`), `* retry: … its body is not a whole JSON array`, 0},
		"compressed":           {answer(200, "Content-Encoding: zstd", `[]`), `* retry: … Content-Encoding`, 0},
		"10 GB":                {huge, "* reject: … its reply has 10737418240 bytes, more than the 33554432 that may be", 0},
		"without end":          {endless, "* reject: … its reply has more than the 33554432 bytes that may be", 0},
		"a closed connection":  {torn, "* retry: … closed the connection before its reply was complete", 0},
		"more than may be all": {flood, "* reject: … more than 100000 outputs", 0},
		"cut off":              {cut, "", 0}, // see below
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				test.reply(w)
			})
			client := connect(t, server.URL, transform.HTTPOptions{})
			values := []string{"secret", "secret", "secret", "", "", "", "", "", "", "", ""}
			results := processor.CallBatch(t.Context(), client, batch(values...))
			discreet(t, results)
			if name == "cut off" { // what is whole counts, what is half is that record's, the rest is missing
				wants(t, results[:3], "", broken, "* retry: … leaves out 9 of the 11")
				return
			}
			for i := range results {
				wants(t, results[i:i+1], test.want)
				var f *processor.Failure
				if errors.As(results[i].Err, &f) && f.After != test.after {
					t.Errorf("record %d is to wait %v, want %v", i, f.After, test.after)
				}
			}
		})
	}
}

// Nobody listens: the records were not sent.
func TestBatchOutOfReach(t *testing.T) {
	client := connect(t, unreachable(t), transform.HTTPOptions{})
	for _, r := range processor.CallBatch(t.Context(), client, batch("a", "b")) {
		if f := failure(t, r.Err); f.Kind != processor.Deployment || !f.Unsent || !r.Shared {
			t.Errorf("got %+v, shared: %v; want one of the deployment that was not sent", f, r.Shared)
		}
	}
}

// What a process says of a whole batch, or does to it, holds for all of it.
func TestExecBatchFailsAsAWhole(t *testing.T) {
	for name, test := range map[string]struct {
		first, want string
	}{
		"an error for all":     {`answer "error":"no database","after_ms":500`, `* retry: worker … answered retry: "no database"`},
		"a reject for all":     {`answer "error":"none of them","kind":"reject"`, `* reject: worker … answered reject: … "none of them"`},
		"outputs":              {`answer "outputs":[{"value":"x"}]`, `* retry: … breaks the contract: the answer to a batch is not one JSON object of "id" and "answers"`},
		"answers and error":    {`answer "answers":[],"error":"x"`, `* retry: … must have one of "answers" and "error"`},
		"neither":              {`answer "kind":"retry"`, `* retry: … breaks the contract`},
		"answers that are one": {`answer "answers":{"id":1,"outputs":[]}`, `* retry: … breaks the contract`},
		"answers of null":      {`answer "answers":null`, `* retry: … must have one of "answers" and "error"`},
		"a crash":              {`crash badly`, `* retry: … ended with the record … it hurts: badly`},
		"half a line":          {`half`, `* retry: … ended with the record`},
		"silence":              {`hang`, `* retry: … no answer within`},
		"a line without end":   {`endless`, `* retry: … a line of its output has no end`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := transform.ExecOptions{Processes: 1}
			if name == "silence" {
				opts.Timeout = 2 * time.Second
			}
			p, _ := pool(t, "", opts)
			results := processor.CallBatch(t.Context(), p, batch(test.first, "b", "c"))
			wants(t, results, test.want, test.want, test.want)
			var f *processor.Failure
			if name == "an error for all" && (!errors.As(results[0].Err, &f) || f.After != 500*time.Millisecond) {
				t.Errorf("the wait is %v, want 500ms", f.After)
			}
			if got := mustAsk(t, p, "again"); got != "again" {
				t.Errorf("afterwards the process answers %q", got)
			}
		})
	}
}

// A thousand records, and answers of more bytes than one record's may have.
func TestLargeBatches(t *testing.T) {
	values := make([]string, 1000)
	want := make([]string, len(values))
	for i := range values {
		values[i] = fmt.Sprintf("batch %d %s", i, strings.Repeat("é\n", 2000))
		want[i] = strconv.Quote(values[i])
	}
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		decoder := json.NewDecoder(r.Body)
		for decoder.More() {
			var in struct {
				ID    int    `json:"id"`
				Value string `json:"value"`
			}
			if err := decoder.Decode(&in); err != nil {
				t.Error(err)
			}
			text, _ := json.Marshal(in.Value)
			fmt.Fprintf(w, `{"id":%d,"outputs":[{"value":%s}]}`+"\n", in.ID, text)
		}
	})
	// The reply ends after the request, which HTTP/1.1 in Go does not do by itself.
	server.Config.Handler = full(server.Config.Handler)
	client := connect(t, server.URL, transform.HTTPOptions{})
	wants(t, processor.CallBatch(t.Context(), client, batch(values...)), want...)
	p, _ := pool(t, "", transform.ExecOptions{Processes: 1})
	wants(t, processor.CallBatch(t.Context(), p, batch(values...)), want...)
	if _, err := ask(t.Context(), p, 1, "long"); err == nil || !strings.Contains(err.Error(), "its answer has more than") {
		t.Errorf("an answer of 6 MiB for one record: %v", err)
	}
}

func full(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		handler.ServeHTTP(w, r)
	})
}
