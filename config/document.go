package config

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// document loads the text of one file.
func (l *loader) document(file place, content []byte) {
	docs, syntax := parse(content)
	if syntax != nil {
		syntax.File = file.file
		l.problems = append(l.problems, *syntax)
		l.unread = true
		return
	}
	if len(docs) == 0 || len(docs[0].Content) == 0 {
		l.problem(file, nil, "has no settings; write {} if that is meant")
		return
	}
	if len(docs) > 1 {
		l.problem(file, &docs[1], "a second YAML document begins here; write one document in a file")
	}
	l.ignore(docs[0].Content[0])
	l.object(docs[0].Content[0], root, reflect.ValueOf(&l.config).Elem(), file)
}

// ignore takes the ignored sections out of a document.
func (l *loader) ignore(doc *yaml.Node) {
	if doc.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(doc.Content); {
		if slices.Contains(l.ignored, doc.Content[i].Value) {
			doc.Content = slices.Delete(doc.Content, i, i+2)
		} else {
			i += 2
		}
	}
}

var bracesForm = regexp.MustCompile(`:\s*\{(topic|[0-9])\}`)

// parse returns the documents of a file, or the first mistake in its syntax.
func parse(content []byte) ([]yaml.Node, *Problem) {
	if p := foreign(content); p != nil {
		return nil, p
	}
	var docs []yaml.Node
	err := yaml.Load(content, &docs, yaml.WithAllDocuments())
	if err == nil {
		return docs, nil
	}
	p := &Problem{Line: 1, Column: 1, What: "YAML syntax: " + oneLine(err.Error())}
	var le *yaml.LoadError
	if !errors.As(err, &le) {
		return nil, p
	}
	lines := strings.Split(string(content), "\n")
	p.Line, p.Column = max(1, le.Mark.Line), max(1, le.Mark.Column)
	if p.Line > len(lines) { // where the parser looked for more
		p.Line, p.Column = len(lines), len(lines[len(lines)-1])+1
	}
	line := lines[p.Line-1]
	switch message := le.Message; {
	case strings.HasPrefix(strings.TrimLeft(line, " "), "\t"):
		// The scanner calls it a character that cannot start a token.
		p.What = "YAML syntax: a tab in the indentation; use spaces"
	case strings.HasPrefix(message, "unknown anchor"):
		// Not shown: it may be a password that begins with an asterisk.
		p.What = "YAML syntax: no anchor has the name of this alias; put text that begins with * in quotes"
	case strings.Contains(line, "${") && strings.Contains(le.ContextMsg, "flow"):
		p.What = "YAML syntax: inside [ ] and { }, put ${…} in quotes"
	case bracesForm.MatchString(line):
		p.What = "YAML syntax: put what begins with { in quotes, as in topic: \"{topic}.out\""
	default:
		p.What = strings.TrimRight("YAML syntax: "+message+" "+le.ContextMsg, " ")
	}
	return nil, p
}

// foreign returns a problem with the first byte that no YAML file in UTF-8 has.
// The parser tells no place of those.
func foreign(content []byte) *Problem {
	for i := 0; i < len(content); {
		r, size := utf8.DecodeRune(content[i:])
		what := ""
		switch {
		case r == utf8.RuneError && size == 1:
			what = "is not UTF-8 text"
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r >= 0x7f && r <= 0x9f && r != 0x85:
			what = fmt.Sprintf("has the control character %U", r)
		}
		if what != "" {
			return &Problem{
				Line:   1 + bytes.Count(content[:i], []byte("\n")),
				Column: 1 + utf8.RuneCount(content[bytes.LastIndexByte(content[:i], '\n')+1:i]),
				What:   what,
			}
		}
		i += size
	}
	return nil
}
