package config

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPageOfKeys keeps the tables in the documentation true.
func TestPageOfKeys(t *testing.T) {
	const page, begin, end = "../docs/configuration.md", "do not edit between here and the end. -->\n", "<!-- end -->"
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(content), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the keys", page)
	}
	want := keyTables()
	if *update {
		if err := os.WriteFile(page, []byte(before+begin+want+end+after), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got == want {
		return
	}
	have := strings.Split(got, "\n")
	for _, line := range strings.Split(want, "\n") {
		if !slices.Contains(have, line) {
			t.Errorf("%s lacks\n%s", page, line)
		}
	}
	t.Errorf("%s is out of date; write it with go test ./config -run TestPageOfKeys -update", page)
}

// keyTables returns the tables of all keys, and the list of those to come.
func keyTables() string {
	var b strings.Builder
	var process, unbuilt []string
	table := func(f *field, path string) []string {
		var rows []string
		everyField(f, path, reflect.New(typeAt(f)).Elem(), func(f *field, path string, _ reflect.Value) {
			switch {
			case strings.HasSuffix(path, "[]") || path == "":
			case f.unbuilt:
				unbuilt = append(unbuilt, "`"+path+"`")
			default:
				rows = append(rows, row(f, path))
				for _, value := range f.unbuiltValues {
					unbuilt = append(unbuilt, "`"+path+": "+value+"`")
				}
			}
		})
		return rows
	}
	head := "\n| Key | Value | Default | Meaning |\n|---|---|---|---|\n"
	for _, f := range root.fields {
		if f.kind != list {
			process = append(process, table(f, f.key)...)
		}
	}
	b.WriteString("\n### Of the process" + head + strings.Join(process, ""))
	b.WriteString("\n### Of each entry of `pipelines`" + head + strings.Join(table(root.child("pipelines").item, ""), ""))
	b.WriteString("\n### Not built yet\nThese are known, and refused with words that say so: " + strings.Join(unbuilt, ", ") + ".\n\n")
	return b.String()
}

// typeAt returns the type that a top-level field, or a pipeline, is loaded into.
func typeAt(f *field) reflect.Type {
	if f == root.child("pipelines").item {
		return reflect.TypeFor[Pipeline]()
	}
	return member(reflect.ValueOf(Config{}), f.key).Type()
}

func row(f *field, path string) string {
	def := "`" + f.def + "`"
	switch {
	case f.required:
		def = "required"
	case f.defDoc != "":
		def = f.defDoc
	case f.def == "" && (f.kind == text || f.kind == secret):
		def = "empty"
	case f.kind == list && f.def != "":
		def = "`[" + f.def + "]`"
	case f.def == "":
		def = ""
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s |\n", path, valueDoc(f), def, strings.ReplaceAll(f.doc, "|", `\|`))
}

// valueDoc says what the value of a key looks like.
func valueDoc(f *field) string {
	doc := map[kind]string{
		object: "", text: "text", secret: "text", integer: "whole number", number: "number", boolean: "`true`, `false`",
		duration: "duration", size: "size", pattern: "regular expression", start: "`earliest`, `latest`, time", program: "jq program", percent: "percentage", delay: "duration, `p95`",
	}[f.kind]
	switch {
	case f.kind == table:
		return "mapping of names to text"
	case f.kind == list:
		return "list of: " + valueDoc(f.item)
	case f.enum != nil:
		return "`" + strings.Join(f.enum, "`, `") + "`"
	case f.formDoc != "":
		doc = f.formDoc
	}
	switch {
	case f.min != "" && f.max != "":
		doc += fmt.Sprintf(", %s to %s", f.min, f.max)
	case f.min != "":
		doc += ", from " + f.min
	case f.max != "":
		doc += ", up to " + f.max
	}
	if f.word != "" {
		doc += ", or `" + f.word + "`"
	}
	return doc
}

// TestExampleFile: it has every key, and shows every default.
func TestExampleFile(t *testing.T) {
	const file = "../examples/seriatim.yaml"
	l := newLoader(world)
	l.add(file)
	cfg, err := l.finish()
	if err != nil {
		t.Fatal(err)
	}
	if faults := schemaFaults(t, file); len(faults) > 0 {
		t.Errorf("the schema finds fault with %q", slices.Sorted(maps.Keys(faults)))
	}

	given := map[string]bool{}
	for p := range l.places {
		given[regexp.MustCompile(`\[\d+\]`).ReplaceAllString(p.path, "[]")] = true
	}
	everyField(root, "", reflect.ValueOf(&Config{}).Elem(), func(f *field, path string, _ reflect.Value) {
		if !f.unbuilt && !given[path] {
			t.Errorf("%s has no %s", file, path)
		}
	})

	shown := map[string]bool{} // whether the default of a key is seen
	var compare func(f *field, path string, v reflect.Value)
	compare = func(f *field, path string, v reflect.Value) {
		if v.Kind() == reflect.Pointer && f.kind == object {
			if v.IsNil() {
				return
			}
			v = v.Elem()
		}
		if f.def != "" {
			want := reflect.New(v.Type()).Elem()
			setDefaults(f, want)
			shown[path] = shown[path] || reflect.DeepEqual(v.Interface(), want.Interface())
		}
		for _, c := range f.fields {
			if !c.unbuilt {
				compare(c, path+"."+c.key, member(v, c.key))
			}
		}
		if f.item != nil && f.item.kind == object {
			for i := range v.Len() {
				compare(f.item, path+"[]", v.Index(i))
			}
		}
	}
	compare(root, "", reflect.ValueOf(cfg))
	for _, path := range slices.Sorted(maps.Keys(shown)) {
		if !shown[path] {
			t.Errorf("%s: %s never has its default", file, path)
		}
	}
}

// TestExamplesInPages: whoever copies a configuration from a page gets one that
// is right.
func TestExamplesInPages(t *testing.T) {
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, page := range append(pages, "../README.md") {
		content, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("(?ms)^( *)```yaml\n(.*?)^ *```").FindAllStringSubmatch(string(content), -1) {
			text := strings.ReplaceAll("\n"+m[2], "\n"+m[1], "\n")
			if !strings.Contains(text, "\npipelines:") {
				continue
			}
			found++
			if _, err := loadText(text); err != nil {
				t.Errorf("%s: %v in\n%s", page, err, text)
			}
		}
	}
	if found < 2 {
		t.Errorf("found %d configurations in the pages", found)
	}
}

// TestRecipe: the file of the recipe says what docs/failures.md says, and means it.
func TestRecipe(t *testing.T) {
	const file, page = "../examples/recipe.yaml", "../docs/failures.md"
	l := newLoader(world)
	l.add(file)
	cfg, err := l.finish()
	if err != nil {
		t.Fatal(err)
	}
	p := cfg.Pipelines[0]
	if h := p.Transform.HTTP; h == nil || len(h.URLs) < 2 || h.Timeout != 2*time.Second {
		t.Errorf("the transform is %+v, want two workers and 2s", h)
	}
	if want := (Retry{Attempts: 5, Initial: time.Second, Max: 8 * time.Second, Budget: 0.2}); p.Retry != want {
		t.Errorf("retry is %+v, want %+v", p.Retry, want)
	}
	if p.OnExhausted != "hold" || p.Hedge.After != (Delay{}) || p.MaxAge != 0 {
		t.Errorf("on_exhausted is %q, hedge.after %v, max_age %v; want hold and neither of these", p.OnExhausted, p.Hedge.After, p.MaxAge)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(text), "pipelines:\n")
	said, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(said), "```yaml\npipelines:\n"+shown+"```\n") {
		t.Errorf("%s does not show what is in %s", page, file)
	}
}
