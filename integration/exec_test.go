package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestExec has Node processes transform records. One of them is killed under load,
// and at last the instance itself.
func TestExec(t *testing.T) {
	t.Parallel()
	const partitions = 3
	in := newInput(t, partitions)
	in.json = true
	out := newTopic(t, ".out", partitions)
	name := unique(t, "")
	script, err := filepath.Abs("../examples/node/stdio.mjs")
	if err != nil {
		t.Fatal(err)
	}
	conf := func(program string) settings {
		return process(pipeline(name, in.topic, out).with(settings{
			"transform": settings{"exec": settings{"command": []string{program, script}, "processes": 2, "in_flight": 16}},
		}))
	}
	absent := start(t, conf("no-such-node"))
	l := in.start(t, 300)
	t.Log(absent.awaitUnready(t, name, "worker no-such-node", "cannot be started"))
	absent.drain(t)

	i := start(t, conf("node"))
	i.awaitEmitted(t, name, 300)
	first := i.workers(t)
	if err := syscall.Kill(first[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitOutput(t, out, records(within(t, patience), t, out)+300)
	await(t, patience, "another process in the place of the killed one", func() (bool, string) {
		return len(i.workers(t)) == 3 && strings.Contains(i.logText(), "signal: killed"), fmt.Sprint(i.workers(t))
	})
	i.awaitReady(t)
	l.end()
	awaitCaughtUp(t, patience, group(name), in.topic)
	i.drain(t)
	i.awaitNoWorkers(t)
	compareExact(t, in.topic, out)
	if first := firstValue(t, out); !strings.Contains(first, `"receipt":`) {
		t.Errorf("%s has no receipt of the worker", first)
	}

	in.produce(t, 100)
	killed := start(t, conf("node"))
	awaitOutput(t, out, records(within(t, patience), t, out)+1)
	killed.kill(t)
	killed.awaitNoWorkers(t)
}

var readyWorker = regexp.MustCompile(`msg="a worker process is ready" .*pid=(\d+)`)

// workers returns the pids of the processes that the instance has started.
func (i *instance) workers(t *testing.T) []int {
	t.Helper()
	var pids []int
	for _, m := range readyWorker.FindAllStringSubmatch(i.logText(), -1) {
		pid, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	if len(pids) == 0 {
		t.Fatalf("%s has started no worker", i.name)
	}
	return pids
}

// awaitNoWorkers waits until none of them runs.
func (i *instance) awaitNoWorkers(t *testing.T) {
	t.Helper()
	for _, pid := range i.workers(t) {
		await(t, patience, fmt.Sprintf("worker %d to be gone", pid), func() (bool, string) {
			// Who has ended and was left to a lazy init is gone too.
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			return syscall.Kill(pid, 0) != nil || err == nil && strings.Contains(string(stat), ") Z "), string(stat)
		})
	}
}

// deadly is a worker that takes its time, and dies of one record.
const deadly = `
import { createInterface } from 'node:readline';
console.log('{"seriatim":1}');
createInterface({ input: process.stdin }).on('line', (line) => {
  const { id, value, batch } = JSON.parse(line);
  const answer = ({ id, value }) => value === process.argv[2] ? process.exit(9) : { id, outputs: [{ value }] };
  const reply = batch ? { id, answers: batch.map(answer) } : answer({ id, value });
  setTimeout(() => console.log(JSON.stringify(reply)), 20);
});
`

// TestExecDeadlyRecord: a record that kills its process, with others in it, stops
// its own partition alone, although they are tried again together and have three attempts.
func TestExecDeadlyRecord(t *testing.T) {
	t.Parallel()
	const partitions, each, poison = 3, 400, 123
	in := newInput(t, partitions)
	out := newTopic(t, ".out", partitions)
	in.produce(t, each)
	script := filepath.Join(t.TempDir(), "deadly.mjs")
	if err := os.WriteFile(script, []byte(deadly), 0o600); err != nil {
		t.Fatal(err)
	}
	name := unique(t, "")
	conf := func(value string) settings {
		return process(pipeline(name, in.topic, out).with(settings{
			"transform":    settings{"exec": settings{"command": []string{"node", script, value}, "processes": 1, "in_flight": 64}},
			"retry":        settings{"attempts": 3, "initial": "1ms"},
			"on_exhausted": "stop",
		}))
	}
	i := start(t, conf(fmt.Sprintf("%s/1/%d", in.topic, poison)))
	t.Log(i.awaitUnready(t, in.topic+"/1", "stopped", fmt.Sprintf("offset %d", poison), "exit status 9"))
	ctx := within(t, patience)
	await(t, patience, "the other partitions to finish, and this one to stand", func() (bool, string) {
		commits, err := committed(ctx, group(name), in.topic)
		return err == nil && commits[0] == each && commits[1] == poison && commits[2] == each, fmt.Sprint(commits, err)
	})
	if got := i.metric(t, "seriatim_partition_stopped", name); got != 1 {
		t.Errorf("%v partitions are stopped, want 1", got)
	}
	i.drain(t)
	mended := start(t, conf("none"))
	mended.finish(t, name, in.topic, out)
}

// TestExecRogueRecords: an error of a record that nobody waits for, in Node, is the
// failure of that record. The process goes on.
func TestExecRogueRecords(t *testing.T) {
	t.Parallel()
	const partitions, each = 3, 300
	in := newInput(t, partitions)
	out := newTopic(t, ".out", partitions)
	in.produce(t, each)
	script, err := filepath.Abs("testdata/rogue.mjs")
	if err != nil {
		t.Fatal(err)
	}
	name := unique(t, "")
	i := start(t, process(pipeline(name, in.topic, out).with(settings{
		"retry":     settings{"initial": "10ms"},
		"transform": settings{"exec": settings{"command": []string{"node", script}, "processes": 1}},
	})))
	awaitCaughtUp(t, patience, group(name), in.topic)
	if n := i.metric(t, "seriatim_attempts_total", `pipeline="`+name+`"`, `result="retry"`); n != partitions*each/10 {
		t.Errorf("%v attempts failed, want %d", n, partitions*each/10)
	}
	if pids := i.workers(t); len(pids) != 1 {
		t.Errorf("processes %d were started, want one", pids)
	}
	i.drain(t)
	compareExact(t, in.topic, out)
}

// TestExecDeadlyRecordOfABatch: a record that kills its process with a thousand others in the
// same call is found, and goes to the dead letters alone.
func TestExecDeadlyRecordOfABatch(t *testing.T) {
	t.Parallel()
	const partitions, each, poison = 2, 3000, 1234
	in := newInput(t, partitions)
	out, dead := newTopic(t, ".out", partitions), newTopic(t, ".dead", 1)
	in.produce(t, each)
	script := filepath.Join(t.TempDir(), "deadly.mjs")
	if err := os.WriteFile(script, []byte(deadly), 0o600); err != nil {
		t.Fatal(err)
	}
	name := unique(t, "")
	i := start(t, process(pipeline(name, in.topic, out).with(settings{
		"transform":    settings{"exec": settings{"command": []string{"node", script, fmt.Sprintf("%s/1/%d", in.topic, poison)}}},
		"batch":        settings{"records": 1000},
		"retry":        settings{"initial": "50ms"},
		"on_exhausted": "dead_letter",
		"dead_letter":  settings{"topic": dead},
	})))
	awaitCaughtUp(t, patience, group(name), in.topic)
	calls := i.metric(t, "seriatim_transform_duration_seconds_count", name)
	if calls > 300 {
		t.Errorf("%v calls for %d records, want at most 300", calls, partitions*each)
	}
	i.drain(t)
	source := read(t, in.topic, kgo.ReadCommitted())
	source[1] = slices.DeleteFunc(source[1], func(s sighting) bool { return s.seq == poison })
	if v := judge(source, read(t, out, kgo.ReadCommitted())); v.faults > 0 || v.repeats > 0 {
		t.Error(v)
	}
	if letters := read(t, dead, kgo.ReadCommitted())[0]; len(letters) != 1 || letters[0].seq != poison {
		t.Errorf("the dead letters are %+v, want record %d alone", letters, poison)
	}
}
