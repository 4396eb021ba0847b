package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const goodFile = `kafka: {sasl: {mechanism: plain, username: me, password: "${PASSWORD:-canary}"}}
pipelines:
  - name: orders
    input: {topics: [orders.in], start: earliest}
    transform: {pass: {}}
    output: {topic: orders.out}
`

const badFile = `log: {lvel: info}
pipelines:
  - name: orders
    input: {topics: [orders.in], start: earliest}
    transform: {pass: {}}
    output: {topic: orders.in}
    workers: 8
    workers: 16
`

// files writes the good and the bad file and returns their folder.
func files(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"good.yaml": goodFile, "bad.yaml": badFile} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestCommands(t *testing.T) {
	dir := files(t)
	problems := `^` + strings.Join([]string{
		`DIR/bad\.yaml:1:7: log\.lvel: unknown key \(did you mean "level"\?\)`,
		`DIR/bad\.yaml:6:21: pipelines\[0\]\.output\.topic: orders\.in is also an input topic.*`,
		`DIR/bad\.yaml:8:5: pipelines\[0\]\.workers: is given twice, first at line 7`,
	}, "\n") + "\n$"
	const usage = "\nRun \"seriatim --help\" for usage\\.\n$"
	tests := []struct {
		args           string
		code           int
		stdout, stderr string // expressions; empty wants nothing
	}{
		{args: "validate -c DIR/good.yaml", stdout: `^ok: 1 pipeline\n$`},
		{args: "validate --config DIR/good.yaml", stdout: `^ok: 1 pipeline\n$`},
		{args: "validate -c DIR/bad.yaml", code: exitConfig, stderr: problems},
		{args: "validate -c DIR/none.yaml", code: exitConfig, stderr: `^DIR/none\.yaml: no such file or directory\n$`},
		{args: "validate -c DIR", code: exitConfig, stderr: `DIR/good\.yaml:3:11: pipelines\[0\]\.name: orders is given twice, first at DIR/bad.yaml:3`},
		{args: "validate", code: exitUsage, stderr: `^seriatim: required flag\(s\) "config" not set` + usage},
		{args: "validate -c", code: exitUsage, stderr: `^seriatim: flag needs an argument` + `.*` + usage},
		{args: "validate DIR/good.yaml", code: exitUsage, stderr: `^seriatim: "DIR/good\.yaml": a configuration file is given with -c: seriatim validate -c DIR/good\.yaml` + usage},
		{args: "validate -c DIR/good.yaml --online", code: exitUsage, stderr: `^seriatim: unknown flag: --online` + usage},

		{args: "config print -c DIR/good.yaml", stdout: `(?s)^kafka:\n  brokers:\n.*\n    password: <redacted>\n.*\n    workers: 64\n.*\n    drain_timeout: 10s\n.*\n$`},
		{args: "config print -c DIR/bad.yaml", code: exitConfig, stderr: problems},
		{args: "config print", code: exitUsage, stderr: `^seriatim: required flag\(s\) "config" not set` + usage},
		{args: "config print DIR/good.yaml", code: exitUsage, stderr: `seriatim config print -c DIR/good\.yaml` + usage},
		{args: "config", stdout: `(?s)^Look at the configuration\n.*print`},
		{args: "config show", code: exitUsage, stderr: `^seriatim: unknown command "show"` + `.*` + usage},

		{args: "run -c DIR/bad.yaml", code: exitConfig, stderr: problems},
		{args: "run -c DIR/good.yaml DIR/bad.yaml", code: exitUsage, stderr: `seriatim run -c DIR/bad\.yaml` + usage},
		{args: "run", code: exitUsage, stderr: `^seriatim: required flag\(s\) "config" not set` + usage},

		{args: "held list --admin 127.0.0.1:8081", code: exitUsage, stderr: `^seriatim: --admin: "127\.0\.0\.1:8081" is no URL: write http://.*\n$`},
		{args: "breaker close orders --reason well --admin localhost:8081", code: exitUsage, stderr: `^seriatim: --admin: "localhost:8081" is no URL: write http://.*\n$`},

		{args: "schema", stdout: `(?s)^\{\n  "\$schema": "https://json-schema\.org/draft/2020-12/schema",\n.*\}\n$`},
		{args: "schema x", code: exitUsage, stderr: `^seriatim: unknown command` + `.*` + usage},
		{args: "version", stdout: `^seriatim \S+( \([0-9a-f]{12}(, modified)?\))? go1\S+ \w+/\w+\n$`},
		{args: "version x", code: exitUsage, stderr: `^seriatim: unknown command` + `.*` + usage},

		{args: "", stdout: `(?s)^Seriatim reads Kafka topics.*Available Commands:`},
		{args: "--help", stdout: `(?s)^Seriatim reads Kafka topics.*Available Commands:`},
		{args: "validat", code: exitUsage, stderr: `(?s)^seriatim: unknown command "validat".*Did you mean this\?\s+validate\s.*` + usage},
	}
	for _, test := range tests {
		t.Run(test.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := execute(t.Context(), strings.Fields(strings.ReplaceAll(test.args, "DIR", dir)), &stdout, &stderr)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			for _, out := range []struct{ name, got, want string }{{"stdout", stdout.String(), test.stdout}, {"stderr", stderr.String(), test.stderr}} {
				want := strings.ReplaceAll(out.want, "DIR", regexp.QuoteMeta(dir))
				if want == "" && out.got != "" || !regexp.MustCompile(want).MatchString(out.got) {
					t.Errorf("%s:\n%s\nwant %s", out.name, out.got, want)
				}
				if strings.Contains(out.got, "canary") {
					t.Errorf("%s shows the password:\n%s", out.name, out.got)
				}
			}
		})
	}
}

// TestPrintedConfigurationLoads: what is printed is a configuration.
func TestPrintedConfigurationLoads(t *testing.T) {
	dir := files(t)
	var printed, again, stderr bytes.Buffer
	if code := execute(t.Context(), []string{"config", "print", "-c", dir + "/good.yaml"}, &printed, &stderr); code != 0 {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	file := filepath.Join(dir, "printed.yaml")
	if err := os.WriteFile(file, printed.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	if code := execute(t.Context(), []string{"config", "print", "-c", file}, &again, &stderr); code != 0 {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	if printed.String() != again.String() {
		t.Errorf("printed\n%s\nand, loaded from that,\n%s", &printed, &again)
	}
}

func TestSchemaIsJSON(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := execute(t.Context(), []string{"schema"}, &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	var schema struct {
		Properties map[string]struct{ Description string }
	}
	if err := json.Unmarshal(stdout.Bytes(), &schema); err != nil {
		t.Fatal(err)
	}
	if schema.Properties["kafka"].Description == "" {
		t.Errorf("kafka is not described in\n%.300s", &stdout)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestCommandsFailWhenNobodyReads(t *testing.T) {
	dir := files(t)
	for _, args := range []string{"config print -c DIR/good.yaml", "schema", "version", "validate -c DIR/good.yaml"} {
		var stderr bytes.Buffer
		code := execute(t.Context(), strings.Fields(strings.ReplaceAll(args, "DIR", dir)), brokenWriter{}, &stderr)
		if code != exitFailed || stderr.String() != "seriatim: no space left\n" {
			t.Errorf("%s: exit code %d, %q", args, code, &stderr)
		}
	}
}
