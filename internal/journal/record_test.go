package journal

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func key(text string) Key {
	k, err := ParseKey([]byte(text))
	if err != nil {
		panic(err)
	}
	return k
}

func TestRecordsSurvive(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	for _, want := range []Record{
		{Key: key("orders/in/3/-/open/1c"), Open: &Open{Generation: 7, Instance: "one"}},
		{Key: key("orders/in/3/4711/attempts/7"), Attempts: &Attempts{
			Generation: 7, TopicID: "abc", Begun: 3, Failed: 2, Granted: 9, First: at, FirstError: at, LastError: at, Error: "down", Note: "half",
			Hold: &Hold{Since: at, Why: "attempts", Reason: "failed 3 times"}, Value: "ff",
		}},
		{Key: key("orders/in/3/4711/attempts/7"), Attempts: &Attempts{Generation: 7, Begun: 1, First: at}},
		{Key: key("orders/in/3/0/reply/7"), Reply: &Reply{Generation: 7, Outputs: []Output{
			{Key: nil, Value: []byte{}, Timestamp: -1 << 62},
			{Key: []byte{0xff}, Value: nil, Headers: []Header{{Name: []byte("\xfe"), Value: nil}, {Name: []byte{}, Value: []byte{}}}},
		}}},
		{Key: key("orders/in/3/9223372036854775807/decision/ff"), Decision: &Decision{Decision: "skip", Attempts: 2, Value: []byte{}, Reason: "so"}},
		{Key: key("orders/in/3/1/decision/ff"), Decision: &Decision{Decision: "replace_output"}},
		{Key: key("orders/in/3/1/decision/ff")},
	} {
		got, ours, err := Decode("orders", []byte(want.String()), valueOf(&want))
		if err != nil || !ours || !reflect.DeepEqual(got, want) {
			t.Errorf("%v: got %+v, ours %v, %v", want.Key, got, ours, err)
		}
	}
}

func TestGroupsMayHaveAnyName(t *testing.T) {
	for _, group := range []string{"a/b", "a%2Fb", "käse, brot", "100%", "-"} {
		want := Key{group, "in", 3, 4711, KindReply, "7"}
		if got, err := ParseKey([]byte(want.String())); err != nil || got != want {
			t.Errorf("%q became %+v, %v", want.String(), got, err)
		}
	}
}

func valueOf(r *Record) []byte {
	switch {
	case r.Open != nil:
		return Encode(*r.Open)
	case r.Attempts != nil:
		return Encode(*r.Attempts)
	case r.Decision != nil:
		return Encode(*r.Decision)
	case r.Reply != nil:
		return Encode(*r.Reply)
	default:
		return nil
	}
}

func TestWhatCannotBeRead(t *testing.T) {
	good := string(Encode(Attempts{Generation: 7, Begun: 2, Failed: 1}))
	for _, test := range []struct {
		what, key, value string
		want             error // nil: it is another group's
	}{
		{"another group", "bills/in/3/4711/attempts/7", "{", nil},
		{"no key", "", good, ErrForeign},
		{"a key of somebody else", "customer-17", good, ErrForeign},
		{"a group written otherwise", "%6frders/in/3/4711/attempts/7", good, ErrForeign},
		{"too many parts", "orders/in/3/4711/attempts/7/8", good, ErrForeign},
		{"an unknown kind", "orders/in/3/4711/hopes/7", good, ErrForeign},
		{"no partition", "orders/in/x/4711/attempts/7", good, ErrForeign},
		{"a partition that is none", "orders/in/4294967296/4711/attempts/7", good, ErrForeign},
		{"an offset written otherwise", "orders/in/3/04711/attempts/7", good, ErrForeign},
		{"a negative offset", "orders/in/3/-1/attempts/7", good, ErrForeign},
		{"no offset", "orders/in/3/-/attempts/7", good, ErrForeign},
		{"a long key", "orders/in/3/4711/attempts/" + strings.Repeat("7", 2000), good, ErrForeign},
		{"an empty value", "orders/in/3/4711/attempts/7", "", ErrTorn},
		{"a torn value", "orders/in/3/4711/attempts/7", good[:len(good)-5], ErrTorn},
		{"not an object", "orders/in/3/4711/attempts/7", `"v"`, ErrTorn},
		{"no state", "orders/in/3/4711/attempts/7", `{"v":1}`, ErrTorn},
		{"null", "orders/in/3/4711/attempts/7", `{"v":1,"state":null}`, ErrTorn},
		{"no version", "orders/in/3/4711/attempts/7", `{"state":{"generation":7}}`, ErrTorn},
		{"a later version", "orders/in/3/4711/attempts/7", `{"v":2,"state":{}}`, ErrForeign},
		{"another generation than its key", "orders/in/3/4711/attempts/8", good, ErrTorn},
		{"more failures than attempts", "orders/in/3/4711/attempts/7", `{"v":1,"state":{"generation":7,"begun":1,"failed":2}}`, ErrTorn},
		{"a negative count", "orders/in/3/4711/attempts/7", `{"v":1,"state":{"generation":7,"begun":-1,"failed":-1}}`, ErrTorn},
		{"too large", "orders/in/3/4711/reply/7", strings.Repeat(" ", MaxBytes), ErrOversized},
	} {
		r, ours, err := Decode("orders", []byte(test.key), []byte(test.value))
		if !errors.Is(err, test.want) || !r.Deletes() {
			t.Errorf("%s: got %+v, %v; want %v", test.what, r, err, test.want)
		}
		if want := r.Kind != "" && r.Group == "orders"; ours != want {
			t.Errorf("%s: ours is %v, want %v", test.what, ours, want)
		}
	}
}

func TestPlaceIsStable(t *testing.T) {
	// Whoever gets the partition next, in whatever version, must look where the one
	// before has written.
	for _, test := range []struct {
		topic     string
		partition int32
		n         int
		want      int32
	}{{"orders.in", 3, 1, 0}, {"orders.in", 3, 16, 3}, {"orders.in", 0, 16, 6}, {"in", 17, 50, 35}} {
		if got := Place(test.topic, test.partition, test.n); got != test.want {
			t.Errorf("Place(%q, %d, %d) is %d, want %d", test.topic, test.partition, test.n, got, test.want)
		}
	}
}

func TestTextIsBounded(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"down", "down"},
		{"\xff", "\uFFFD"},
		{strings.Repeat("é", maxText), strings.Repeat("é", maxText/2)},
		{"x" + strings.Repeat("é", maxText), "x" + strings.Repeat("é", maxText/2-1)},
	} {
		if got := Text(test.in); got != test.want {
			t.Errorf("Text(%.20q) is %d bytes, want %d", test.in, len(got), len(test.want))
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("orders/in/3/4711/attempts/7"), Encode(Attempts{Generation: 7, Begun: 2, Hold: &Hold{}}))
	f.Add([]byte("orders/in/3/4711/reply/7"), Encode(Reply{Generation: 7, Outputs: []Output{{Value: []byte("x")}}}))
	f.Add([]byte("orders/in/3/4711/decision/7"), Encode(Decision{Decision: "skip"}))
	f.Add([]byte("orders/in/3/-/open/7"), Encode(Open{}))
	f.Add([]byte("orders/in/3/-/open/7"), []byte(nil))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		r, ours, err := Decode("orders", key, value)
		if err != nil {
			if !r.Deletes() {
				t.Errorf("an error, %v, and %+v", err, r)
			}
			return
		}
		if !ours {
			return
		}
		if r.String() != string(key) {
			t.Errorf("the key %q became %q", key, r.String())
		}
		again, _, err := Decode("orders", key, valueOf(&r))
		if err != nil || !bytes.Equal(valueOf(&again), valueOf(&r)) {
			t.Errorf("%s became %s, %v", valueOf(&r), valueOf(&again), err)
		}
	})
}
