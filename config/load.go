package config

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v4"
)

// Load reads the configuration from files, and from the files *.yaml and *.yml
// of directories, with lookup for environment variables. Files add up: each
// section stands in one of them, pipelines in any number. If anything is wrong
// the error is of type [Problems] and the Config is of no use.
func Load(paths []string, lookup func(string) (string, bool)) (Config, error) {
	return load(paths, source{lookup: lookup, read: readFile})
}

func load(paths []string, src source) (Config, error) {
	l := newLoader(src)
	for _, path := range paths {
		l.add(path)
	}
	return l.finish()
}

func newLoader(src source) *loader {
	l := &loader{src: src, places: map[place]*entry{}, badWithin: map[place]bool{}, sections: map[string]place{}}
	setDefaults(root, reflect.ValueOf(&l.config).Elem())
	return l
}

// finish checks the whole of what was loaded.
func (l *loader) finish() (Config, error) {
	if len(l.files) > 0 {
		l.derive()
		l.check()
	}
	if len(l.problems) > 0 {
		return Config{}, l.problems.sorted(l.files)
	}
	return l.config, nil
}

// A loader walks YAML nodes and the field tree side by side.
type loader struct {
	src      source
	config   Config
	files    []string
	problems Problems

	places    map[place]*entry // every setting that was given
	badWithin map[place]bool   // settings with a problem somewhere in them
	sections  map[string]place // those at the top, in whichever file
	origins   []place          // of config.Pipelines
	unread    bool             // a file could not be read, so that anything may be missing
	aliased   int              // nodes reached through aliases
}

// A place names a setting in one file.
type place struct{ file, path string }

// An entry is a setting that was given. It is bad when a problem of it is known,
// so that nothing is said of what follows from that.
type entry struct {
	line, column int
	bad          bool
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,100}$`)

// key returns the place of a setting below p.
func (p place) key(key string) place {
	if !plainKey.MatchString(key) {
		key = quote(key)
	}
	if p.path != "" {
		key = p.path + "." + key
	}
	return place{p.file, key}
}

func (p place) index(i int) place { return place{p.file, fmt.Sprintf("%s[%d]", p.path, i)} }

// parent returns the place that p is directly below.
func (p place) parent() place {
	return place{p.file, p.path[:max(0, strings.LastIndexAny(p.path, ".["))]}
}

// position returns where the setting at p or, if it was not given, what is
// around it begins.
func (l *loader) position(p place) (line, column int) {
	for up := p; ; up = up.parent() {
		if e := l.places[up]; e != nil {
			return e.line, e.column
		}
		if up.path == "" {
			return 1, 1
		}
	}
}

// problem reports what is wrong with the setting at p, at node n or, without
// one, where the setting or what is around it was given.
func (l *loader) problem(p place, n *yaml.Node, format string, args ...any) {
	pr := Problem{File: p.file, Path: p.path, What: oneLine(fmt.Sprintf(format, args...))}
	pr.Line, pr.Column = l.position(p)
	if n != nil {
		pr.Line, pr.Column = n.Line, n.Column
	}
	l.spoil(p, pr.Line, pr.Column)
	l.problems = append(l.problems, pr)
}

// spoil marks the setting at p as bad.
func (l *loader) spoil(p place, line, column int) {
	if l.places[p] == nil {
		l.places[p] = &entry{line: line, column: column}
	}
	l.places[p].bad = true
	for up := p; up.path != ""; {
		up = up.parent()
		l.badWithin[up] = true
	}
}

// add loads a file or the files of a directory.
func (l *loader) add(path string) {
	path = filepath.Clean(path)
	content, err := l.src.read(path)
	switch {
	case errors.Is(err, syscall.EISDIR):
		err = l.addDirectory(path)
	case err == nil && slices.Contains(l.files, path):
		err = errors.New("is given twice")
	case err == nil:
		l.files = append(l.files, path)
		l.document(place{file: path}, content)
	}
	if err != nil {
		l.unread = true
		l.problems = append(l.problems, Problem{File: path, What: plainError(err).Error()})
	}
}

func (l *loader) addDirectory(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	none := true
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if (ext == ".yaml" || ext == ".yml") && !strings.HasPrefix(e.Name(), ".") {
			none = false
			l.add(filepath.Join(path, e.Name()))
		}
	}
	if none {
		return errors.New("no *.yaml or *.yml file in this directory")
	}
	return nil
}

// document loads the text of one file.
func (l *loader) document(file place, content []byte) {
	var docs []yaml.Node
	err := yaml.Load(content, &docs, yaml.WithAllDocuments())
	if err != nil {
		l.problems = append(l.problems, syntaxError(file.file, content, err))
		l.unread = true
		return
	}
	if len(docs) == 0 || len(docs[0].Content) == 0 {
		return // as good as {}
	}
	if len(docs) > 1 {
		l.problem(file, &docs[1], "a second YAML document begins here; write one document in a file")
	}
	l.object(docs[0].Content[0], root, reflect.ValueOf(&l.config).Elem(), file)
}

func syntaxError(file string, content []byte, err error) Problem {
	p := Problem{File: file, Line: 1, Column: 1, What: "YAML syntax: " + err.Error()}
	var le *yaml.LoadError
	if !errors.As(err, &le) {
		return p
	}
	p.What = "YAML syntax: " + le.Message
	if le.ContextMsg != "" {
		p.What += " " + le.ContextMsg
	}
	if le.Mark.Line > 0 {
		p.Line, p.Column = le.Mark.Line, max(1, le.Mark.Column)
	}
	// The scanner calls every stray tab a character that cannot start a token.
	if lines := strings.Split(string(content), "\n"); p.Line <= len(lines) {
		if text := lines[p.Line-1]; strings.HasPrefix(strings.TrimLeft(text, " "), "\t") {
			p.What = "YAML syntax: a tab in the indentation; use spaces"
		}
	}
	return p
}

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
		l.problem(p, n, "the tag %s is not supported; leave it away", n.ShortTag())
	case n.ShortTag() == "!!null" && n.Kind == yaml.ScalarNode:
		l.problem(p, n, "has no value; give it one or remove the key")
	case f.kind == object && n.Kind == yaml.MappingNode:
		if v.Kind() == reflect.Pointer {
			v.Set(reflect.New(v.Type().Elem()))
			v = v.Elem()
			setDefaults(f, v)
		}
		l.object(n, f, v, p)
	case f.kind == list && n.Kind == yaml.SequenceNode:
		l.list(n, f, v, p)
	case f.kind != object && f.kind != list && n.Kind == yaml.ScalarNode:
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
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := n.Content[i], n.Content[i+1]
		if k.Kind == yaml.ScalarNode && k.ShortTag() == "!!merge" {
			l.problem(p, k, "merge keys (<<) are not supported; an alias may stand for a whole value")
			continue
		}
		if k.Kind != yaml.ScalarNode {
			l.problem(p, k, "a key must be a word")
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
	if f.maxItems > 0 && len(n.Content) > f.maxItems {
		l.problem(p, n.Content[f.maxItems], "more than %d is not built yet", f.maxItems)
		return
	}
	for i, item := range n.Content {
		elem := reflect.New(v.Type().Elem()).Elem()
		setDefaults(f.item, elem)
		at := p.index(i)
		l.value(item, f.item, elem, at)
		if f.item.kind != object && !l.places[at].bad {
			for j := range v.Len() {
				if v.Index(j).Equal(elem) {
					l.problem(at, item, "%q is listed twice", elem)
					break
				}
			}
		}
		v.Set(reflect.Append(v, elem))
		if f.item.kind == object {
			l.origins = append(l.origins, at)
		}
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
	case !f.kind.takes(n):
		hint := ""
		switch {
		case f.kind == duration || f.kind == size:
			// The parser says it better: what is missing is the unit.
			if err := setText(f, v, s, shown); err != nil {
				l.problem(p, n, "%v", err)
				return
			}
		case f.kind == text || f.kind == secret || f.kind == pattern || f.kind == start:
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

// derive fills in the defaults that depend on other settings or on the host.
func (l *loader) derive() {
	if len(l.config.Pipelines) == 0 && !l.unread && l.sound(place{l.files[0], "pipelines"}) {
		l.problem(place{l.files[0], "pipelines"}, nil, "is required: there is nothing to run")
	}
	if _, given := l.sections["instance"]; !given {
		l.config.Instance, _ = l.src.lookup("HOSTNAME")
		if l.config.Instance == "" {
			l.config.Instance, _ = os.Hostname()
		}
		if err := checkText(root.child("instance"), l.config.Instance, quote(l.config.Instance)); err != nil {
			l.problem(place{l.files[0], "instance"}, nil, "is not given, and the host name %v", err)
		}
	}
	for i := range l.config.Pipelines {
		if p := &l.config.Pipelines[i]; p.Input.Group == "" {
			p.Input.Group = "seriatim." + p.Name
		}
	}
}
