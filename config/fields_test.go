package config

import (
	"cmp"
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// everyField calls visit for each field of the tree, with the struct field that
// it is loaded into; of keys that are not built yet there is none.
func everyField(f *field, path string, v reflect.Value, visit func(f *field, path string, v reflect.Value)) {
	visit(f, path, v)
	if f.unbuilt {
		return
	}
	if v.Kind() == reflect.Pointer && f.kind == object {
		v = reflect.New(v.Type().Elem()).Elem()
	}
	for _, c := range f.fields {
		at := strings.TrimPrefix(path+"."+c.key, ".")
		if c.unbuilt {
			visit(c, at, reflect.Value{})
		} else {
			everyField(c, at, member(v, c.key), visit)
		}
	}
	if f.kind == list {
		everyField(f.item, path+"[]", reflect.New(v.Type().Elem()).Elem(), visit)
	}
}

// TestFieldsAndSettingsAgree holds the tree and the structs together, both ways.
func TestFieldsAndSettingsAgree(t *testing.T) {
	kinds := map[kind]string{
		text: "string", secret: "config.Secret", table: "map[string]config.Secret", integer: "int int64", number: "float64", boolean: "bool",
		duration: "time.Duration", size: "int64", pattern: "*regexp.Regexp", start: "config.Start", program: "string", percent: "float64", delay: "config.Delay",
	}
	seen := 0
	everyField(root, "", reflect.ValueOf(&Config{}).Elem(), func(f *field, path string, v reflect.Value) {
		seen++
		if f.unbuilt {
			return
		}
		if want, ok := kinds[f.kind]; ok && !slices.Contains(strings.Fields(want), v.Type().String()) {
			t.Errorf("%s: is loaded into a %v, want %s", path, v.Type(), want)
		}
		typ := v.Type()
		if typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		if f.kind == object {
			for i := range typ.NumField() {
				key := typ.Field(i).Tag.Get("key")
				if c := f.child(key); c == nil || c.unbuilt {
					t.Errorf("%s: the struct field %s has the key %q, which is not built", path, typ.Field(i).Name, key)
				}
			}
		}
	})
	if seen < 60 {
		t.Errorf("saw %d fields only", seen)
	}
}

func TestFieldsAreDescribed(t *testing.T) {
	everyField(root, "", reflect.ValueOf(&Config{}).Elem(), func(f *field, path string, v reflect.Value) {
		if path == "" || strings.HasSuffix(path, "[]") {
			return
		}
		if !strings.HasSuffix(f.doc, ".") && !strings.HasSuffix(f.doc, "`.") {
			t.Errorf("%s: the description %q is no sentence", path, f.doc)
		}
		if f.required && f.def != "" {
			t.Errorf("%s: is required and has a default", path)
		}
		if f.enum != nil && (f.form != nil || f.def != "" && !slices.Contains(f.enum, f.def)) {
			t.Errorf("%s: the default %q is not in the enum, or there is a form too", path, f.def)
		}
		for _, value := range f.unbuiltValues {
			if slices.Contains(f.enum, value) {
				t.Errorf("%s: %s is both built and not", path, value)
			}
		}
		if f.form != nil && f.formDoc == "" {
			t.Errorf("%s: nothing says what %v demands", path, f.form)
		}
		if f.min != "" || f.max != "" {
			// It panics if a limit cannot be parsed.
			if err := setText(f, reflect.New(v.Type()).Elem(), cmp.Or(f.def, f.min), "default"); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	})
}

// TestSchemaPatterns: editors read patterns as JavaScript does, and as Unicode.
func TestSchemaPatterns(t *testing.T) {
	patterns := regexp.MustCompile(`"pattern": ("(?:[^"\\]|\\.)*")`).FindAllSubmatch(Schema(), -1)
	if len(patterns) < 20 {
		t.Fatalf("found %d patterns", len(patterns))
	}
	for _, m := range patterns {
		var p string
		if err := json.Unmarshal(m[1], &p); err != nil {
			t.Fatal(err)
		}
		// Flags and names are written otherwise there; \A, \z, \Q, \pN don't exist;
		// what needs no backslash may not have one.
		if strings.Contains(p, "(?") || regexp.MustCompile(`\\[^sdwSDWbB\\.*+?()\[\]{}|^$/-]`).MatchString(p) {
			t.Errorf("%s means something else, or nothing, in JavaScript", p)
		}
	}
}
