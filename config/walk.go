package config

import (
	"cmp"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// value loads n into v as f describes it.
func (l *loader) value(n *yaml.Node, f *field, v reflect.Value, p place) {
	l.places[p] = &entry{line: n.Line, column: n.Column}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
		// Aliases may stand below aliases; a few lines can mean millions of values.
		if l.aliased++; l.aliased > 1000 {
			if l.aliased == 1001 {
				l.problem(p, n, "too many aliases; write the values out")
			}
			l.places[p].bad = true
			return
		}
	}
	switch {
	case n.Style&yaml.TaggedStyle != 0:
		// Not shown: it may be a password that begins with an exclamation mark.
		l.problem(p, n, "has a tag, which is not supported; put text that begins with ! in quotes")
	case n.ShortTag() == "!!null" && n.Kind == yaml.ScalarNode && f.mayBeEmpty():
		l.problem(p, n, "has no value; write {} for its defaults, or remove it")
	case n.ShortTag() == "!!null" && n.Kind == yaml.ScalarNode:
		l.problem(p, n, "has no value; give it one, or remove it")
	case f.kind == object && n.Kind == yaml.MappingNode:
		if v.Kind() == reflect.Pointer {
			v.Set(reflect.New(v.Type().Elem()))
			v = v.Elem()
			setDefaults(f, v)
		}
		l.object(n, f, v, p)
	case f.kind == list && n.Kind == yaml.SequenceNode:
		l.list(n, f, v, p)
	case f.kind == table && n.Kind == yaml.MappingNode:
		l.table(n, f, v, p)
	case f.kind != object && f.kind != list && f.kind != table && n.Kind == yaml.ScalarNode:
		l.scalar(n, f, v, p)
	default:
		l.problem(p, n, "is %s, must be %s%s", describe(n), f.kind, braceHint(n, f))
	}
}

// object loads a mapping into a struct.
func (l *loader) object(n *yaml.Node, f *field, v reflect.Value, p place) {
	if n.Kind != yaml.MappingNode {
		l.problem(p, n, "is %s, must be a mapping of keys to values", describe(n))
		return
	}
	if _, ok := l.places[p]; !ok {
		l.places[p] = &entry{line: n.Line, column: n.Column}
	}
	given := map[string]*yaml.Node{}
	meant := map[string]bool{} // what misspelt keys were meant to be
	merged := false
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := n.Content[i], n.Content[i+1]
		if k.Kind == yaml.ScalarNode && k.ShortTag() == "!!merge" {
			l.problem(p.key(k.Value), k, "merge keys are not supported; an alias may stand for a whole value")
			merged = true
			continue
		}
		if k.Kind != yaml.ScalarNode {
			l.problem(p.key(""), k, "a key must be a word")
			continue
		}
		at := p.key(k.Value)
		if first, ok := given[k.Value]; ok {
			l.problem(at, k, "is given twice, first at line %d", first.Line)
			continue
		}
		given[k.Value] = k
		c := f.child(k.Value)
		switch {
		case c == nil:
			hint := didYouMean(k.Value, keys(f))
			if hint == "" {
				hint = elsewhere(k.Value, p.path)
			}
			l.problem(at, k, "unknown key%s", hint)
			if key := nearest(k.Value, keys(f)); key != "" {
				meant[key] = true
				if given[key] == nil {
					l.spoil(p.key(key), k.Line, k.Column)
				}
			}
		case c.unbuilt:
			l.problem(at, k, "is not built yet; remove the key")
		case f == root && c.kind != list && l.sections[c.key].file != "":
			l.problem(at, k, "is given twice, first at %s", l.where(l.sections[c.key]))
		default:
			l.value(value, c, member(v, c.key), at)
			if f == root {
				l.sections[c.key] = at
			}
		}
	}
	if merged {
		l.spoil(p, n.Line, n.Column) // nobody knows what is in it
		return
	}
	l.missing(n, f, p, given, meant)
}

// missing reports the keys that an object needs and does not have.
func (l *loader) missing(n *yaml.Node, f *field, p place, given map[string]*yaml.Node, meant map[string]bool) {
	for _, c := range f.fields {
		if c.required && given[c.key] == nil && !meant[c.key] {
			l.problem(p.key(c.key), n, "is required: %s", firstSentence(c.doc))
		}
	}
	if len(f.oneOf) == 0 {
		return
	}
	var have, built []string
	misspelt := false
	for _, key := range f.oneOf {
		if given[key] != nil {
			have = append(have, key)
		}
		if !f.child(key).unbuilt {
			built = append(built, key)
		}
		misspelt = misspelt || meant[key]
	}
	switch {
	case len(have) == 0 && !misspelt:
		l.problem(p, n, "exactly one of %s is required", strings.Join(built, ", "))
	case len(have) > 1:
		last := slices.MaxFunc(have, func(a, b string) int {
			return cmp.Or(cmp.Compare(given[a].Line, given[b].Line), cmp.Compare(given[a].Column, given[b].Column))
		})
		l.problem(p, given[last], "has %s; exactly one of %s is possible", strings.Join(have, " and "), strings.Join(built, ", "))
	}
}

// list loads a sequence into a slice. Pipelines of several files add up.
func (l *loader) list(n *yaml.Node, f *field, v reflect.Value, p place) {
	if f.def != "" {
		v.SetZero()
	}
	if len(n.Content) < f.minItems {
		l.problem(p, n, "is empty")
	}
	first := map[any]place{}
	for i, item := range n.Content {
		elem := reflect.New(v.Type().Elem()).Elem()
		setDefaults(f.item, elem)
		at := p.index(i)
		l.value(item, f.item, elem, at)
		v.Set(reflect.Append(v, elem))
		if f.item.kind == object {
			l.origins = append(l.origins, at)
			continue
		}
		if other, ok := first[elem.Interface()]; ok && !f.repeats {
			l.problem(at, item, "is listed twice, first at %s", l.where(other))
		} else if !l.places[at].bad {
			first[elem.Interface()] = at
		}
	}
}

// table loads a mapping into a map. Its keys are names to which capitals make no
// difference.
func (l *loader) table(n *yaml.Node, f *field, v reflect.Value, p place) {
	given := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind == yaml.ScalarNode && k.ShortTag() == "!!merge" {
			l.problem(p.key(k.Value), k, "merge keys are not supported; an alias may stand for a whole value")
			continue
		}
		if k.Kind != yaml.ScalarNode {
			l.problem(p.key(""), k, "a key must be a word")
			continue
		}
		at := p.key(k.Value)
		if first, ok := given[strings.ToLower(k.Value)]; ok {
			l.problem(at, k, "is given twice, first at line %d", first.Line)
			continue
		}
		given[strings.ToLower(k.Value)] = k
		if !f.form.MatchString(k.Value) {
			l.problem(at, k, "is wrong: must be %s", f.formDoc)
			continue
		}
		elem := reflect.New(v.Type().Elem()).Elem()
		l.value(n.Content[i+1], f.item, elem, at)
		if v.IsNil() {
			v.Set(reflect.MakeMap(v.Type()))
		}
		v.SetMapIndex(reflect.ValueOf(k.Value), elem)
	}
}

// scalar loads a single value, expanding variables in it.
func (l *loader) scalar(n *yaml.Node, f *field, v reflect.Value, p place) {
	s, shown := n.Value, quote(n.Value)
	switch {
	case strings.Contains(s, "${"):
		expanded, fromFile, err := l.src.expand(s)
		if err != nil {
			l.problem(p, n, "%v", err)
			return
		}
		if s = expanded; !fromFile {
			shown = quote(s)
		}
	case !f.kind.takes(n) && (f.word == "" || s != f.word):
		hint := ""
		switch {
		case f.kind == duration || f.kind == size || f.kind == start || f.kind == percent || f.kind == delay:
			// The parser says it better: what is missing is the unit, say.
			if err := setText(f, v, s, shown); err != nil {
				l.problem(p, n, "%v", err)
				return
			}
		case f.kind == text || f.kind == secret || f.kind == pattern || f.kind == program:
			hint = "; put it in quotes"
		case n.ShortTag() == "!!str" && setText(f, reflect.New(v.Type()).Elem(), s, shown) == nil:
			hint = "; leave the quotes away"
		}
		l.problem(p, n, "is %s, must be %s%s%s", describe(n), f.kind, hint, octalHint(s))
		return
	}
	if err := setText(f, v, s, shown); err != nil {
		l.problem(p, n, "%v", err)
	}
}
