package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A pkg is a folder with Go files, whatever tags these need.
type pkg struct {
	files     []file
	commented bool
}

type file struct {
	path    string // below the root, with slashes
	test    bool
	imports []string // ours, below the module
	lines   int
}

// load reads all Go files of the module in dir, by package. Folders with a go.mod
// are modules of their own and not read.
func load(dir string) (map[string]*pkg, error) {
	packages := make(map[string]*pkg)
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return skip(dir, name, entry)
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		return add(packages, name, filepath.ToSlash(rel))
	})
	return packages, err
}

func skip(dir, name string, entry fs.DirEntry) error {
	if name == dir {
		return nil
	}
	_, err := os.Stat(filepath.Join(name, "go.mod"))
	if err == nil || strings.HasPrefix(entry.Name(), ".") || slices.Contains([]string{"testdata", "node_modules"}, entry.Name()) {
		return filepath.SkipDir
	}
	return nil
}

// add reads one file into its package.
func add(packages map[string]*pkg, name, rel string) error {
	source, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		return err
	}
	f := file{path: rel, test: strings.HasSuffix(rel, "_test.go"), lines: bytes.Count(source, []byte("\n"))}
	f.imports = ours(parsed)
	p := packages[path.Dir(rel)]
	if p == nil {
		p = new(pkg)
		packages[path.Dir(rel)] = p
	}
	p.files = append(p.files, f)
	p.commented = p.commented || parsed.Doc != nil && !f.test
	return nil
}

func ours(parsed *ast.File) []string {
	var names []string
	for _, spec := range parsed.Imports {
		name, _ := strconv.Unquote(spec.Path.Value) // it was parsed
		if name, ok := strings.CutPrefix(name, module+"/"); ok {
			names = append(names, name)
		}
	}
	return names
}

// check returns what breaks the rules, each with its place.
func check(packages map[string]*pkg) []string {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		p := packages[name]
		allowed, ok := allowedFor(name)
		if !ok {
			fault("%s: is not in the import graph; say there what it may import", name)
		}
		if slices.Contains(vague, path.Base(name)) {
			fault("%s: the name says nothing about what is in it", name)
		}
		if onlyTests := !slices.ContainsFunc(p.files, func(f file) bool { return !f.test }); !p.commented && !onlyTests {
			fault("%s: has no package comment", name)
		}
		for _, f := range p.files {
			if f.lines > maxLines && !f.test && long[f.path] == "" {
				fault("%s: has %d lines, more than %d; split it, or list it with a reason", f.path, f.lines, maxLines)
			}
			for _, imported := range f.imports {
				if why := refusal(name, f.test, imported, allowed); ok && why != "" {
					fault("%s: imports %s%s", f.path, imported, why)
				}
			}
		}
	}
	return faults
}

// allowedFor returns what a package may import. An entry that ends in a slash is
// for all packages below it.
func allowedFor(name string) (allowed []string, ok bool) {
	if allowed, ok = imports[name]; ok {
		return allowed, true
	}
	for prefix, allowed := range imports {
		if strings.HasSuffix(prefix, "/") && strings.HasPrefix(name, prefix) {
			return allowed, true
		}
	}
	return nil, false
}

// refusal says why a file of the named package may not import another; empty if
// it may.
func refusal(name string, test bool, imported string, allowed []string) string {
	if test && (imported == name || slices.Contains(forTests, imported) || slices.Contains(freeTests, name)) {
		return ""
	}
	if slices.Contains(forTests, imported) && !slices.Contains(forTests, name) {
		return ", which is for tests"
	}
	if slices.Contains(allowed, anything) || slices.Contains(allowed, imported) {
		return ""
	}
	if len(allowed) == 0 {
		return fmt.Sprintf("; %s may import nothing of ours", name)
	}
	return fmt.Sprintf("; %s may import %s", name, strings.Join(allowed, ", "))
}

// write lays out a package below dir.
func write(t *testing.T, dir, name string, files map[string]string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
		t.Fatal(err)
	}
	for base, source := range files {
		if err := os.WriteFile(filepath.Join(dir, name, base), []byte(source), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
