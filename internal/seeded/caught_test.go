//go:build seededbugs

package seeded

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var (
	update = flag.Bool("update", false, "write the table of docs/promises.md")
	only   = flag.String("only", "", "the mistakes to make, as a regular expression")
)

// most is how long the test of one mistake may take.
const most = time.Minute

// Every mistake turns its test red, which is green without it.
func TestEveryBugIsCaught(t *testing.T) {
	wanted := regexp.MustCompile(*only)
	binaries := make(map[string]string)
	var table strings.Builder
	for _, b := range bugs {
		if !wanted.MatchString(b.name) {
			continue
		}
		key := b.layer.pkg + " " + b.layer.tags
		if binaries[key] == "" {
			binaries[key] = build(t, b.layer, filepath.Join(t.TempDir(), "test"))
		}
		took := caught(t, b, binaries[key])
		fmt.Fprintf(&table, "%s %.1f |\n", b.row(), took.Seconds())
	}
	if t.Failed() || !*update {
		return
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, _, ok1 := strings.Cut(string(text), tableHead)
	_, after, ok2 := strings.Cut(string(text), tableEnd)
	if !ok1 || !ok2 {
		t.Fatal("docs/promises.md has no place for the table")
	}
	if err := os.WriteFile(page, []byte(before+tableHead+table.String()+tableEnd+after), 0o600); err != nil {
		t.Fatal(err)
	}
}

func build(t *testing.T, l layer, binary string) string {
	t.Helper()
	cmd := exec.Command("go", "test", "-c", "-tags", l.tags, "-o", binary, "./"+l.pkg)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// caught runs the test of a mistake without it and with it, and returns how long
// it took to turn red.
func caught(t *testing.T, b bug, binary string) time.Duration {
	t.Helper()
	top, _, _ := strings.Cut(b.test, "/")
	run := func(name string) (took time.Duration, output []byte, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), most)
		defer cancel()
		cmd := exec.CommandContext(ctx, binary, append([]string{"-test.v", "-test.run", "^" + strings.ReplaceAll(b.test, "/", "$/^") + "$"}, b.layer.args...)...)
		cmd.Dir = filepath.Join(root, b.layer.pkg)
		cmd.Env = append(os.Environ(), "SERIATIM_BUG="+name)
		began := time.Now()
		output, err = cmd.CombinedOutput()
		return time.Since(began), output, errors.Join(err, ctx.Err())
	}
	if _, output, err := run(""); err != nil || !bytes.Contains(output, []byte("--- PASS: "+top)) {
		t.Errorf("%s: without the mistake %s is red: %v\n%s", b.name, b.test, err, output)
	}
	took, output, err := run(b.name)
	if err == nil {
		t.Errorf("%s: %s does not see it", b.name, b.test)
		return took
	}
	t.Logf("%s: caught by %s in %.1f s: %s", b.name, b.test, took.Seconds(), why(output, err))
	return took
}

var complaint = regexp.MustCompile(`(?m)^\s*(\w+_test\.go:\d+: (?:[^t]|t[^i])[^\n]*|panic: [^\n]*)`)

// why is the first complaint in the output of a red test.
func why(output []byte, err error) string {
	if m := complaint.FindSubmatch(output); m != nil {
		return string(m[1])
	}
	return err.Error()
}
