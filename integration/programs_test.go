package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/testkafka"
)

// TestNodeWorker has the example worker transform records, and restarts it under
// load.
func TestNodeWorker(t *testing.T) {
	t.Parallel()
	restartWorker(t, startNode)
}

// TestPythonWorker does the same with the worker in Python, and has Seriatim start
// that itself.
func TestPythonWorker(t *testing.T) {
	t.Parallel()
	t.Run("http", func(t *testing.T) {
		t.Parallel()
		restartWorker(t, func(t *testing.T, port string) (*testkafka.Process, string) {
			return startWorker(t, port, "python3", "../examples/python/worker.py", port)
		})
	})
	t.Run("exec", func(t *testing.T) {
		t.Parallel()
		const partitions, each = 3, 200
		in := newInput(t, partitions)
		in.json = true
		out := newTopic(t, ".out", partitions)
		in.produce(t, each)
		script, err := filepath.Abs("../examples/python/worker.py")
		if err != nil {
			t.Fatal(err)
		}
		name := unique(t, "")
		i := start(t, process(pipeline(name, in.topic, out).with(settings{
			"transform": settings{"exec": settings{"command": []string{"python3", script}, "processes": 2}},
		})))
		awaitCaughtUp(t, patience, group(name), in.topic)
		i.drain(t)
		i.awaitNoWorkers(t)
		compareExact(t, in.topic, out)
		if n := countReceipts(t, out, 0); n != partitions*each {
			t.Errorf("%d outputs have a receipt, want %d", n, partitions*each)
		}
	})
}

func restartWorker(t *testing.T, startWorker func(t *testing.T, port string) (*testkafka.Process, string)) {
	t.Helper()
	const partitions = 3
	in := newInput(t, partitions)
	in.json = true
	out := newTopic(t, ".out", partitions)
	name := unique(t, "")
	worker, addr := startWorker(t, "0")
	i := start(t, process(pipeline(name, in.topic, out).with(settings{
		"transform": settings{"http": settings{"urls": []string{"http://" + addr + "/transform"}}},
	})))
	l := in.start(t, 300)
	i.awaitEmitted(t, name, 300)
	if err := worker.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-worker.Exited():
	case <-time.After(patience):
		t.Fatalf("waited %v for the worker to end", patience)
	}
	i.awaitUnready(t, name, addr)
	_, port, _ := strings.Cut(addr, ":")
	startWorker(t, port)
	awaitOutput(t, out, records(within(t, patience), t, out)+300)
	l.end()
	i.finish(t, name, in.topic, out)
	if first := firstValue(t, out); !strings.Contains(first, `"receipt":`) {
		t.Errorf("%s has no receipt of the worker", first)
	}
}

// startNode starts the example worker and returns where it listens.
func startNode(t *testing.T, port string) (worker *testkafka.Process, addr string) {
	t.Helper()
	return startWorker(t, port, "node", "../examples/node/worker.mjs")
}

// startWorker starts a program that says where it listens, and returns that.
func startWorker(t *testing.T, port string, command ...string) (worker *testkafka.Process, addr string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "worker.log")
	log, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "PORT="+port, "HOST=127.0.0.1")
	cmd.Stdout, cmd.Stderr = log, log
	if worker, err = bed.leash.Start(cmd); err != nil {
		t.Fatalf("the worker %q does not start: %v", command, err)
	}
	t.Cleanup(func() {
		_ = worker.Signal(syscall.SIGKILL) // it may have ended
		<-worker.Exited()
	})
	await(t, patience, "the worker to listen", func() (bool, string) {
		text, err := os.ReadFile(file)
		_, after, ok := strings.Cut(string(text), "listening on http://")
		addr, _, _ = strings.Cut(after, "\n")
		return ok && strings.HasSuffix(string(text), "\n"), fmt.Sprint(string(text), err)
	})
	return worker, addr
}

// firstValue returns the first value of a topic's first partition.
func firstValue(t *testing.T, topic string) string {
	t.Helper()
	reader, err := bed.cluster.Client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	fetches := reader.PollRecords(within(t, patience), 1)
	if err := fetches.Err(); err != nil {
		t.Fatal(err)
	}
	return string(fetches.Records()[0].Value)
}

// TestDemo runs the demo, which needs no Kafka, to its verdict.
func TestDemo(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, bed.binary, "demo", "--for", "6s")
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if !strings.Contains(string(text), "0 out of order") {
		t.Errorf("there is no verdict with 0 out of order:\n%s", text)
	}
	if strings.Contains(string(text), "\x1b") {
		t.Errorf("not a terminal, and yet there are escape sequences:\n%q", text)
	}
}
