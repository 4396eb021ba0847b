package transform

import (
	"errors"
	"net/http"
	"slices"
)

// Names of the contract with workers, as net/http spells them (docs/workers.md).
const (
	headerPrefix     = "Seriatim-H-"  // + name of a record header
	nullHeaderPrefix = "Seriatim-Hn-" // + name of a record header whose value is null
	dropHeader       = "Seriatim-H-Drop"
	keyHeader        = "Seriatim-Key"
	keyNullHeader    = "Seriatim-Key-Null"
	valueHeader      = "Seriatim-Value"
	outcomeHeader    = "Seriatim-Outcome"
	errorHeader      = "Seriatim-Error"
)

const upperHex = "0123456789ABCDEF"

func appendEscape(dst []byte, c byte) []byte {
	return append(dst, '%', upperHex[c>>4], upperHex[c&15])
}

// appendValue appends a key or a header value as it travels in an HTTP header:
// visible ASCII but for %, everything else as %XX.
func appendValue(dst, value []byte) []byte {
	for _, c := range value {
		if c <= ' ' || c > '~' || c == '%' {
			dst = appendEscape(dst, c)
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}

func plainInName(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-'
}

// headerName returns the HTTP header for a record header of that name. Capitals
// are escaped because HTTP does not keep case. So is the first letter of "drop":
// a worker that sends back what it got must not drop anything.
func headerName(prefix, name string) string {
	dst := append(make([]byte, 0, 64), prefix...)
	for i := range len(name) {
		if c := name[i]; !plainInName(c) || i == 0 && name == "drop" {
			dst = appendEscape(dst, c)
		} else {
			dst = append(dst, c)
		}
	}
	return string(dst)
}

var (
	errEscape  = errors.New("has a % that no two hexadecimal digits follow")
	errVisible = errors.New("has a byte that is not visible ASCII; write it as %XX")
	errName    = errors.New("has a byte in the name of a record header outside a-z 0-9 . _ -; write it as %XX")
)

// decodeValue undoes appendValue. It is strict, because a worker that does not
// encode gets different bytes across in different HTTP stacks.
func decodeValue(s string) ([]byte, error) {
	value := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c <= ' ' || c > '~':
			return nil, errVisible
		case c == '%':
			if i+2 >= len(s) {
				return nil, errEscape
			}
			high, low := unhex(s[i+1]), unhex(s[i+2])
			if high|low > 15 {
				return nil, errEscape
			}
			c, i = high<<4|low, i+2
		}
		value = append(value, c)
	}
	return value, nil
}

// unhex returns the value of a hexadecimal digit, or 255.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	default:
		return 255
	}
}

// decodeName undoes headerName, without its prefix.
func decodeName(s string) (string, error) {
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '%':
			i += 2
		case !plainInName(s[i]):
			return "", errName
		}
	}
	name, err := decodeValue(s)
	return string(name), err
}

// fields collects the headers of a request with few allocations: all values are
// parts of one string.
type fields struct {
	names []string
	ends  []int // of each value in text
	text  []byte

	made   http.Header // what header has returned last
	values []string    // in it
	of     []string    // their names; empty if one is there twice
}

// end ends the value that was appended to text, and names it.
func (f *fields) end(name string) {
	f.names = append(f.names, name)
	f.ends = append(f.ends, len(f.text))
}

func (f *fields) add(name, value string) {
	f.text = append(f.text, value...)
	f.end(name)
}

// header returns the headers. They are those of the time before, changed, if the names are
// the same, as they mostly are.
func (f *fields) header() http.Header {
	known := len(f.of) > 0 && slices.Equal(f.names, f.of)
	if !known {
		f.values, f.made = make([]string, len(f.names)), make(http.Header, len(f.names))
		f.of = append(f.of[:0], f.names...)
	}
	text := string(f.text)
	start := 0
	for i, name := range f.names {
		f.values[i] = text[start:f.ends[i]]
		start = f.ends[i]
		if known {
			continue
		}
		if same, repeated := f.made[name]; repeated {
			f.made[name] = append(same, f.values[i])
			f.of = f.of[:0]
		} else {
			f.made[name] = f.values[i : i+1 : i+1]
		}
	}
	return f.made
}
