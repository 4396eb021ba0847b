package config

import (
	"io/fs"
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

// minimal is a pipeline in which nothing is wrong.
func minimal(name string) string {
	return "  - {name: " + name + ", input: {topics: [" + name + ".in], start: earliest}, transform: {pass: {}}, output: {topic: " + name + ".out}}\n"
}

// loadText loads text as the file f.yaml.
func loadText(text string) (Config, error) {
	l := newLoader(world)
	l.files = []string{"f.yaml"}
	l.document(place{file: "f.yaml"}, []byte(text))
	return l.finish()
}

func TestEverySettingArrives(t *testing.T) {
	cfg, err := load([]string{"testdata/good/full.yaml"}, world)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Kafka: Kafka{
			Brokers:  []string{"kafka-1.example.com:9093", "[2001:db8::1]:9093", "kafka-3:65535"},
			ClientID: "seriatim orders",
			TLS:      TLS{Enabled: true, CAFile: "/etc/kafka/ca.pem", CertFile: "/etc/kafka/cert.pem", KeyFile: "/etc/kafka/key.pem", ServerName: "kafka.example.com"},
			SASL:     SASL{Mechanism: "scram-sha-512", Username: "orders", Password: NewSecret("canary ${WORKERS}")},
		},
		Admin:    Admin{Listen: "[::1]:18080", ProbesListen: ":8081"},
		Log:      Log{Level: "debug", Format: "json"},
		Instance: "orders-1",
		Pipelines: []Pipeline{{
			Name: "orders",
			Input: Input{
				Topics: []string{"orders.in", "returns.in"}, Group: "orders group", GroupProtocol: "classic",
				SessionTimeout: 30 * time.Second, RebalanceTimeout: 2 * time.Minute, StaticMembership: true,
				Start:      Start{Time: time.Date(2026, 1, 31, 0, 0, 0, 0, time.FixedZone("", 3600))},
				OnDataLoss: "stop", Isolation: "read_uncommitted",
			},
			Order: "partition", Workers: 32, WorkersPerPartition: 8,
			Window: Window{Records: 1024, Bytes: 64 << 20},
			Transform: Transform{HTTP: &HTTP{
				URLs: []string{"http://127.0.0.1:9000/transform?x=1", "https://127.0.0.1:9001/transform"}, Timeout: 2 * time.Second, MaxInFlight: 16, Rate: 0.5,
				Headers:   map[string]Secret{"X-Tenant": NewSecret("canary ${WORKERS}"), "Content-Type": NewSecret("application/json")},
				BasicAuth: &BasicAuth{Username: "ann", PasswordFile: "/run/secrets/worker"},
				TLS:       WorkerTLS{CAFile: "/etc/worker/ca.pem", CertFile: "/etc/worker/cert.pem", KeyFile: "/etc/worker/key.pem", ServerName: "worker"},

				ProxyFromEnvironment: true, AllowLinkLocal: true,
			}},
			Retry:       Retry{Attempts: 3, Initial: 100 * time.Millisecond, Max: time.Minute, MaxElapsed: time.Hour, Budget: 0.5},
			Hedge:       Hedge{After: Delay{Quantile: 0.95}, Budget: 0.025},
			MaxAge:      90 * time.Minute,
			OnExhausted: "dead_letter", DeadLetter: &DeadLetter{Topic: "orders.dead", Breaker: &Breaker{Ratio: 0.1, Over: time.Minute}},
			Output:   Output{Topic: "{topic}.out", Partition: "key"},
			Delivery: "exactly_once", AllowOldBrokers: true,
			Commit: Commit{Interval: time.Second, Records: 500, Transaction: 250 * time.Millisecond}, DrainTimeout: 30 * time.Second,
			State:     &State{Topic: "orders.state", ReplyLog: true},
			Callbacks: Callbacks{Listen: ":9100", URL: "https://seriatim.example/orders/"},
		}, {
			Name: "tunnel",
			Input: Input{
				Topics: []string{"tunnel.in"}, Group: "seriatim.tunnel", GroupProtocol: "classic",
				SessionTimeout: 45 * time.Second, RebalanceTimeout: time.Minute, Start: Start{End: true}, OnDataLoss: "stop", Isolation: "read_committed",
			},
			Order: "partition", Workers: 64,
			Window:      Window{Records: 16384, Bytes: 128 << 20},
			Transform:   Transform{HTTP: &HTTP{URLs: []string{"http://127.0.0.1:9000"}, Timeout: 10 * time.Second, MaxInFlight: Adaptive, HTTP2: true, BearerTokenFile: "token"}},
			Batch:       &Batch{Records: 500, Wait: 250 * time.Millisecond, Bytes: 1 << 20},
			Retry:       Retry{Attempts: 5, Initial: 200 * time.Millisecond, Max: 10 * time.Second, Budget: 0.2},
			Hedge:       Hedge{HeadOnly: true, Budget: 0.05},
			OnExhausted: "hold",
			Output:      Output{Topic: "tunnel.out", Partition: "source", Provenance: true},
			Delivery:    "at_least_once",
			Commit:      Commit{Interval: 5 * time.Second, Records: 10000, Transaction: 100 * time.Millisecond}, DrainTimeout: 10 * time.Second,
			Callbacks: Callbacks{Listen: None},
		}, {
			Name: "noise",
			Input: Input{
				TopicsRegex: regexp.MustCompile(`^(?:noise\.(eu|us)\.(.+))$`), Group: "seriatim.noise", GroupProtocol: "classic",
				SessionTimeout: 45 * time.Second, RebalanceTimeout: time.Minute, Start: Start{End: true}, OnDataLoss: "stop", Isolation: "read_committed",
			},
			Order: "partition", Workers: 64,
			Window:      Window{Records: 16384, Bytes: 128 << 20},
			Transform:   Transform{Simulate: &Simulate{Latency: 20 * time.Millisecond, Sigma: 1, FailureRate: 0.01, Seed: 7}},
			Retry:       Retry{Attempts: 5, Initial: 200 * time.Millisecond, Max: 10 * time.Second, Budget: 0.2},
			Hedge:       Hedge{HeadOnly: true, Budget: 0.05},
			OnExhausted: "hold",
			Output:      Output{Topic: "quiet.{2}.{1}", Partition: "source", Provenance: true},
			Delivery:    "at_least_once",
			Commit:      Commit{Interval: 5 * time.Second, Records: 10000, Transaction: 100 * time.Millisecond}, DrainTimeout: 10 * time.Second,
			Callbacks: Callbacks{Listen: None},
		}},
	}
	items := want.Pipelines[1]
	items.Name, items.Batch = "split", nil
	items.Input.Topics, items.Input.TopicsRegex, items.Input.Group, items.Input.Start = []string{"baskets"}, nil, "seriatim.split", Start{}
	items.Transform = Transform{JQ: "# one output for each item\n.items[] | {id, customer: $key}\n"}
	items.Output.Topic = "items"
	want.Pipelines = append(want.Pipelines, items)
	// A zone is a pointer: compare the instants, then all the rest.
	got := cfg.Pipelines[0].Input.Start.Time
	if start := &want.Pipelines[0].Input.Start; got.Equal(start.Time) {
		start.Time = got
	}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got\n%s\nwant\n%s", cfg.YAML(), want.YAML())
	}
}

func TestTenMistakes(t *testing.T) {
	const file = "testdata/ten-mistakes.yaml"
	_, err := load([]string{file}, world)
	want := []string{
		`:3:21: kafka.sasl.mechanism: plain would send the password to kafka-1:9092 in clear text; set kafka.tls.enabled to true, or use scram-sha-512`,
		`:4:14: log.level: "inof" is unknown; possible are debug, info, warn, error (did you mean "info"?)`,
		`:7:70: pipelines[0].input.rebalance_timeout: 15s is less than twice drain_timeout (10s)`,
		`:8:14: pipelines[0].workers: "010" is not a whole number in plain decimal: YAML readers disagree about a leading zero (010 is 8 to many of them)`,
		`:9:5: pipelines[0].worker_per_partition: unknown key (did you mean "workers_per_partition"?)`,
		`:11:54: pipelines[0].transform.http.timeout: "10" is not a duration: write a number with a unit, like 250ms, 10s, 5m, 1h or 7d`,
		`:12:21: pipelines[0].output.topic: orders.in is also an input topic; its records would go round and round`,
		`:13:11: pipelines[1].name: orders is given twice, first at testdata/ten-mistakes.yaml:6; names of pipelines are unique`,
		`:14:12: pipelines[1].input.start: is required: where a group without any commit for a topic begins: earliest, latest or an RFC 3339 time`,
		`:17:5: pipelines[1].output: is given twice, first at line 16`,
	}
	for i := range want {
		want[i] = file + want[i]
	}
	if err == nil || err.Error() != strings.Join(want, "\n") {
		t.Errorf("got\n%v\nwant\n%s", err, strings.Join(want, "\n"))
	}
}

func TestSeveralFiles(t *testing.T) {
	pipeline := func(names ...string) string {
		text := "pipelines:\n"
		for _, name := range names {
			text += minimal(name)
		}
		return text
	}
	tests := map[string]struct {
		files map[string]string
		paths []string // default: the whole folder
		names string   // of the pipelines
		want  []string // problems
	}{
		"pipelines add up, in the order of the paths": {
			files: map[string]string{"z.yaml": pipeline("a", "b"), "a.yaml": "log: {level: debug}\n" + pipeline("c")},
			paths: []string{"z.yaml", "a.yaml"},
			names: "a b c",
		},
		"a folder": {
			files: map[string]string{
				"b.yml": pipeline("b"), "a.yaml": pipeline("a"), "c.yaml": "kafka: {brokers: [kafka-1:9092]}\n",
				"README.md": "- x", ".hidden.yaml": "- x", "d.yaml.bak": "- x",
			},
			names: "a b",
		},
		"a section stands in one file": {
			files: map[string]string{"a.yaml": "log: {}\n" + pipeline("a"), "b.yaml": "instance: x\nlog: {}\n"},
			want:  []string{"b.yaml:2:1: log: is given twice, first at a.yaml:1"},
		},
		"names are unique over files": {
			files: map[string]string{"a.yaml": pipeline("a", "b"), "b.yaml": pipeline("b")},
			want:  []string{"b.yaml:2:12: pipelines[0].name: b is given twice, first at a.yaml:3; names of pipelines are unique"},
		},
		"a circle over files": {
			files: map[string]string{
				"a.yaml": "pipelines: [{name: a, input: {topics: [x], start: earliest}, transform: {pass: {}}, output: {topic: y}}]\n",
				"b.yaml": "pipelines: [{name: b, input: {topics: [y], start: earliest}, transform: {pass: {}}, output: {topic: x}}]\n",
			},
			want: []string{"a.yaml:1:101: pipelines[0].output.topic: records could go round and round: the pipelines a → b → a read each other's outputs"},
		},
		"all problems of all files, in their order": {
			files: map[string]string{"b.yaml": "log: {level: x}\nlgo: {}\n", "a.yaml": "workers: 1\n" + pipeline("A")},
			want: []string{
				`a.yaml:1:1: workers: unknown key (did you mean "pipelines[].workers"?)`,
				`a.yaml:3:12: pipelines[0].name: "A" is wrong: must be 1 to 100 of a-z 0-9 -`,
				`b.yaml:1:14: log.level: "x" is unknown; possible are debug, info, warn, error`,
				`b.yaml:2:1: lgo: unknown key (did you mean "log"?)`,
			},
		},
		"a file that cannot be parsed may have had the pipelines": {
			files: map[string]string{"a.yaml": "pipelines: [\n", "b.yaml": "log: {level: x}\n"},
			want: []string{
				"a.yaml:2:1: YAML syntax: did not find expected node content while parsing a flow node",
				`b.yaml:1:14: log.level: "x" is unknown; possible are debug, info, warn, error`,
			},
		},
		"no such file": {
			files: map[string]string{"a.yaml": "log: {level: x}\n"},
			paths: []string{"a.yaml", "none.yaml"},
			want:  []string{"none.yaml: no such file or directory", "a.yaml:1:14: log.level: \"x\" is unknown; possible are debug, info, warn, error"},
		},
		"nothing in the folder": {
			files: map[string]string{"a.json": "{}"},
			want:  []string{": no *.yaml or *.yml file in this directory"},
		},
		"one file twice": {
			files: map[string]string{"a.yaml": pipeline("a")},
			paths: []string{"a.yaml", "", "./a.yaml"},
			want:  []string{"a.yaml: is given twice", "a.yaml: is given twice"},
		},
		"a file that is too large": {
			files: map[string]string{"a.yaml": strings.Repeat("#", maxFile+1)},
			want:  []string{"a.yaml: larger than 4MiB"},
		},
		"nothing to run": {
			files: map[string]string{"a.yaml": "log: {}\n", "b.yaml": "kafka: {}\n"},
			want:  []string{"a.yaml:1:1: pipelines: is required: there is nothing to run"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, file := range slices.Sorted(maps.Keys(test.files)) {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(test.files[file]), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			paths := []string{dir}
			if test.paths != nil {
				paths = nil
				for _, path := range test.paths {
					paths = append(paths, dir+"/"+path)
				}
			}
			cfg, err := load(paths, world)
			var names []string
			for _, p := range cfg.Pipelines {
				names = append(names, p.Name)
			}
			if got := strings.Join(names, " "); got != test.names {
				t.Errorf("pipelines %q, want %q", got, test.names)
			}
			var got []string
			if err != nil {
				text := strings.ReplaceAll(err.Error(), dir+"/", "")
				got = strings.Split(strings.ReplaceAll(text, dir, ""), "\n")
			}
			same := slices.EqualFunc(got, test.want, strings.HasPrefix)
			if !same {
				t.Errorf("problems\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

// TestKubernetesFolder: a mounted ConfigMap shows its files as links into a
// hidden folder.
func TestKubernetesFolder(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "..data")
	if err := os.Mkdir(data, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "a.yaml"), []byte("pipelines:\n"+minimal("a")), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..data/a.yaml", filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	cfg, err := Load([]string{dir}, os.LookupEnv)
	if err != nil || len(cfg.Pipelines) != 1 {
		t.Errorf("got %d pipelines, %v", len(cfg.Pipelines), err)
	}
}

func TestInstanceComesFromTheHost(t *testing.T) {
	lookup := func(hostname string) source {
		return source{read: readFile, lookup: func(name string) (string, bool) { return hostname, name == "HOSTNAME" }}
	}
	const file = "testdata/good/minimal.yaml"
	for hostname, want := range map[string]string{"orders-1": "orders-1", "": must(os.Hostname())} {
		cfg, err := load([]string{file}, lookup(hostname))
		if err != nil || cfg.Instance != want {
			t.Errorf("HOSTNAME=%q: instance %q, %v, want %q", hostname, cfg.Instance, err, want)
		}
	}
	_, err := load([]string{file}, lookup("Bob's machine"))
	if want := file + `:1:1: instance: is not given, and the host name "Bob's machine" is wrong: must be ` + nameDoc; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestWindowFollowsTheWorkers(t *testing.T) {
	for more, want := range map[string]int{
		"": 16384, "    workers: 256\n": 16384, "    workers: 257\n": 64 * 257, "    workers: 100000\n": 6_400_000,
		"    workers: 1000\n    window: {bytes: 1GiB}\n":  64_000,
		"    workers: 1000\n    window: {records: 100}\n": 100,
	} {
		cfg, err := loadText(string(must(os.ReadFile("testdata/good/minimal.yaml"))) + more)
		if err != nil {
			t.Fatalf("%s: %v", more, err)
		}
		if got := cfg.Pipelines[0].Window.Records; got != want {
			t.Errorf("%s: a window of %d records, want %d", more, got, want)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestSyntaxErrors(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"a tab":                   {"log:\n\tlevel: info\n", `f.yaml:2:1: YAML syntax: a tab in the indentation; use spaces`},
		"an open bracket":         {"kafka:\n  brokers: [a:1\n", `f.yaml:3:1: YAML syntax: did not find expected ',' or ']' while parsing a flow sequence`},
		"no end of the last line": {"log: {", `f.yaml:1:7: YAML syntax: did not find expected node content while parsing a flow node`},
		"a variable in a list":    {"kafka:\n  brokers: [${BROKER}]\n", `f.yaml:2:14: YAML syntax: inside [ ] and { }, put ${…} in quotes`},
		"braces at the start":     {"topic: {topic}.out\n", `f.yaml:1:15: YAML syntax: put what begins with { in quotes, as in topic: "{topic}.out"`},
		"a password with a *":     {"password: *canary\n", `f.yaml:1:11: YAML syntax: no anchor has the name of this alias; put text that begins with * in quotes`},
		"a password with a @":     {"password: @canary\n", `f.yaml:1:11: YAML syntax: found character that cannot start any token while scanning for the next token`},
		"not UTF-8":               {"log:\n  é: \"\xff\"\n", `f.yaml:2:7: is not UTF-8 text`},
		"UTF-16":                  {"\xff\xfel\x00o\x00g\x00", `f.yaml:1:1: is not UTF-8 text`},
		"a control character":     {"log: \"\x1b[31m\"\n", `f.yaml:1:7: has the control character U+001B`},
		"nested beyond reason":    {strings.Repeat("[", 20000), `f.yaml:1:10001: YAML syntax: exceeded max depth of 10000 while increasing flow level`},
		"colons":                  {"log: level: info\n", `f.yaml:1:11: YAML syntax: mapping values are not allowed in this context`},
		"a stray word":            {"log:\n  level: info\n oops\n", `f.yaml:3:2: YAML syntax: did not find expected key while parsing a block mapping`},
		"Windows ends of lines":   {"log: {level: x}\r\npipelines:\r\n" + minimal("a"), `f.yaml:1:14: log.level: "x" is unknown; possible are debug, info, warn, error`},
		"a byte order mark":       {"\ufefflog: {level: x}\npipelines:\n" + minimal("a"), `f.yaml:1:14: log.level: "x" is unknown; possible are debug, info, warn, error`},
	}
	for name, test := range tests {
		if _, err := loadText(test.text); err == nil || err.Error() != test.want {
			t.Errorf("%s: got\n%v\nwant\n%s", name, err, test.want)
		}
	}
}

// TestManyAliases: a few lines may not grow to millions of values.
func TestManyAliases(t *testing.T) {
	text := "log: {level: &l info}\nkafka:\n  brokers: [" + strings.Repeat("*l,", 5000) + "]\npipelines:\n" + minimal("a")
	_, err := loadText(text)
	if err == nil || !strings.Contains(err.Error(), "kafka.brokers[1000]: too many aliases; write the values out") {
		t.Errorf("got %.300v", err)
	}
}

func TestUnreadableFile(t *testing.T) {
	src := world
	src.read = func(path string) ([]byte, error) {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
	}
	_, err := load([]string{"a.yaml"}, src)
	if want := "a.yaml: permission denied"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestIgnoredSectionsAreAsIfNotThere(t *testing.T) {
	l := newLoader(world)
	l.ignored = []string{"kafka"}
	l.files = []string{"f.yaml"}
	l.document(place{file: "f.yaml"}, []byte("kafka: {brokers: ['${NOT_SET:?needed}'], wrong: 1}\nlog: {level: warn}\nkafka: twice\npipelines:\n"+minimal("orders")))
	cfg, err := l.finish()
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Kafka.Brokers; !slices.Equal(got, []string{"127.0.0.1:9092"}) || cfg.Log.Level != "warn" || len(cfg.Pipelines) != 1 {
		t.Errorf("got brokers %q, log level %q and %d pipelines, want the default, warn and 1", got, cfg.Log.Level, len(cfg.Pipelines))
	}
}
