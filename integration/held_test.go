package integration

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// held runs the command of that name against an instance.
func held(t *testing.T, i *instance, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.CommandContext(within(t, patience), bed.binary, append([]string{"held", "--admin", i.url}, args...)...)
	text, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// TestHeldRecords has a worker refuse one record in each of five partitions. A person
// looks at them on the command line and decides; the rest follows in order.
func TestHeldRecords(t *testing.T) {
	t.Parallel()
	const partitions, each, poison = 5, 200, 77
	inBothModes(t, func(t *testing.T, delivery settings) {
		in := newInput(t, partitions)
		out, dead := newTopic(t, ".out", partitions), newTopic(t, ".dead", 1)
		in.produce(t, each)
		worker := newWorker(t)
		record := func(p int) string { return fmt.Sprintf("%s/%d/%d", in.topic, p, poison) } // its value
		for p := range partitions {
			worker.answer(record(p), http.StatusServiceUnavailable)
		}
		name := unique(t, "")
		i := start(t, process(pipeline(name, in.topic, out).with(settings{
			"transform":    settings{"http": settings{"urls": []string{worker.url}}},
			"retry":        settings{"attempts": 2, "initial": "1ms"},
			"on_exhausted": "hold",
			"dead_letter":  settings{"topic": dead},
		}).with(delivery)))
		for p := range partitions {
			i.awaitUnready(t, fmt.Sprintf("%s/%d", in.topic, p), "is held", fmt.Sprintf("offset %d", poison), "503", "seriatim held")
		}
		if n := i.metric(t, "seriatim_held", name); n != partitions {
			t.Errorf("seriatim_held is %v, want %d", n, partitions)
		}
		list, code := held(t, i, "list")
		for p := range partitions {
			if want := fmt.Sprintf("%s/%s/%d/%d", name, in.topic, p, poison); code != 0 || !strings.Contains(list, want) {
				t.Errorf("held list: exit code %d, without %s:\n%s", code, want, list)
			}
		}
		at := func(p int) string { return fmt.Sprintf("%s/%s/%d/%d", name, in.topic, p, poison) }
		if show, code := held(t, i, "show", at(1)); code != 0 || !strings.Contains(show, `"value": "`+record(1)+`"`) || !strings.Contains(show, "503") {
			t.Errorf("held show: exit code %d:\n%s", code, show)
		}

		worker.answer(record(0), 0)
		file := filepath.Join(t.TempDir(), "value")
		if err := os.WriteFile(file, []byte(record(3)), 0o600); err != nil {
			t.Fatal(err)
		}
		lines := filepath.Join(t.TempDir(), "values")
		if err := os.WriteFile(lines, []byte("\n"+record(4)+"\r\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{
			{"retry", at(0), "--reason", "the worker is mended"},
			{"dead-letter", at(1), "--reason", "nobody needs it"},
			{"skip", at(2), "--reason", "nobody needs it"},
			{"replace", at(3), "--output", file, "--reason", "done by hand"},
			{"replace", at(4), "--outputs", lines, "--reason", "done by hand too"},
		} {
			if text, code := held(t, i, args...); code != 0 {
				t.Errorf("held %v: exit code %d: %s", args, code, text)
			}
			if text, code := held(t, i, args...); code != 1 || !strings.Contains(text, "not held") {
				t.Errorf("held %v, again: exit code %d: %s", args, code, text)
			}
		}
		awaitCaughtUp(t, patience, group(name), in.topic)
		i.awaitReady(t)
		if text, _ := held(t, i, "list"); text != "no record is held\n" {
			t.Errorf("held list says %q", text)
		}
		i.drain(t)
		if text := i.logText(); strings.Count(text, "somebody decided about a held record") != partitions || !strings.Contains(text, "done by hand") {
			t.Errorf("the log does not tell who decided what:\n%s", text)
		}
		for p := range partitions {
			want := numbers(0, each)
			if p == 1 || p == 2 {
				want = numbers(0, poison, poison+1, each)
			}
			mustBe(t, fmt.Sprintf("partition %d", p), sequences(t, out, p), want)
		}
		if n := records(within(t, patience), t, dead); delivery["delivery"] == "at_least_once" && n != 1 {
			t.Errorf("there are %d dead letters, want 1", n)
		}
	})
}
