package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// sales fills an input with n sales in every partition, of which one in a hundred has no
// amount, and returns these as the partition and the sequence number.
func sales(t *testing.T, in *input, n int) (bad map[string]bool) {
	t.Helper()
	bad = make(map[string]bool)
	client, answers := newProducer(t), newAnswers(t)
	for i := range n {
		for p := range in.next {
			r := in.record(p)
			who := fmt.Sprintf("%s/%d/%d", in.topic, p, i)
			r.Value = fmt.Appendf(nil, `{"who": %q, "amount": "%d.50", "currency": "EUR"}`, who, i)
			if i%100 == 13 {
				r.Value = fmt.Appendf(nil, `{"who": %q}`, who)
				bad[who] = true
			}
			client.Produce(t.Context(), r, answers.note)
		}
	}
	answers.flush(client)
	return bad
}

// TestETL has the examples load sales in batches, from three partitions: every one once, in
// order, in a few calls. Sales that are none are dead letters, one by one.
func TestETL(t *testing.T) {
	t.Parallel()
	const partitions, each = 3, 4000
	for name, program := range map[string]func(t *testing.T) etl{"python": etlInPython, "node": etlInNode} {
		t.Run(name, func(t *testing.T) {
			inBothModes(t, func(t *testing.T, delivery settings) {
				etl := program(t)
				in := newInput(t, partitions)
				out, dead := newTopic(t, ".out", partitions), newTopic(t, ".dead", 1)
				bad := sales(t, in, each)
				pipe := unique(t, "")
				i := start(t, process(pipeline(pipe, in.topic, out).with(settings{
					"transform":    etl.transform,
					"batch":        settings{"records": 1000},
					"on_exhausted": "dead_letter",
					"dead_letter":  settings{"topic": dead},
				}).with(delivery)))
				awaitCaughtUp(t, patience, group(pipe), in.topic)
				i.awaitReady(t)
				calls := i.metric(t, "seriatim_transform_duration_seconds_count", pipe)
				if calls < partitions*each/1000 || calls > 2*partitions*each/1000 {
					t.Errorf("%v calls for %d records, want about %d", calls, partitions*each, partitions*each/1000)
				}
				if settled := i.metric(t, "seriatim_settled_total", pipe); settled != partitions*each {
					t.Errorf("%v records are settled, want %d", settled, partitions*each)
				}
				i.drain(t)

				source := read(t, in.topic, kgo.ReadCommitted())
				for p := range source {
					source[p] = slices.DeleteFunc(source[p], func(s sighting) bool { return bad[fmt.Sprintf("%s/%d", s.from, s.seq)] })
				}
				if v := judge(source, read(t, out, kgo.ReadCommitted())); v.faults > 0 || v.repeats > 0 {
					t.Errorf("%v", v)
				}
				for _, s := range slices.Concat(read(t, dead, kgo.ReadCommitted())...) {
					who := fmt.Sprintf("%s/%d", s.from, s.seq)
					if !bad[who] {
						t.Errorf("the dead letter %s is a sale, or a second one", who)
					}
					delete(bad, who)
				}
				if len(bad) > 0 {
					t.Errorf("%d dead letters are missing", len(bad))
				}
				if facts := etl.facts(t); facts != partitions*each*99/100 {
					t.Errorf("%d facts are loaded, want %d", facts, partitions*each*99/100)
				}
				if loads := etl.loads(t, i); loads < 1 || loads > int(calls) {
					t.Errorf("the worker has loaded %d times in %v calls", loads, calls)
				}
			})
		})
	}
}

// An etl is one of the examples.
type etl struct {
	transform settings
	facts     func(t *testing.T) int              // that are loaded
	loads     func(t *testing.T, i *instance) int // how often it has loaded some
}

func etlInNode(t *testing.T) etl {
	t.Helper()
	script, err := filepath.Abs("../examples/etl/etl.mjs")
	if err != nil {
		t.Fatal(err)
	}
	facts := filepath.Join(t.TempDir(), "facts.ndjson")
	return etl{
		transform: settings{"exec": settings{"command": []string{"node", script, facts}, "processes": 1}},
		facts: func(t *testing.T) int {
			t.Helper()
			text, err := os.ReadFile(facts)
			if err != nil {
				t.Fatal(err)
			}
			return bytes.Count(text, []byte("\n"))
		},
		loads: func(_ *testing.T, i *instance) int { return strings.Count(i.logText(), "facts\"") },
	}
}

func etlInPython(t *testing.T) etl {
	t.Helper()
	dir := t.TempDir()
	logFile, facts := filepath.Join(dir, "etl.log"), filepath.Join(dir, "facts.db")
	log, err := os.Create(logFile)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("python3", "../examples/etl/etl.py")
	cmd.Env = append(os.Environ(), "PORT=0", "FACTS="+facts)
	cmd.Stdout, cmd.Stderr = log, log
	worker, err := bed.leash.Start(cmd)
	if err != nil {
		t.Fatalf("the ETL worker needs Python 3.9: %v", err)
	}
	end := func() {
		_ = worker.Signal(syscall.SIGTERM) // it may have ended
		<-worker.Exited()
	}
	t.Cleanup(end)
	text := func() string {
		text, err := os.ReadFile(logFile)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var url string
	await(t, patience, "the ETL worker to listen", func() (bool, string) {
		_, after, _ := strings.Cut(text(), "listening on ")
		line, _, whole := strings.Cut(after, "\n")
		url = line
		return whole, text()
	})
	return etl{
		transform: settings{"http": settings{"urls": []string{url + "/"}}},
		facts: func(t *testing.T) (n int) {
			t.Helper()
			end()
			if code := worker.ExitCode(); code != 0 {
				t.Errorf("the ETL worker ended with exit code %d:\n%s", code, text())
			}
			out, err := exec.CommandContext(within(t, patience), "python3", "-c",
				"import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM facts').fetchone())", facts).Output()
			if _, scan := fmt.Sscan(string(out), &n); err != nil || scan != nil {
				t.Fatalf("%v, %v: %s", err, scan, out)
			}
			return n
		},
		loads: func(*testing.T, *instance) int { return strings.Count(text(), "loaded a batch") },
	}
}
