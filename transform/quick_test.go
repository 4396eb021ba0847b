package transform

import (
	"context"
	"fmt"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

// readBy returns the outputs that reading an answer in one of two ways makes.
func readBy(t testing.TB, text []byte, quickly bool) (outputs []string, ok bool) {
	t.Helper()
	in := processor.Input{Record: &kgo.Record{Key: []byte("key"), Headers: []kgo.RecordHeader{{Key: "a"}}}}
	records, err := processor.Call(t.Context(), processor.TransformFunc(func(_ context.Context, in processor.Input, out *processor.Outputs) error {
		if !quickly {
			return failer((&Pool{name: "w"}).fail).read(text, in, out)
		}
		if ok := new(values).quick(text, in, out); ok {
			return nil
		}
		if out.Len() > 0 {
			t.Errorf("%q: %d outputs were added by what could not read it", text, out.Len())
		}
		return errEscape // any
	}), in)
	for _, r := range records {
		outputs = append(outputs, fmt.Sprintf("%t %q %q %q", r.Value == nil, r.Key, r.Value, r.Headers))
	}
	return outputs, err == nil
}

// What is read quickly is read as encoding/json reads it.
func FuzzQuickAnswers(f *testing.F) {
	quick := []string{
		`{"id":7,"outputs":[]}`, `{"id":7,"outputs":[{"value":"a"}]}`, ` { "id" : 7 , "outputs" : [ { "value" : "a" } , { "value" : null } ] } `,
		`{"id":7,"outputs":[{"value":""}]}`, `{"id":7,"outputs":[{"value":"a\"\\\/\b\f\n\r\t é\u00e9\ud83d\ude00\ud800"}]}`,
		`{"id":7,"outputs":[{"value":{"base64":"AP8="}},{"value":{"base64":""}}]}`, `{"id":7,"outputs":[{"value":"\u0000"}]}`,
	}
	for _, text := range quick {
		if _, ok := readBy(f, []byte(text), true); !ok {
			f.Errorf("%s is not read quickly", text)
		}
		f.Add([]byte(text))
	}
	for _, text := range []string{
		`{"id":7}`, `{"id":07,"outputs":[]}`, `{"id":7,"outputs":[]}{}`, `{"id":7,"outputs":[{"value":"a"},]}`, `{"id":7,"outputs":[{"value":"a"}`,
		`{"id":7,"outputs":[{"value":"a","key":null}]}`, "{\"id\":7,\"outputs\":[{\"value\":\"\xff\"}]}", "{\"id\":7,\"outputs\":[{\"value\":\"\n\"}]}",
		`{"id":7,"outputs":[{"value":"\x"}]}`, `{"id":7,"outputs":[{"value":"\u12"}]}`, `{"id":7,"outputs":[{"value":{"base64":"AP8"}}]}`,
		`{"id":7,"outputs":[{"value":{"base64":"A\/8="}}]}`, `{"id":7,"outputs":[{"value":7}]}`, `{"id":7,"outputs":[{"value":"a"}{"value":"b"}]}`,
		`{"id":7,"outputs":[{"value":nullnull}]}`, `{"id":7,"outputs":[{"value":"a\`, `{"id":7,"outputs":[,{"value":"a"}]}`, `{"id":7,"outputs":[],"kind":"x"}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		outputs, ok := readBy(t, text, true)
		if !ok {
			return
		}
		if want, ok := readBy(t, text, false); !ok || !reflect.DeepEqual(outputs, want) {
			t.Errorf("%q is read quickly as %q, else as %q, %v", text, outputs, want, ok)
		}
	})
}
