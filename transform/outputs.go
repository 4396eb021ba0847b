package transform

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

// An outline is the key and the headers of an output.
type outline struct {
	key     []byte
	headers []kgo.RecordHeader
}

func (o outline) add(out *processor.Outputs, value []byte) {
	record := out.Add(value)
	record.Key = o.key
	record.Headers = o.headers[:len(o.headers):len(o.headers)]
}

// A change replaces the headers of one name; without values it drops them.
type change struct {
	name   string
	values [][]byte // nil is null
}

// apply returns the headers with the changes, which are sorted by name: at the
// place of the first that was, else at the end.
func apply(headers []kgo.RecordHeader, changes []change) []kgo.RecordHeader {
	if len(changes) == 0 {
		return headers
	}
	changed := make([]kgo.RecordHeader, 0, len(headers)+len(changes))
	done := make([]bool, len(changes))
	put := func(i int) {
		for _, value := range changes[i].values {
			changed = append(changed, kgo.RecordHeader{Key: changes[i].name, Value: value})
		}
		done[i] = true
	}
	for _, h := range headers {
		i, found := slices.BinarySearchFunc(changes, h.Key, func(c change, name string) int { return strings.Compare(c.name, name) })
		switch {
		case !found:
			changed = append(changed, h)
		case !done[i]:
			put(i)
		}
	}
	for i := range changes {
		if !done[i] {
			put(i)
		}
	}
	return changed
}

// outlineOf returns the outline of the input with what the headers of a reply
// change.
func outlineOf(header http.Header, in processor.Input) (outline, error) {
	o := outline{key: in.Key}
	key, given, err := single(header, keyHeader)
	if err != nil {
		return o, err
	}
	isNull, null, err := single(header, keyNullHeader)
	switch {
	case err != nil:
		return o, err
	case null && isNull != "true":
		return o, malformed("%s must be true", keyNullHeader)
	case null && given:
		return o, malformed("%s and %s exclude each other", keyHeader, keyNullHeader)
	case null:
		o.key = nil
	case given:
		if o.key, err = decodeValue(key); err != nil {
			return o, malformed("%s %w", keyHeader, err)
		}
	}
	changes, err := changesOf(header)
	o.headers = apply(in.Headers, changes)
	return o, err
}

// changesOf reads Seriatim-H-*, Seriatim-Hn-* and Seriatim-H-Drop.
func changesOf(header http.Header) ([]change, error) {
	var names []string
	for name := range header {
		if strings.HasPrefix(name, headerPrefix) || strings.HasPrefix(name, nullHeaderPrefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names) // the same reply has the same result, whatever the order of the map
	var changes []change
	for _, name := range names {
		for _, line := range header[name] {
			// HTTP allows to join repeats with a comma, and some stacks do. What we
			// encode has no space, so that this is never part of a value.
			for value := range strings.SplitSeq(line, ", ") {
				c, err := changeOf(name, value)
				if err != nil {
					return nil, malformed("%.100q %w", name, err)
				}
				changes = append(changes, c)
			}
		}
	}
	return merge(changes), nil
}

// changeOf reads one value of a Seriatim-H header.
func changeOf(header, value string) (c change, err error) {
	if header == dropHeader {
		c.name, err = decodeName(value)
		return c, err
	}
	name, null := strings.CutPrefix(header, nullHeaderPrefix)
	if !null {
		name = strings.TrimPrefix(header, headerPrefix)
	}
	// HTTP does not keep case: small letters are meant.
	if c.name, err = decodeName(strings.ToLower(name)); err != nil || null {
		c.values = [][]byte{nil}
		return c, err
	}
	decoded, err := decodeValue(value)
	c.values = [][]byte{decoded}
	return c, err
}

// merge sorts changes by name and joins those of one name.
func merge(changes []change) []change {
	slices.SortStableFunc(changes, func(a, b change) int { return cmp.Compare(a.name, b.name) })
	merged := changes[:0]
	for _, c := range changes {
		if last := len(merged) - 1; last >= 0 && merged[last].name == c.name {
			merged[last].values = append(merged[last].values, c.values...)
		} else {
			merged = append(merged, c)
		}
	}
	return merged
}

var errTooMany = errors.New("too many outputs")

// addLines adds an output for each line that is not blank.
func addLines(base outline, body []byte, out *processor.Outputs) error {
	for line := range bytes.Lines(body) {
		line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if out.Len() == maxOutputs {
			return errTooMany
		}
		base.add(out, line[:len(line):len(line)])
	}
	return nil
}

// addOutputs adds the outputs of a JSON array.
func addOutputs(base outline, body []byte, out *processor.Outputs) error {
	if !utf8.Valid(body) { // the decoder would replace what is not
		return malformed(`its JSON is not UTF-8; send such bytes as {"base64": "…"}`)
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if start, err := decoder.Token(); err != nil || start != json.Delim('[') {
		return malformed("its body is not a JSON array")
	}
	for decoder.More() {
		if out.Len() == maxOutputs {
			return errTooMany
		}
		var item outputItem
		if err := decoder.Decode(&item); err != nil {
			return malformed(`output %d is not a JSON object of "key", "value" and "headers"`, out.Len())
		}
		if err := item.add(base, out); err != nil {
			return malformed("output %d: %w", out.Len(), err)
		}
	}
	if _, err := decoder.Token(); err != nil { // the bracket
		return malformed("its body is not a whole JSON array")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return malformed("its body is more than one JSON array")
	}
	return nil
}

// outputItem is one output as JSON. What is not given is null here, what is given as
// null is the word.
type outputItem struct {
	Key     json.RawMessage
	Value   json.RawMessage
	Headers map[string]json.RawMessage
}

// add adds the output with what it changes of the outline.
func (item outputItem) add(o outline, out *processor.Outputs) error {
	if item.Value == nil {
		return errors.New(`has no "value"; the null value is null`)
	}
	value, err := bytesOf(item.Value)
	if err != nil {
		return malformed(`"value" %w`, err)
	}
	if item.Key != nil {
		if o.key, err = bytesOf(item.Key); err != nil {
			return malformed(`"key" %w`, err)
		}
	}
	var changes []change
	for _, name := range slices.Sorted(maps.Keys(item.Headers)) {
		values, err := listOf(item.Headers[name])
		if err != nil {
			return malformed(`"headers": %.100q %w`, name, err)
		}
		changes = append(changes, change{name, values})
	}
	o.headers = apply(o.headers, changes)
	o.add(out, value)
	return nil
}

// listOf reads the values of one header: one, or an array of any number.
func listOf(raw json.RawMessage) ([][]byte, error) {
	list := []json.RawMessage{raw}
	if raw[0] == '[' {
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, errBytes
		}
	}
	values := make([][]byte, len(list))
	for i := range list {
		var err error
		if values[i], err = bytesOf(list[i]); err != nil {
			return nil, err
		}
	}
	return values, nil
}

var errBytes = errors.New(`must be a string, null, or {"base64": "…"}; JSON goes into a string`)

// bytesOf reads bytes as they stand in JSON: a string, {"base64": "…"}, or null,
// which is nil.
func bytesOf(raw json.RawMessage) ([]byte, error) {
	switch raw[0] {
	case 'n':
		return nil, nil
	case '"':
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, errBytes
		}
		return []byte(text), nil
	case '{':
		var encoded struct{ Base64 *string }
		decoder := json.NewDecoder(bytes.NewReader(raw))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&encoded); err != nil || encoded.Base64 == nil {
			return nil, errBytes
		}
		decoded, err := base64.StdEncoding.DecodeString(*encoded.Base64)
		if err != nil {
			return nil, errors.New("is not base64 (RFC 4648, with padding)")
		}
		return decoded, nil
	default:
		return nil, errBytes
	}
}
