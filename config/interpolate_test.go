package config

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

func TestExpand(t *testing.T) {
	src := source{
		lookup: func(name string) (string, bool) {
			value, ok := map[string]string{"A": "a", "_b1": "b", "EMPTY": "", "NESTED": "${A} $${A} ${file:/x}", "DOLLAR": "$", "BRACE": "}"}[name]
			return value, ok
		},
		read: func(path string) ([]byte, error) {
			switch path {
			case "/x":
				return []byte("${A}\n"), nil
			case "/crlf":
				return []byte("x\r\n"), nil
			case "/lines":
				return []byte("x\ny\n\n"), nil
			case "/empty":
				return nil, nil
			}
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		},
	}
	const notUnderstood = "has a ${…} that is not understood"
	tests := []struct{ in, want, err string }{
		{in: "plain", want: "plain"},
		{in: "", want: ""},
		{in: "${A}", want: "a"},
		{in: "x${A}y${_b1}z", want: "xaybz"},
		{in: "${A}${A}", want: "aa"},
		{in: "$A $ $$ }", want: "$A $ $$ }"},
		{in: "${EMPTY}", want: ""},

		{in: "$${A}", want: "${A}"},
		{in: "$$${A}", want: "$${A}"},
		{in: "$${A}${A}", want: "${A}a"},
		{in: "$${", want: "${"},
		{in: "${A}$${", want: "a${"},

		// Once only: what comes out is text.
		{in: "${NESTED}", want: "${A} $${A} ${file:/x}"},
		{in: "${DOLLAR}{A}", want: "${A}"},
		{in: "${file:/x}", want: "${A}"},
		{in: "${BRACE}", want: "}"},

		{in: "${NONE:-x}", want: "x"},
		{in: "${NONE:-}", want: ""},
		{in: "${EMPTY:-x y:-?}", want: "x y:-?"},
		{in: "${A:-x}", want: "a"},
		{in: "${NONE:-$A}", want: "$A"},
		{in: "${A:?no}", want: "a"},
		{in: "${NONE:?say A}", err: "environment variable NONE: say A"},
		{in: "${EMPTY:?say A}", err: "environment variable EMPTY: say A"},
		{in: "${NONE:?}", err: "environment variable NONE: it must be set"},
		{in: "${NONE}", err: "environment variable NONE is not set; set it or write ${NONE:-default}"},
		{in: "${NONE:-${A}}", err: "${NONE:-…} has another ${ in it"},

		{in: "${file:/crlf}", want: "x"},
		{in: "${file:/lines}", want: "x\ny\n"},
		{in: "${file:/empty}", want: ""},
		{in: "${file:/none}", err: "${file:/none}: file does not exist"},
		{in: "${file:x}", err: "${file:x}: the path must be absolute"},
		{in: "${file:}", err: "${file:}: the path must be absolute"},

		{in: "${A", err: "${ without }"},
		{in: "x ${", err: "${ without }"},
		{in: "${}", err: notUnderstood},
		{in: "${1A}", err: notUnderstood},
		{in: "${A B}", err: notUnderstood},
		{in: "${A-x}", err: notUnderstood},
		{in: "${A:x}", err: notUnderstood},
		{in: "${env:A}", err: notUnderstood},
		{in: "${ A }", err: notUnderstood},
	}
	for _, test := range tests {
		got, fromFile, err := src.expand(test.in)
		switch {
		case test.err != "":
			if err == nil || !strings.HasPrefix(err.Error(), test.err) {
				t.Errorf("%q: got %q, %v, want the error %s", test.in, got, err, test.err)
			}
		case err != nil || got != test.want:
			t.Errorf("%q: got %q, %v, want %q", test.in, got, err, test.want)
		case fromFile != strings.Contains(test.in, "file:"):
			t.Errorf("%q: from a file: %v", test.in, fromFile)
		}
	}
}

// TestExpandedValuesAreNoYAML: whatever a variable holds stays one scalar.
func TestExpandedValuesAreNoYAML(t *testing.T) {
	for _, value := range []string{"x, y: z", "[a, b]", "{a: b}", "# c", "*x", "&x", "!x", "'", `"`, "a: b", "- a", "~", "true", "010", " x ", "%", "${A}"} {
		src := world
		src.lookup = func(name string) (string, bool) {
			if name == "VALUE" {
				return value, true
			}
			return world.lookup(name)
		}
		l := newLoader(src)
		l.files = []string{"f.yaml"}
		l.document(place{file: "f.yaml"}, []byte("kafka: {client_id: \"${VALUE}\"}\npipelines:\n"+minimal("a")))
		cfg, err := l.finish()
		if err != nil || cfg.Kafka.ClientID != value {
			t.Errorf("%q: got %q, %v", value, cfg.Kafka.ClientID, err)
			continue
		}
		// And it stays so in what is printed.
		again, err := loadText(string(cfg.YAML()))
		if err != nil || again.Kafka.ClientID != value {
			t.Errorf("%q: printed as\n%s, which loads as %q, %v", value, cfg.YAML(), again.Kafka.ClientID, err)
		}
	}
}

// TestExpandedValuesKeepTheType of the setting, with the checks on it.
func TestExpandedValuesKeepTheType(t *testing.T) {
	tests := []struct{ setting, value, want string }{
		{"workers", "8", ""},
		{"workers", "010", `"010" is not a whole number`},
		{"workers", "8.0", `"8.0" is not a whole number`},
		{"workers", " 8", `" 8" is not a whole number`},
		{"workers", "0", `"0" is too small`},
		{"workers", "", `"" is not a whole number`},
		{"drain_timeout", "5s", ""},
		{"drain_timeout", "5", `"5" is not a duration`},
		{"order", "partition", ""},
		{"order", "key", `"key" is not built yet`},
		{"order", "parttion", `"parttion" is unknown; only partition is possible (did you mean "partition"?)`},
	}
	for _, test := range tests {
		src := world
		src.lookup = func(name string) (string, bool) { return test.value, name == "VALUE" }
		l := newLoader(src)
		l.files = []string{"f.yaml"}
		text := fmt.Sprintf("instance: i\npipelines:\n%s    %s: ${VALUE}\n", block("a"), test.setting)
		l.document(place{file: "f.yaml"}, []byte(text))
		_, err := l.finish()
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.setting+": "+test.want) {
			t.Errorf("%s: %q: got %v, want %q", test.setting, test.value, err, test.want)
		}
	}
}

// block is minimal in block style, so that settings can follow.
func block(name string) string {
	return "  - name: " + name + "\n    input: {topics: [" + name + ".in], start: earliest}\n    transform: {pass: {}}\n    output: {topic: " + name + ".out}\n"
}
