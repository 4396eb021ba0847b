package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// FuzzLoad: nothing makes the loader panic; every problem has a place and one
// line; what it takes, the schema takes too, and so does the loader after it was
// printed.
func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil || len(files) < 30 {
		f.Fatalf("%d seeds, %v", len(files), err)
	}
	for _, file := range append(files, "testdata/ten-mistakes.yaml") {
		content, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	schema, err := compiledSchema()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		if len(content) > 64<<10 {
			return // longer than needed
		}
		src := source{lookup: world.lookup, read: func(string) ([]byte, error) { return []byte("secret"), nil }}
		load := func(content []byte) (Config, error) {
			l := newLoader(src)
			l.files = []string{"f"}
			l.document(place{file: "f"}, content)
			return l.finish()
		}
		cfg, err := load(content)
		if err != nil {
			var problems Problems
			if !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("error of type %T: %v", err, err)
			}
			lines := strings.Count(string(content), "\n") + 1
			for _, p := range problems {
				if p.File != "f" || p.Line < 1 || p.Line > lines || p.Column < 1 || p.What == "" {
					t.Errorf("a problem without a place in %d lines: %#v", lines, p)
				}
				if strings.ContainsAny(p.String(), "\n\r\x1b") {
					t.Errorf("a problem of more than one line: %q", p)
				}
			}
			return
		}
		docs, problem := parse(content)
		if problem != nil {
			t.Fatal(problem)
		}
		if err := schema.Validate(instance(docs)); err != nil {
			t.Errorf("the schema refuses what the loader takes: %v", err)
		}
		again, err := load(cfg.YAML())
		tellSecrets(&cfg, &again)
		if err != nil || !reflect.DeepEqual(cfg, again) {
			t.Errorf("printed as\n%s\nwhich loads as\n%s\n%v", cfg.YAML(), again.YAML(), err)
		}
	})
}
