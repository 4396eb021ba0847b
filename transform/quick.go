package transform

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"unicode/utf8"

	"seriatim/processor"
)

// Nearly all answers are {"id":7,"outputs":[{"value":"…"}]}. These are read in one pass,
// several times as fast as by encoding/json; every other answer, however valid, is left to
// that.

// quick reads an answer of that form and adds its outputs. It reports false, and has added
// nothing, if it is another.
func (v *values) quick(text []byte, in processor.Input, out *processor.Outputs) bool {
	rest, ok := after(text, `{`, `"id"`, `:`)
	if !ok {
		return false
	}
	rest = blank(rest)
	digits := 0
	for digits < len(rest) && '0' <= rest[digits] && rest[digits] <= '9' {
		digits++
	}
	if digits == 0 || rest[0] == '0' { // no record has the id 0
		return false
	}
	if rest, ok = after(rest[digits:], `,`, `"outputs"`, `:`, `[`); !ok {
		return false
	}
	v.found = v.found[:0]
	if end, ok := after(rest, `]`); ok {
		rest = end
	} else {
		for more := true; more; {
			if rest, ok = after(rest, `{`, `"value"`, `:`); !ok {
				return false
			}
			var value []byte
			if value, rest, ok = v.value(rest); !ok {
				return false
			}
			v.found = append(v.found, value)
			if rest, ok = after(rest, `}`); !ok {
				return false
			}
			end, last := after(rest, `]`)
			if rest, more = after(rest, `,`); last {
				rest = end
			} else if !more {
				return false
			}
		}
	}
	if rest, ok = after(rest, `}`); !ok || len(blank(rest)) > 0 || len(v.found) > maxOutputs {
		return false
	}
	base := outline{in.Key, in.Headers}
	for _, value := range v.found {
		base.add(out, value)
	}
	return true
}

// values holds the values that were read, several together so that they cost few
// allocations. They keep nothing else of the reply.
type values struct {
	size  int // how much is allocated at a time; 0 is for each value
	room  []byte
	found [][]byte // of the answer that is read
}

// take returns n bytes, all of them zero.
func (v *values) take(n int) []byte {
	if v.room == nil || cap(v.room)-len(v.room) < n {
		v.room = make([]byte, 0, max(v.size, n))
	}
	start := len(v.room)
	v.room = v.room[:start+n]
	return v.room[start : start+n : start+n]
}

func (v *values) put(b []byte) []byte {
	value := v.take(len(b))
	copy(value, b)
	return value
}

// value reads a value: a string, {"base64": "…"} or null.
func (v *values) value(text []byte) (value, rest []byte, ok bool) {
	text = blank(text)
	if rest, ok := bytes.CutPrefix(text, []byte("null")); ok {
		return nil, rest, true
	}
	if rest, ok := after(text, `{`, `"base64"`, `:`); ok {
		token, plain, rest, ok := quoted(blank(rest))
		if !ok || !plain {
			return nil, nil, false
		}
		value := v.take(base64.StdEncoding.DecodedLen(len(token) - 2))
		n, err := base64.StdEncoding.Decode(value, token[1:len(token)-1])
		if rest, ok = after(rest, `}`); !ok || err != nil {
			return nil, nil, false
		}
		return value[:n:n], rest, true
	}
	return v.text(text)
}

// quoted returns the string that text begins with, in its quotes; plain says that nothing
// in it is escaped.
func quoted(text []byte) (token []byte, plain bool, rest []byte, ok bool) {
	if len(text) == 0 || text[0] != '"' {
		return nil, false, nil, false
	}
	plain = true
	for end := 1; end < len(text) && text[end] >= ' '; end++ {
		switch text[end] {
		case '\\':
			plain = false
			end++
		case '"':
			return text[:end+1], plain, text[end+1:], true
		}
	}
	return nil, false, nil, false
}

// text reads a string.
func (v *values) text(text []byte) (value, rest []byte, ok bool) {
	token, plain, rest, ok := quoted(text)
	if !ok {
		return nil, nil, false
	}
	inner := token[1 : len(token)-1]
	switch {
	case !utf8.Valid(inner):
		return nil, nil, false
	case plain:
		return v.put(inner), rest, true
	case bytes.Contains(inner, []byte(`\u`)):
		var decoded string
		if json.Unmarshal(token, &decoded) != nil {
			return nil, nil, false
		}
		return v.put([]byte(decoded)), rest, true
	}
	value = v.put(inner)[:0]
	for i := 0; i < len(inner); i++ {
		c := inner[i]
		if c == '\\' {
			i++
			if c, ok = unescape(inner[i]); !ok {
				return nil, nil, false
			}
		}
		value = append(value, c)
	}
	return value[:len(value):len(value)], rest, true
}

func unescape(c byte) (byte, bool) {
	switch c {
	case '"', '\\', '/':
		return c, true
	case 'n':
		return '\n', true
	case 't':
		return '\t', true
	case 'r':
		return '\r', true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	default:
		return 0, false
	}
}

// after returns what stands behind these tokens, with blanks between.
func after(text []byte, tokens ...string) (rest []byte, ok bool) {
	for _, token := range tokens {
		if text = blank(text); len(text) < len(token) || string(text[:len(token)]) != token {
			return nil, false
		}
		text = text[len(token):]
	}
	return text, true
}

// blank returns what stands behind the blanks of JSON.
func blank(text []byte) []byte {
	for len(text) > 0 && (text[0] == ' ' || text[0] == '\t' || text[0] == '\n' || text[0] == '\r') {
		text = text[1:]
	}
	return text
}
