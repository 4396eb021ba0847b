package integration

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/journal"
)

// newState creates a state topic.
func newState(t *testing.T) string {
	t.Helper()
	name := unique(t, ".state")
	settings := map[string]*string{"cleanup.policy": kadm.StringPtr("compact")}
	if _, err := bed.admin.CreateTopic(within(t, patience), 3, -1, settings, name); err != nil {
		t.Fatalf("create topic %s: %v", name, err)
	}
	awaitTopic(t, name, 3)
	return name
}

// remembered is what a state topic has of a group, by source partition of a topic.
func remembered(ctx context.Context, t *testing.T, state, group, topic string, partitions int) []*journal.Memory {
	t.Helper()
	memories := make([]*journal.Memory, partitions)
	for p := range memories {
		memories[p] = journal.NewMemory()
	}
	end, err := ends(ctx, state, kgo.ReadUncommitted())
	if err != nil {
		t.Fatal(err)
	}
	for p, end := range end {
		if end == 0 {
			continue
		}
		client, err := bed.cluster.Client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{state: {p: kgo.NewOffset().AtStart()}}))
		if err != nil {
			t.Fatal(err)
		}
		for next := int64(0); next < end; {
			fetches := client.PollFetches(ctx)
			if err := fetches.Err(); err != nil {
				client.Close()
				t.Fatal(err)
			}
			fetches.EachRecord(func(r *kgo.Record) {
				next = r.Offset + 1
				record, ours, err := journal.Decode(group, r.Key, r.Value)
				if err != nil {
					t.Errorf("%s/%d at offset %d: %v", state, p, r.Offset, err)
				} else if ours && record.Topic == topic {
					memories[record.Partition].Apply(&record)
				}
			})
		}
		client.Close()
	}
	return memories
}

// awaitForgotten waits until nothing is left in a state topic.
func awaitForgotten(t *testing.T, state, group, topic string, partitions int) {
	t.Helper()
	ctx := within(t, patience)
	await(t, patience, "nothing to be left in "+state, func() (bool, string) {
		for p, m := range remembered(ctx, t, state, group, topic, partitions) {
			if len(m.Records) > 0 || len(m.Open) > 0 {
				return false, fmt.Sprintf("partition %d: open are %v, and %d records", p, m.Open, len(m.Records))
			}
		}
		return true, ""
	})
}

// A killer is a worker that has the one who asks killed when it is given a certain value.
type killer struct {
	url    string
	deadly string
	asked  chan int // with the number of the attempt
}

func newKiller(t *testing.T, deadly string) *killer {
	k := &killer{deadly: deadly, asked: make(chan int)}
	server := httptest.NewServer(k)
	k.url = server.URL
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return k
}

// ServeHTTP takes its time, so that some records are in flight when somebody is killed.
func (k *killer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	value, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var attempt int
	_, _ = fmt.Sscan(r.Header.Get("Seriatim-Attempt"), &attempt) // the test looks at it
	if string(value) == k.deadly {
		select {
		case k.asked <- attempt:
		case <-r.Context().Done():
		}
		<-r.Context().Done()
		return
	}
	select {
	case <-time.After(60 * time.Millisecond):
	case <-r.Context().Done():
		return
	}
	_, _ = w.Write(value)
}

// TestKilledOverAndOver has a record whose every attempt is the end of the instance. Its
// attempts are counted over all lives; it becomes a dead letter, and it alone.
func TestKilledOverAndOver(t *testing.T) {
	t.Parallel()
	const partitions, each, poison, limit = 3, 120, 60, 3
	inBothModes(t, func(t *testing.T, delivery settings) {
		in := newInput(t, partitions)
		out, dead, state := newTopic(t, ".out", partitions), newTopic(t, ".dead", 1), newState(t)
		in.produce(t, each)
		worker := newKiller(t, fmt.Sprintf("%s/1/%d", in.topic, poison))
		name := unique(t, "")
		conf := process(pipeline(name, in.topic, out).with(settings{
			"transform":    settings{"http": settings{"urls": []string{worker.url}}},
			"workers":      16,
			"input":        settings{"static_membership": true}, // so that nobody waits for a session to end
			"retry":        settings{"attempts": limit, "initial": "1ms"},
			"on_exhausted": "dead_letter",
			"dead_letter":  settings{"topic": dead},
			"state":        settings{"topic": state},
		}).with(delivery)).with(settings{"instance": name})
		var lives []int
		for {
			i := start(t, conf)
			attempt := 0
			await(t, patience, "the record that kills, or the end", func() (bool, string) {
				select {
				case attempt = <-worker.asked:
					return true, ""
				default:
					state := lag(t.Context(), group(name), in.topic)
					return state == "", fmt.Sprint(state, lives)
				}
			})
			if attempt > 0 {
				i.kill(t)
				lives = append(lives, attempt)
			}
			if len(lives) > 2*limit {
				t.Fatalf("it has killed for the attempts %v", lives)
			}
			if attempt == 0 {
				if n := i.metric(t, "seriatim_dead_letters_total", name); n != 1 {
					t.Errorf("there are %v dead letters, want 1", n)
				}
				i.drain(t)
				break
			}
		}
		if got := fmt.Sprint(lives); got != "[1 1 2 3]" {
			t.Errorf("the attempts at the record that kills are %s, want [1 1 2 3]", got)
		}
		var others int
		for _, story := range read(t, dead, kgo.ReadCommitted()) {
			others += len(story)
		}
		if others != 1 {
			t.Errorf("there are %d dead letters, want 1", others)
		}
		for p := range partitions {
			missing := each
			seen := make(map[int]bool)
			for _, n := range sequences(t, out, p) {
				if !seen[n] {
					seen[n] = true
					missing--
				}
			}
			if want := map[bool]int{true: 1, false: 0}[p == 1]; missing != want {
				t.Errorf("partition %d lacks %d records, want %d", p, missing, want)
			}
		}
		awaitForgotten(t, state, group(name), in.topic, partitions)
	})
}

// TestDecisionAtAnotherInstance holds a record over the end of its owner, and decides at
// an instance that has other partitions.
func TestDecisionAtAnotherInstance(t *testing.T) {
	t.Parallel()
	const partitions, each, poison = 2, 50, 20
	in := newInput(t, partitions)
	out, state := newTopic(t, ".out", partitions), newState(t)
	in.produce(t, each)
	worker := newWorker(t)
	for p := range partitions {
		worker.answer(fmt.Sprintf("%s/%d/%d", in.topic, p, poison), http.StatusServiceUnavailable)
	}
	name := unique(t, "")
	conf := process(pipeline(name, in.topic, out).with(settings{
		"transform":    settings{"http": settings{"urls": []string{worker.url}}},
		"input":        settings{"session_timeout": "6s"},
		"retry":        settings{"attempts": 2, "initial": "1ms"},
		"on_exhausted": "hold",
		"state":        settings{"topic": state},
	}))
	at := func(p int) string { return fmt.Sprintf("%s/%s/%d/%d", name, in.topic, p, poison) }
	first := start(t, conf)
	await(t, patience, "both records to be held", func() (bool, string) {
		list, _ := held(t, first, "list")
		return strings.Contains(list, at(0)) && strings.Contains(list, at(1)), list
	})
	await(t, patience, "what comes before them to be committed", func() (bool, string) {
		commits, err := committed(t.Context(), group(name), in.topic)
		return err == nil && commits[0] == poison && commits[1] == poison, fmt.Sprint(commits, err)
	})
	first.kill(t)
	instances := []*instance{start(t, conf), start(t, conf)}
	owner := make([]int, partitions)
	await(t, patience, "each to hold one of them", func() (bool, string) {
		var lists [2]string
		n := 0
		for i := range instances {
			lists[i], _ = held(t, instances[i], "list")
			for p := range partitions {
				if strings.Contains(lists[i], at(p)) {
					owner[p] = i
					n++
				}
			}
		}
		return n == partitions && owner[0] != owner[1], fmt.Sprint(lists)
	})
	if n := instances[0].metric(t, "seriatim_attempts_total", `result="retry"`) + instances[1].metric(t, "seriatim_attempts_total", `result="retry"`); n != 0 {
		t.Errorf("the held records were attempted %v times after their owner's end", n)
	}
	// Decided where it is not: one before its owner dies, one after.
	if text, code := held(t, instances[owner[1]], "skip", at(0), "--reason", "decided elsewhere"); code != 0 {
		t.Fatalf("exit code %d: %s", code, text)
	}
	if text, code := held(t, instances[owner[0]], "retry", at(0), "--reason", "too late"); code != 1 || !strings.Contains(text, "not held") {
		t.Errorf("a second decision: exit code %d: %s", code, text)
	}
	ctx := within(t, patience)
	await(t, patience, "the partition to be done", func() (bool, string) {
		commits, err := committed(ctx, group(name), in.topic)
		return err == nil && commits[0] == each && commits[1] == poison, fmt.Sprint(commits, err)
	})
	instances[owner[1]].end(t)
	must(t, instances[owner[1]].process.Signal(syscall.SIGKILL))
	worker.answer(fmt.Sprintf("%s/1/%d", in.topic, poison), 0)
	if text, code := held(t, instances[owner[0]], "retry", at(1), "--reason", "while nobody has it"); code != 0 {
		t.Fatalf("exit code %d: %s", code, text)
	}
	awaitCaughtUp(t, patience, group(name), in.topic)
	last := instances[owner[0]]
	if text := last.logText(); !strings.Contains(text, "decided elsewhere") || !strings.Contains(text, "while nobody has it") {
		t.Errorf("the log does not tell who decided what:\n%s", text)
	}
	last.drain(t)
	mustBe(t, "partition 0", sequences(t, out, 0), numbers(0, poison, poison+1, each))
	mustBe(t, "partition 1", sequences(t, out, 1), numbers(0, each))
	awaitForgotten(t, state, group(name), in.topic, partitions)
}

// TestReplyLogSavesCalls kills an instance that has finished all but the first record of
// each partition, with a reply log and without, and counts the calls that are repeated.
func TestReplyLogSavesCalls(t *testing.T) {
	t.Parallel()
	const partitions, each = 2, 300
	const finished = partitions * (each - 1)
	for _, replies := range []bool{false, true} {
		t.Run(fmt.Sprintf("reply_log_%v", replies), func(t *testing.T) {
			inBothModes(t, func(t *testing.T, delivery settings) {
				in := newInput(t, partitions)
				out, state := newTopic(t, ".out", partitions), newState(t)
				in.produce(t, each)
				worker := newWorker(t)
				for p := range partitions {
					worker.hold(fmt.Sprintf("%s/%d/0", in.topic, p))
				}
				name := unique(t, "")
				conf := process(pipeline(name, in.topic, out).with(settings{
					"transform": settings{"http": settings{"urls": []string{worker.url}, "timeout": "5m"}},
					"input":     settings{"static_membership": true},
					"state":     settings{"topic": state, "reply_log": replies},
				}).with(delivery)).with(settings{"instance": name})
				i := start(t, conf)
				i.awaitPartitions(t, name, partitions)
				await(t, patience, "all others to be finished", func() (bool, string) {
					n := i.metric(t, "seriatim_attempts_total", `result="ok"`)
					return n == finished, fmt.Sprint(n)
				})
				ctx := within(t, patience)
				await(t, patience, "their results to be stored", func() (bool, string) {
					n := 0
					for _, m := range remembered(ctx, t, state, group(name), in.topic, partitions) {
						n += len(m.Records)
					}
					return !replies || n == finished, fmt.Sprint(n)
				})
				i.kill(t)
				worker.release()
				i = start(t, conf)
				awaitCaughtUp(t, patience, group(name), in.topic)
				repeated := worker.repeats() - partitions // the first of each is called for twice in any case
				t.Logf("%d of %d finished calls were repeated", repeated, finished)
				if want := map[bool]int{false: finished, true: 0}[replies]; repeated != want {
					t.Errorf("%d finished calls were repeated, want %d", repeated, want)
				}
				if replies {
					if n := i.metric(t, "seriatim_replies_total", `result="reused"`); n != finished {
						t.Errorf("%v stored results were reused, want %d", n, finished)
					}
				}
				i.drain(t)
				for p := range partitions {
					mustBe(t, fmt.Sprintf("partition %d", p), sequences(t, out, p), numbers(0, each))
				}
				awaitForgotten(t, state, group(name), in.topic, partitions)
			})
		})
	}
}

// noting is a worker that notes in a file that it was given a certain value, and dies
// together with the instance.
const noting = `
import { appendFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
console.log('{"seriatim":1}');
createInterface({ input: process.stdin }).on('line', (line) => {
  const { id, value, attempt } = JSON.parse(line);
  if (value === process.argv[2]) {
    appendFileSync(process.argv[3], attempt + ' ');
    process.kill(process.ppid, 'SIGKILL');
    process.exit(9);
  }
  setTimeout(() => console.log(JSON.stringify({ id, outputs: [{ value }] })), 20);
});
`

// TestWorkerAndInstanceDieTogether has a record that kills the process that transforms it
// and with it the instance, again and again.
func TestWorkerAndInstanceDieTogether(t *testing.T) {
	t.Parallel()
	const partitions, each, poison, limit = 2, 100, 40, 4
	in := newInput(t, partitions)
	out, dead, state := newTopic(t, ".out", partitions), newTopic(t, ".dead", 1), newState(t)
	in.produce(t, each)
	dir := t.TempDir()
	script, notes := filepath.Join(dir, "noting.mjs"), filepath.Join(dir, "notes")
	must(t, os.WriteFile(script, []byte(noting), 0o600))
	must(t, os.WriteFile(notes, nil, 0o600))
	name := unique(t, "")
	conf := process(pipeline(name, in.topic, out).with(settings{
		"transform": settings{"exec": settings{"command": []string{
			"node", script, fmt.Sprintf("%s/0/%d", in.topic, poison), notes,
		}, "in_flight": 8}},
		"input":        settings{"static_membership": true},
		"retry":        settings{"attempts": limit, "initial": "100ms"},
		"on_exhausted": "dead_letter",
		"dead_letter":  settings{"topic": dead},
		"state":        settings{"topic": state},
	})).with(settings{"instance": name})
	lives := 0
	for done := false; !done; lives++ {
		i := start(t, conf)
		i.end(t)
		await(t, patience, "the end of the instance, or of the input", func() (bool, string) {
			select {
			case <-i.process.Exited():
				return true, ""
			default:
			}
			state := lag(t.Context(), group(name), in.topic)
			done = state == ""
			return done, state
		})
		if done {
			i.drain(t)
		}
	}
	seen, err := os.ReadFile(notes)
	must(t, err)
	attempts := strings.Fields(string(seen))
	t.Logf("%d lives, with the attempts %s", lives, seen)
	if len(attempts) < limit || len(attempts) > limit+2 || attempts[len(attempts)-1] != fmt.Sprint(limit) && attempts[len(attempts)-1] != fmt.Sprint(limit+1) {
		t.Errorf("the attempts are %s, want %d, and two more at the most", seen, limit)
	}
	letters := make(map[string]int)
	for _, s := range read(t, dead, kgo.ReadCommitted())[0] {
		letters[fmt.Sprintf("%s/%d", s.from, s.seq)]++
	}
	// Killed before its offset was committed, it may become one twice.
	if name := fmt.Sprintf("%s/0/%d", in.topic, poison); len(letters) != 1 || letters[name] == 0 || letters[name] > 2 {
		t.Errorf("the dead letters are %v, want %s", letters, name)
	}
	awaitForgotten(t, state, group(name), in.topic, partitions)
}
