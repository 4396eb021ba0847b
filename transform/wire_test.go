package transform

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"reflect"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

func TestEncoding(t *testing.T) {
	tests := map[string]struct{ value, asValue, asName string }{
		"plain":         {"a-z0-9._-", "a-z0-9._-", "a-z0-9._-"},
		"capitals":      {"Content-Type", "Content-Type", "%43ontent-%54ype"},
		"empty":         {"", "", ""},
		"percent":       {"100%", "100%25", "100%25"},
		"space":         {"a b", "a%20b", "a%20b"},
		"punctuation":   {"a,b;c=\"d\":~", "a,b;c=\"d\":~", "a%2Cb%3Bc%3D%22d%22%3A%7E"},
		"line feed":     {"a\r\nb", "a%0D%0Ab", "a%0D%0Ab"},
		"not ASCII":     {"é\x00\x7f\xff", "%C3%A9%00%7F%FF", "%C3%A9%00%7F%FF"},
		"drop":          {"drop", "drop", "%64rop"},
		"more than one": {"drops", "drops", "drops"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := string(appendValue(nil, []byte(test.value))); got != test.asValue {
				t.Errorf("as a value: got %q, want %q", got, test.asValue)
			}
			if got := headerName("", test.value); got != test.asName {
				t.Errorf("as a name: got %q, want %q", got, test.asName)
			}
		})
	}
}

func TestDecodingIsStrict(t *testing.T) {
	for _, bad := range []string{"%", "%4", "a%", "a%2", "%zz", "%4g", "%g4", "%%20", "a b", " ", "a\tb", "é", "\x7f", "\x00"} {
		if got, err := decodeValue(bad); err == nil {
			t.Errorf("value %q: got %q, want an error", bad, got)
		}
		if got, err := decodeName(bad); err == nil {
			t.Errorf("name %q: got %q, want an error", bad, got)
		}
	}
	for _, bad := range []string{"A", "a%4FB", "a:b", "a~"} {
		if got, err := decodeName(bad); err == nil {
			t.Errorf("name %q: got %q, want an error", bad, got)
		}
	}
	for _, good := range []string{"%4a%4A", "%25", "a%2F"} {
		if _, err := decodeName(good); err != nil {
			t.Errorf("name %q: got error %v, want none", good, err)
		}
	}
}

func TestReplyHeadersHaveOneOrder(t *testing.T) {
	// Maps have none: two ways to name a header, and null, in whatever order.
	header := http.Header{"Seriatim-H-A": {"1", "2"}, "Seriatim-H-%61": {"0"}, "Seriatim-Hn-A": {"null"}, "Seriatim-H-B": {"3"}}
	for range 100 {
		changes, err := changesOf(header)
		want := []change{{"a", [][]byte{[]byte("0"), []byte("1"), []byte("2"), nil}}, {"b", [][]byte{[]byte("3")}}}
		if err != nil || !reflect.DeepEqual(changes, want) {
			t.Fatalf("got %q and error %v, want %q", changes, err, want)
		}
	}
}

// FuzzEncoding checks that names and values survive the way through HTTP.
func FuzzEncoding(f *testing.F) {
	f.Add("drop", []byte("a b%é"))
	f.Add("Content-Type", []byte{0, 255, '\r', '\n'})
	f.Add("", []byte{})
	f.Fuzz(func(t *testing.T, name string, value []byte) {
		encoded := string(appendValue(nil, value))
		decoded, err := decodeValue(encoded)
		if err != nil || !bytes.Equal(decoded, value) {
			t.Errorf("value %q became %q, then %q and error %v", value, encoded, decoded, err)
		}
		if strings.ContainsAny(encoded, " \r\n\t") {
			t.Errorf("value %q became %q, with white space", value, encoded)
		}
		// What a stack like net/http makes of the name on its way.
		field := textproto.CanonicalMIMEHeaderKey(headerName(headerPrefix, name))
		changes, err := changesOf(http.Header{field: {encoded}})
		if err != nil || len(changes) != 1 || changes[0].name != name || len(changes[0].values) != 1 || !bytes.Equal(changes[0].values[0], value) {
			t.Errorf("header %q: %q became %q: %q, then %q and error %v", name, value, field, encoded, changes, err)
		}
		if got, err := decodeName(headerName("", name)); err != nil || got != name {
			t.Errorf("name %q became %q and error %v", name, got, err)
		}
	})
}

// FuzzReply checks that any reply has one outcome.
func FuzzReply(f *testing.F) {
	f.Add(200, "", "Content-Type: application/x-ndjson\nSeriatim-Key: a%20b\nSeriatim-H-x: 1, 2\nSeriatim-Hn-y: null\nSeriatim-H-Drop: z", []byte("{}\r\n\n[]"), true)
	f.Add(200, "", "Content-Type: application/vnd.seriatim.outputs+json", []byte(`[{"key":null,"value":{"base64":"AA=="},"headers":{"a":["1",null],"b":[]}},{"value":"x"}]`), false)
	f.Add(503, "", "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT\nSeriatim-Error: %0Ano", []byte("busy"), true)
	f.Add(204, "retry", "Seriatim-Value: null", []byte{}, true)
	f.Add(200, "", "Seriatim-Value: null\nSeriatim-Key-Null: true", []byte{}, true)
	client, err := HTTP(HTTPOptions{URLs: []string{"http://127.0.0.1:9/"}})
	if err != nil {
		f.Fatal(err)
	}
	in := processor.Input{Record: &kgo.Record{Key: []byte("k"), Value: []byte("v"), Headers: []kgo.RecordHeader{{Key: "x", Value: []byte("0")}, {Key: "z"}, {Key: "x"}}}}
	f.Fuzz(func(t *testing.T, status int, outcome, head string, body []byte, sized bool) {
		header := make(http.Header)
		for line := range strings.Lines(head) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			header.Add(name, strings.TrimSpace(value))
		}
		if outcome != "" {
			header.Set(outcomeHeader, outcome)
		}
		resp := func() *http.Response {
			r := &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: -1}
			if sized {
				r.ContentLength = int64(len(body))
			}
			return r
		}
		call := func() ([]*kgo.Record, error) {
			return processor.Call(t.Context(), processor.TransformFunc(func(_ context.Context, in processor.Input, out *processor.Outputs) error {
				return client.endpoints.all[0].reply(resp(), in, out)
			}), in)
		}
		out, err := call()
		var panicked *processor.PanicError
		var failure *processor.Failure
		switch {
		case errors.As(err, &panicked):
			t.Fatalf("panicked: %v\n%s", panicked, panicked.Stack)
		case err != nil && !errors.As(err, &failure):
			t.Errorf("got error %v, want a failure with a kind", err)
		case err != nil && len(out) > 0:
			t.Errorf("got %d outputs and error %v, want one of both", len(out), err)
		case len(out) > maxOutputs:
			t.Errorf("got %d outputs, more than %d", len(out), maxOutputs)
		}
		again, errAgain := call()
		if (err == nil) != (errAgain == nil) || len(out) != len(again) {
			t.Fatalf("got %d outputs and error %v, then %d and %v, of the same reply", len(out), err, len(again), errAgain)
		}
		for i := range out {
			if !bytes.Equal(out[i].Value, again[i].Value) || !bytes.Equal(out[i].Key, again[i].Key) || len(out[i].Headers) != len(again[i].Headers) {
				t.Fatalf("output %d: got %v, then %v, of the same reply", i, out[i], again[i])
			}
			for j := range out[i].Headers {
				if out[i].Headers[j].Key != again[i].Headers[j].Key {
					t.Fatalf("output %d: got headers %v, then %v, of the same reply", i, out[i].Headers, again[i].Headers)
				}
			}
		}
	})
}
