package config

import (
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// member returns the field of the struct v that is tagged with key.
func member(v reflect.Value, key string) reflect.Value {
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("key") == key {
			return v.Field(i)
		}
	}
	panic("no field of " + v.Type().String() + " has the key " + key)
}

// setDefaults stores the defaults of f in v. What is behind a nil pointer has no
// defaults until it is given.
func setDefaults(f *field, v reflect.Value) {
	switch {
	case f.unbuilt || v.Kind() == reflect.Pointer && f.kind == object:
	case f.kind == object:
		for _, c := range f.fields {
			if !c.unbuilt {
				setDefaults(c, member(v, c.key))
			}
		}
	case f.def == "":
	case f.kind == list:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		setDefault(f.item, v.Index(0), f.def)
	default:
		setDefault(f, v, f.def)
	}
}

func setDefault(f *field, v reflect.Value, def string) {
	if f.defDoc != "" {
		return // until the rest is loaded
	}
	if err := setText(f, v, def, def); err != nil {
		panic(f.key + ": the default " + err.Error())
	}
}

// String returns the kind as a problem names it: must be ….
func (k kind) String() string {
	switch k {
	case object, table:
		return "a mapping of keys to values"
	case list:
		return "a list"
	case integer:
		return "a whole number"
	case number:
		return "a number"
	case boolean:
		return "true or false"
	case duration:
		return "a duration, like 10s"
	case size:
		return "a size, like 64MiB"
	case percent:
		return "a share, like 5%"
	default:
		return "text"
	}
}

// takes reports whether the scalar n has the type that YAML gives to values of
// kind k.
func (k kind) takes(n *yaml.Node) bool {
	switch tag := n.ShortTag(); k {
	case integer:
		return tag == "!!int" || tag == "!!float"
	case number:
		return tag == "!!int" || tag == "!!float"
	case boolean:
		return tag == "!!bool"
	default:
		// A time is text to most readers of YAML.
		return tag == "!!str" || tag == "!!timestamp"
	}
}

// describe says what n is, for people.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!null":
		return "nothing"
	default:
		return "text"
	}
}

// braceHint explains {topic}, or a program, without quotes, which YAML reads as a
// mapping or a list.
func braceHint(n *yaml.Node, f *field) string {
	if f.kind == program {
		return "; put the program in quotes, or below a |"
	}
	if f.kind == text && n.Kind == yaml.MappingNode && n.Style&yaml.FlowStyle != 0 && len(n.Content) == 2 && n.Content[1].ShortTag() == "!!null" {
		return "; put braces in quotes: \"{" + n.Content[0].Value + "}…\""
	}
	return ""
}

var userInfo = regexp.MustCompile(`://[^/]*@`)

// quote shows a value in a problem, cut short if it is long, and without the
// user and password of an address.
func quote(s string) string {
	s = userInfo.ReplaceAllString(s, "://"+redacted+"@")
	if len(s) > 100 {
		s = s[:100] + "…"
	}
	return strconv.Quote(s)
}

// keys returns the keys of an object that a misspelt one may have meant.
func keys(f *field) []string {
	var all []string
	for _, c := range f.fields {
		all = append(all, c.key)
	}
	return all
}

// elsewhere returns a hint if key exists at one other place of the tree.
func elsewhere(key, path string) string {
	var found []string
	var walk func(f *field, path string)
	walk = func(f *field, path string) {
		if f.kind == list {
			walk(f.item, path+"[]")
		}
		for _, c := range f.fields {
			at := strings.TrimPrefix(path+"."+c.key, ".")
			if c.key == key {
				found = append(found, at)
			}
			walk(c, at)
		}
	}
	walk(root, "")
	if len(found) != 1 || path == found[0] {
		return ""
	}
	return " (did you mean " + strconv.Quote(found[0]) + "?)"
}

// firstSentence returns the first sentence of doc as a part of another one.
func firstSentence(doc string) string {
	s, _, _ := strings.Cut(doc, ". ")
	s = strings.ReplaceAll(strings.TrimSuffix(s, "."), "`", "")
	return strings.ToLower(s[:1]) + s[1:]
}
