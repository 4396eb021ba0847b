package archtest

import (
	"slices"
	"strings"
	"testing"
)

// module is our module path, and root is where it lies.
const (
	module = "seriatim"
	root   = "../.."
)

// anything allows every import.
const anything = "*"

// imports says which of our packages a package may import. Imports point one
// way, from what changes often to what never should. What a package may import
// its tests may too, and the packages that are for tests.
var imports = map[string][]string{
	"resequence": {"internal/seeded"},
	"offsets":    {"internal/seeded"},
	"config":     {"internal/contract", "internal/jq"},
	"processor":  {"resequence", "offsets", "internal/journal", "internal/seeded"},
	"transform":  {"processor", "internal/certs", "internal/contract", "internal/jq", "internal/seeded"},
	"kafka":      {"processor", "internal/certs"},
	"admin":      {"processor"},

	"cmd/seriatim":  {anything},
	"internal/demo": {"processor", "transform", "kafka"},
	"examples/":     {"processor", "transform", "kafka", "admin"},

	"internal/archtest":  {},
	"internal/explore":   {"resequence", "offsets"},
	"internal/certs":     {},
	"internal/contract":  {},
	"internal/journal":   {"internal/seeded"},
	"internal/jq":        {},
	"internal/seeded":    {},
	"internal/testcerts": {},
	"internal/testkafka": {},
	"internal/history":   {},
	"internal/conductor": {"internal/history", "internal/testkafka"},
	"integration":        {},
	"integration/chaos":  {},
}

// forTests are the packages that only tests may import.
var forTests = []string{"internal/testcerts", "internal/testkafka", "internal/history", "internal/conductor"}

// freeTests are the packages whose tests may import everything.
var freeTests = []string{"integration", "integration/chaos"}

// vague are names that say nothing about what is in a package, so that anything
// ends up there.
var vague = []string{"util", "utils", "common", "types", "helper", "helpers", "manager", "misc", "pkg"}

// maxLines is how long a file may be; longer ones are listed here with a reason.
// Tests are not counted.
const maxLines = 500

var long = map[string]string{}

func TestHouseRules(t *testing.T) {
	packages, err := load(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, count := range map[string]int{"resequence": 1, "processor": 5} {
		if p := packages[name]; p == nil || len(p.files) < count {
			t.Errorf("package %s was not found where it should be: the rules check nothing", name)
		}
	}
	for _, fault := range check(packages) {
		t.Error(fault)
	}
}

func TestRulesCatch(t *testing.T) {
	good := map[string]string{"doc.go": "// Package resequence is fine.\npackage resequence\n"}
	tests := map[string]struct {
		dir   string
		files map[string]string
		want  string // part of the only fault; empty if there is none
	}{
		"nothing wrong": {"resequence", good, ""},
		"an import against the grain": {
			"resequence",
			map[string]string{"a.go": "// Package resequence is fine.\npackage resequence\n\nimport _ \"seriatim/processor\"\n"},
			"resequence/a.go: imports processor; resequence may import internal/seeded",
		},
		"settings read outside cmd": {
			"processor",
			map[string]string{"a.go": "// Package processor is fine.\npackage processor\n\nimport _ \"seriatim/config\"\n"},
			"processor/a.go: imports config; processor may import resequence, offsets, internal/journal, internal/seeded",
		},
		"a file that is built only with a tag": {
			"config",
			map[string]string{"doc.go": "// Package config is fine.\npackage config\n", "a.go": "//go:build synctests\n\npackage config\n\nimport _ \"seriatim/offsets\"\n"},
			"config/a.go: imports offsets",
		},
		"a program that needs what is for tests": {
			"cmd/seriatim",
			map[string]string{"a.go": "// Seriatim is fine.\npackage main\n\nimport _ \"seriatim/internal/testkafka\"\n"},
			"cmd/seriatim/a.go: imports internal/testkafka, which is for tests",
		},
		"tests may use what is for tests": {
			"kafka",
			map[string]string{"doc.go": "// Package kafka is fine.\npackage kafka\n", "a_test.go": "package kafka_test\n\nimport (\n_ \"seriatim/internal/testkafka\"\n_ \"seriatim/kafka\"\n)\n"},
			"",
		},
		"tests keep the graph": {
			"kafka",
			map[string]string{"doc.go": "// Package kafka is fine.\npackage kafka\n", "a_test.go": "package kafka\n\nimport _ \"seriatim/config\"\n"},
			"kafka/a_test.go: imports config",
		},
		"integration tests may use everything": {
			"integration",
			map[string]string{"a_test.go": "// Package integration is fine.\npackage integration\n\nimport _ \"seriatim/config\"\n"},
			"",
		},
		"an example of its own": {
			"examples/upper",
			map[string]string{"a.go": "// Upper is fine.\npackage main\n\nimport _ \"seriatim/processor\"\n"},
			"",
		},
		"a package without a place": {
			"metrics",
			map[string]string{"a.go": "// Package metrics is fine.\npackage metrics\n"},
			"metrics: is not in the import graph",
		},
		"a vague name": {
			"examples/util",
			map[string]string{"a.go": "// Package util is not fine.\npackage util\n"},
			"examples/util: the name says nothing",
		},
		"no package comment": {
			"offsets",
			map[string]string{"a.go": "package offsets\n", "b_test.go": "// Package offsets is not commented here.\npackage offsets\n"},
			"offsets: has no package comment",
		},
		"a long file": {
			"offsets",
			map[string]string{"a.go": "// Package offsets is fine.\npackage offsets\n" + strings.Repeat("//\n", maxLines), "a_test.go": "package offsets\n" + strings.Repeat("//\n", maxLines)},
			"offsets/a.go: has 502 lines",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, test.dir, test.files)
			packages, err := load(dir)
			if err != nil {
				t.Fatal(err)
			}
			faults := check(packages)
			if test.want == "" && len(faults) > 0 {
				t.Errorf("got %q, want none", faults)
			}
			if test.want != "" && (len(faults) != 1 || !strings.Contains(faults[0], test.want)) {
				t.Errorf("got %q, want one fault with %q", faults, test.want)
			}
		})
	}
}

func TestGraphHasNoCycle(t *testing.T) {
	var visit func(name string, path []string)
	visit = func(name string, path []string) {
		if slices.Contains(path, name) {
			t.Fatalf("a cycle: %s", strings.Join(append(path, name), " → "))
		}
		for _, next := range imports[name] {
			visit(next, append(slices.Clone(path), name))
		}
	}
	for name := range imports {
		visit(name, nil)
	}
}
