package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	violation "github.com/santhosh-tekuri/jsonschema/v6/kind"
	"go.yaml.in/yaml/v4"
)

var update = flag.Bool("update", false, "write what is compared with files into these files")

// world is what surrounds the files under testdata.
var world = source{
	lookup: func(name string) (string, bool) {
		value, ok := map[string]string{
			"HOSTNAME": "host-1",
			"BROKER":   "kafka-1:9092",
			"WORKERS":  "16",
			"LATENCY":  "5ms",
			"EMPTY":    "",
		}[name]
		return value, ok
	},
	read: func(path string) ([]byte, error) {
		switch path {
		case "/run/secrets/password":
			return []byte("canary ${WORKERS}\n"), nil
		case "/run/secrets/two-lines":
			return []byte("canary\ncanary\n"), nil
		}
		return readFile(path)
	},
}

// corpus returns the files in a folder under testdata.
func corpus(t *testing.T, folder string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", folder, "*.yaml"))
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files in testdata/%s, %v", len(files), folder, err)
	}
	return files
}

// problemsOf loads one file and returns what is wrong with it.
func problemsOf(t *testing.T, file string) Problems {
	t.Helper()
	_, err := load([]string{file}, world)
	var problems Problems
	if err != nil && !errors.As(err, &problems) {
		t.Fatalf("%s: error of type %T, want Problems", file, err)
	}
	return problems
}

func TestGoodFiles(t *testing.T) {
	for _, file := range corpus(t, "good") {
		cfg, err := load([]string{file}, world)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if faults := schemaFaults(t, file); len(faults) > 0 {
			t.Errorf("%s: the schema refuses what the loader takes: %q", file, slices.Sorted(maps.Keys(faults)))
		}

		// What is printed loads to the same again.
		printed := cfg.YAML()
		again := newLoader(world)
		again.files = []string{"printed"}
		again.document(place{file: "printed"}, printed)
		cfg2, err := again.finish()
		if err != nil {
			t.Errorf("%s: what is printed does not load: %v\n%s", file, err, printed)
			continue
		}
		for where, secrets := range secretsOf(&cfg, &cfg2) {
			if got := secrets[1].Reveal(); secrets[0].Reveal() != "" && got != redacted {
				t.Errorf("%s: printed %s as %q, want %q", file, where, got, redacted)
			}
		}
		tellSecrets(&cfg, &cfg2)
		if !reflect.DeepEqual(cfg, cfg2) {
			t.Errorf("%s: loaded\n%+v\nbut what is printed loads as\n%+v\n%s", file, cfg, cfg2, printed)
		}
	}
}

// secretsOf returns the secrets of a configuration, and what stands in their place
// in another.
func secretsOf(cfg, other *Config) map[string][2]Secret {
	secrets := map[string][2]Secret{"the password": {cfg.Kafka.SASL.Password, other.Kafka.SASL.Password}}
	for i := range min(len(cfg.Pipelines), len(other.Pipelines)) {
		a, b := cfg.Pipelines[i].Transform.HTTP, other.Pipelines[i].Transform.HTTP
		if a == nil || b == nil {
			continue
		}
		for name, value := range a.Headers {
			secrets[fmt.Sprintf("header %s of pipeline %d", name, i)] = [2]Secret{value, b.Headers[name]}
		}
	}
	return secrets
}

// tellSecrets gives another configuration the secrets of cfg where it has any.
func tellSecrets(cfg, other *Config) {
	other.Kafka.SASL.Password = cfg.Kafka.SASL.Password
	for i := range min(len(cfg.Pipelines), len(other.Pipelines)) {
		a, b := cfg.Pipelines[i].Transform.HTTP, other.Pipelines[i].Transform.HTTP
		if a == nil || b == nil {
			continue
		}
		for name, value := range a.Headers {
			if _, ok := b.Headers[name]; ok {
				b.Headers[name] = value
			}
		}
	}
}

// TestBadFiles compares every problem of the files with the golden ones.
func TestBadFiles(t *testing.T) {
	for _, folder := range []string{"bad", "semantic"} {
		t.Run(folder, func(t *testing.T) {
			var got []string
			for _, file := range corpus(t, folder) {
				problems := problemsOf(t, file)
				if len(problems) == 0 {
					t.Errorf("%s: no problem was found", file)
				}
				for _, p := range problems {
					got = append(got, p.String())
				}
			}
			golden := filepath.Join("testdata", folder+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(strings.Join(got, "\n")+"\n"), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			content, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")
			for _, line := range got {
				if !slices.Contains(want, line) {
					t.Errorf("not in %s:\n%s", golden, line)
				}
			}
			for _, line := range want {
				if !slices.Contains(got, line) {
					t.Errorf("in %s, but not found:\n%s", golden, line)
				}
			}
			if !t.Failed() && !slices.Equal(got, want) {
				t.Errorf("the problems are in another order than in %s:\n%s", golden, strings.Join(got, "\n"))
			}
		})
	}
}

// TestSchemaVerdicts holds schema and loader together: of the files in bad they
// find fault with the same settings; with those in semantic the schema finds
// none.
func TestSchemaVerdicts(t *testing.T) {
	for _, file := range corpus(t, "bad") {
		faults := schemaFaults(t, file)
		unknownIn := map[string]bool{} // objects with keys that may stand for what is missing
		loader := map[string]bool{}
		for _, p := range problemsOf(t, file) {
			loader[p.Path] = true
			parent := place{path: p.Path}.parent().path
			if strings.HasPrefix(p.What, "unknown key") || strings.HasPrefix(p.What, "merge key") || strings.HasPrefix(p.What, "is not built") {
				unknownIn[parent] = true
			}
			// Of an item that is listed twice, the schema blames the list.
			blamed := p.Path
			if strings.HasPrefix(p.What, "is listed twice") {
				blamed = parent
			}
			if !faults[blamed] {
				t.Errorf("%s: the schema does not find: %v", file, p)
			}
		}
		for _, path := range slices.Sorted(maps.Keys(faults)) {
			listed := loader[path+"[2]"] || loader[path+"[3]"]
			if parent := (place{path: path}).parent().path; !loader[path] && !unknownIn[parent] && !unknownIn[path] && !listed {
				t.Errorf("%s: the loader does not find what is wrong for the schema with %q", file, path)
			}
		}
	}
	for _, file := range corpus(t, "semantic") {
		if faults := schemaFaults(t, file); len(faults) > 0 {
			t.Errorf("%s: belongs in bad: the schema finds fault with %q", file, slices.Sorted(maps.Keys(faults)))
		}
	}
}

var compiledSchema = sync.OnceValues(func() (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("seriatim.schema.json", doc); err != nil {
		return nil, err
	}
	return c.Compile("seriatim.schema.json")
})

// schemaFaults returns the paths of what the schema finds wrong with a file.
func schemaFaults(t *testing.T, file string) map[string]bool {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	docs, problem := parse(content)
	if problem != nil {
		t.Fatalf("%s: %v", file, problem)
	}
	schema, err := compiledSchema()
	if err != nil {
		t.Fatal(err)
	}
	err = schema.Validate(instance(docs))
	found := map[string]bool{}
	var ve *jsonschema.ValidationError
	if errors.As(err, &ve) {
		collect(ve, found)
	} else if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return found
}

func collect(e *jsonschema.ValidationError, found map[string]bool) {
	var at place
	for _, step := range e.InstanceLocation {
		if i, err := strconv.Atoi(step); err == nil {
			at = at.index(i)
		} else {
			at = at.key(step)
		}
	}
	switch k := e.ErrorKind.(type) {
	case *violation.Schema, *violation.Group, *violation.Reference:
		for _, cause := range e.Causes {
			collect(cause, found)
		}
	case *violation.AdditionalProperties:
		for _, key := range k.Properties {
			found[at.key(key).path] = true
		}
	case *violation.Required:
		for _, key := range k.Missing {
			found[at.key(key).path] = true
		}
	default:
		found[at.path] = true
	}
}

// instance returns the first document as the JSON that an editor sees.
func instance(docs []yaml.Node) any {
	if len(docs) == 0 || len(docs[0].Content) == 0 {
		return nil
	}
	return jsonOf(docs[0].Content[0], 0)
}

func jsonOf(n *yaml.Node, depth int) any {
	if depth > 20 {
		return nil // deeper than any setting; an alias may stand inside itself
	}
	switch n.Kind {
	case yaml.AliasNode:
		return jsonOf(n.Alias, depth+1)
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			m[n.Content[i].Value] = jsonOf(n.Content[i+1], depth+1)
		}
		return m
	case yaml.SequenceNode:
		list := []any{}
		for _, item := range n.Content {
			list = append(list, jsonOf(item, depth+1))
		}
		return list
	}
	var v any
	switch n.ShortTag() {
	case "!!int", "!!float", "!!bool", "!!null":
		if n.Decode(&v) != nil {
			return n.Value
		}
		if _, err := json.Marshal(v); err != nil {
			return n.Value // infinite
		}
		return v
	default:
		return n.Value
	}
}
