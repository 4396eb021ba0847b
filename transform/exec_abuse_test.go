package transform_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"seriatim/processor"
	"seriatim/transform"
)

// TestExecCrash: what one record does to its process costs the others an attempt,
// and no more.
func TestExecCrash(t *testing.T) {
	for name, test := range map[string]struct {
		value string
		says  []string
	}{
		"exit":               {"crash badly", []string{"ended with the record", "exit status 3", `its last words: "it hurts: badly"`}},
		"kill":               {"kill", []string{"ended with the record", "signal: killed"}},
		"a partial frame":    {"half", []string{"ended with the record", "ended by itself"}},
		"what is no answer":  {"say debugging", []string{"a line of its output is no answer", "stderr"}},
		"JSON that is none":  {`say {"level":"info"}`, []string{"a line of its output is no answer"}},
		"an id of no record": {`say {"id":99,"outputs":[]}`, []string{"it answered id 99, which it was not given"}},
		"a huge id":          {`say {"id":99999999999999999999,"outputs":[]}`, []string{"is no answer"}},
		"a line without end": {"endless", []string{"a line of its output has no end"}},
		"no output any more": {"close", []string{"it closed its output"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, log := pool(t, "", transform.ExecOptions{Processes: 1})
			pid := askPid(t, p, "pid")
			held := make(chan error, 1)
			go func() {
				_, err := ask(t.Context(), p, 1, "wait")
				held <- err
			}()
			asked := 1
			await(t, "the process to have the other record", func() bool {
				asked++
				return strings.HasPrefix(mustAsk(t, p, "line"), fmt.Sprintf(`{"id":%d,`, asked+1))
			})
			_, err := ask(t.Context(), p, 2, test.value)
			for _, err := range []error{err, <-held} {
				if f := execFailure(t, err); f.Kind != processor.Retry || !contains(err.Error(), test.says) {
					t.Errorf("got %v %q, want a retry that says %q", f.Kind, err, test.says)
				}
			}
			if again := askPid(t, p, "pid"); again == pid {
				t.Errorf("process %d still answers", pid)
			}
			awaitDead(t, pid)
			if !strings.Contains(log.String(), "a worker process ended with records") {
				t.Errorf("the log does not tell of the end:\n%s", log)
			}
		})
	}
}

func contains(text string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

// TestExecOtherProcessesGoOn while one restarts.
func TestExecOtherProcessesGoOn(t *testing.T) {
	p, _ := pool(t, "", transform.ExecOptions{Processes: 2})
	pids := map[string]bool{}
	await(t, "both processes to be ready", func() bool {
		var asked sync.WaitGroup
		var mu sync.Mutex
		for range 10 {
			asked.Go(func() {
				if pid, err := ask(t.Context(), p, 1, "pid"); err == nil {
					mu.Lock()
					pids[pid] = true
					mu.Unlock()
				}
			})
		}
		asked.Wait()
		return len(pids) == 2
	})
	for i := range 20 {
		if _, err := ask(t.Context(), p, int64(i), "crash"); execFailure(t, err).Kind != processor.Retry {
			t.Errorf("got %v, want a retry", err)
		}
		if got := mustAsk(t, p, "hello"); got != "hello" {
			t.Errorf("got %q", got)
		}
	}
}

// TestExecCrashLoop: a program that dies with every record is the deployment's
// fault; a record that does it alone is not.
func TestExecCrashLoop(t *testing.T) {
	p, _ := pool(t, "", transform.ExecOptions{Processes: 1})
	for range 5 {
		if _, err := ask(t.Context(), p, 1, "crash"); execFailure(t, err).Kind != processor.Retry {
			t.Fatalf("got %v for one and the same record, want a retry", err)
		}
	}
	mustAsk(t, p, "hello")

	var err error
	for offset := range int64(3) {
		if offset > 0 && execFailure(t, err).Kind != processor.Retry {
			t.Errorf("got %v for record %d, want a retry", err, offset)
		}
		_, err = ask(t.Context(), p, offset, "crash no database")
	}
	f := execFailure(t, err)
	if want := []string{"one process after the other", "exit status 3", "it hurts: no database"}; f.Kind != processor.Deployment || f.Unsent || !contains(err.Error(), want) {
		t.Errorf("got %v, unsent %v: %v; want a deployment that was sent and says %q", f.Kind, f.Unsent, err, want)
	}

	mustAsk(t, p, "hello") // it is mended
	if _, err := ask(t.Context(), p, 7, "crash"); execFailure(t, err).Kind != processor.Retry {
		t.Errorf("after an answer: got %v, want a retry", err)
	}
}

// TestExecHangs: records that are never answered time out, and their process is
// replaced when they take too many of its places.
func TestExecHangs(t *testing.T) {
	t.Parallel()
	p, log := pool(t, "", transform.ExecOptions{Processes: 1, InFlight: 8, Timeout: 2 * time.Second})
	pid := askPid(t, p, "pid")
	replaced := func() bool { return strings.Contains(log.String(), "it is replaced") }
	hang := func() {
		t.Helper()
		_, err := ask(t.Context(), p, 1, "hang")
		if f := execFailure(t, err); f.Kind != processor.Retry || !strings.Contains(err.Error(), "no answer within 2s (transform.exec.timeout)") {
			t.Errorf("got %v, want a retry", err)
		}
	}
	// busy asks for other records while so many hang.
	busy := func(times int) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var others sync.WaitGroup
		others.Go(func() {
			for ctx.Err() == nil {
				_, _ = ask(ctx, p, 2, "hello")
			}
		})
		var hanging sync.WaitGroup
		for range times {
			hanging.Go(hang)
		}
		hanging.Wait()
		cancel()
		others.Wait()
	}
	busy(3)
	if again := askPid(t, p, "pid"); again != pid || replaced() {
		t.Errorf("the process was replaced although 3 of its 8 places hang and it answers on")
	}
	busy(1)
	await(t, "the process to be replaced", func() bool { return replaced() && !alive(pid) })
	pid = askPid(t, p, "pid")
	hang() // nothing else is answered meanwhile
	awaitDead(t, pid)
	if again := askPid(t, p, "pid"); again == pid {
		t.Errorf("process %d still answers", pid)
	}
}

// TestExecLateAnswers: places of records that were answered after their time are free
// again, however many there were.
func TestExecLateAnswers(t *testing.T) {
	t.Parallel()
	p, log := pool(t, "", transform.ExecOptions{Processes: 1, InFlight: 4, Timeout: time.Second})
	for n := 1; n <= 3; n++ {
		late := make(chan error, 1)
		go func() {
			_, err := ask(t.Context(), p, 1, "wait")
			late <- err
		}()
		for err := error(nil); err == nil; {
			_, _ = ask(t.Context(), p, 2, "hello") // it answers others meanwhile
			select {
			case err = <-late:
				if f := execFailure(t, err); f.Kind != processor.Retry {
					t.Fatalf("got %v, want a retry", err)
				}
			default:
			}
		}
		_, _ = ask(t.Context(), p, 2, "last")
		await(t, "the late answer", func() bool {
			if strings.Contains(log.String(), "it is replaced") {
				t.Fatalf("after %d late answers the process was replaced, although it has given each of them", n)
			}
			return strings.Count(log.String(), "an answer that came too late is dropped") >= n
		})
	}
}

// TestExecDeaf: a process that does not read its input holds nobody up.
func TestExecDeaf(t *testing.T) {
	p, _ := pool(t, "deaf", transform.ExecOptions{Processes: 2, Timeout: 200 * time.Millisecond})
	var attempts sync.WaitGroup
	for i := range 16 {
		attempts.Go(func() {
			_, err := ask(t.Context(), p, int64(i), strings.Repeat("x", 1<<20)) // more than a pipe holds
			if f := execFailure(t, err); f.Kind != processor.Retry {
				t.Errorf("got %v, want a retry", err)
			}
		})
	}
	attempts.Wait()
}

// TestExecMemory: a process that takes too much is replaced before the machine has
// no more.
func TestExecMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		if _, err := transform.Exec(transform.ExecOptions{Command: []string{"worker"}, Memory: 1}); err == nil {
			t.Error("a limit that cannot be kept is taken")
		}
		return
	}
	p, _ := pool(t, "", transform.ExecOptions{Processes: 1, Memory: 300 << 20})
	pid := askPid(t, p, "pid")
	_, err := ask(t.Context(), p, 1, "grow")
	if f := execFailure(t, err); f.Kind != processor.Retry || !contains(err.Error(), []string{"MiB of memory, more than the 300 MiB", "transform.exec.memory"}) {
		t.Errorf("got %v %v, want a retry that names the memory", f.Kind, err)
	}
	awaitDead(t, pid)
	if got := mustAsk(t, p, "hello"); got != "hello" {
		t.Errorf("got %q", got)
	}
}

// TestExecCPU: a process that has had its CPU time is replaced when it has nothing to do,
// or at once if it takes far more.
func TestExecCPU(t *testing.T) {
	if runtime.GOOS != "linux" {
		if _, err := transform.Exec(transform.ExecOptions{Command: []string{"worker"}, CPU: 1}); err == nil {
			t.Error("a limit that cannot be kept is taken")
		}
		return
	}
	p, log := pool(t, "", transform.ExecOptions{Processes: 1, CPU: 2 * time.Second})
	pid := askPid(t, p, "spin 2050ms")
	awaitDead(t, pid)
	await(t, "the reason", func() bool { return strings.Contains(log.String(), "transform.exec.cpu") }) // told after its end
	if strings.Contains(log.String(), "ended with records") {
		t.Errorf("it was replaced with records")
	}
	pid = askPid(t, p, "pid")
	_, err := ask(t.Context(), p, 1, "spin 1000s")
	if f := execFailure(t, err); f.Kind != processor.Retry || !contains(err.Error(), []string{"of CPU time, more than the 2s", "transform.exec.cpu"}) {
		t.Errorf("got %v %v, want a retry that names the CPU time", f.Kind, err)
	}
	awaitDead(t, pid)
	if got := mustAsk(t, p, "hello"); got != "hello" {
		t.Errorf("got %q", got)
	}
}

// TestExecIDsInFull: an id is read to its end, so that what only begins like the id of a
// record is not taken for its answer.
func TestExecIDsInFull(t *testing.T) {
	for _, id := range []string{"1e+05", "1.5", "1E1", "1x"} {
		p, _ := pool(t, "", transform.ExecOptions{Processes: 1})
		got, err := ask(t.Context(), p, 1, `say {"id":`+id+`,"outputs":[{"value":"of another"}]}`) // its own id is 1
		if err == nil || !strings.Contains(err.Error(), "is no answer") {
			t.Errorf("id %s: got %q and error %v, want the end of the process", id, got, err)
		}
	}
}

func TestExecRepeatedAnswers(t *testing.T) {
	p, log := pool(t, "", transform.ExecOptions{Processes: 1})
	for range 10 {
		if got := mustAsk(t, p, "twice"); got != "once" {
			t.Errorf("got %q, want the first answer", got)
		}
	}
	await(t, "the second answers", func() bool { return strings.Count(log.String(), "a second answer to a record is dropped") == 10 })
}

func TestExecStderrFlood(t *testing.T) {
	p, log := pool(t, "", transform.ExecOptions{Processes: 1})
	if got := mustAsk(t, p, "flood"); got != "flooded" {
		t.Errorf("got %q", got)
	}
	p.Close()
	text := log.String()
	if lines := strings.Count(text, "writes to stderr"); lines < 100 || lines > 1000 || len(text) > 1<<20 {
		t.Errorf("the log has %d lines of stderr and %d bytes, want 100 to 1000 and less than 1 MiB", lines, len(text))
	}
	if !strings.Contains(text, "\"flood 0\"") || !strings.Contains(text, "left_out=") {
		t.Errorf("the log does not begin with the first line, or not say how many are left out:\n%.500s", text)
	}
}

// TestExecGrandchildren hold the pipes of their parent open. They die with their
// group; who has left it holds nobody up.
func TestExecGrandchildren(t *testing.T) {
	p, _ := pool(t, "", transform.ExecOptions{Processes: 1})
	runaway := askPid(t, p, "runaway")
	t.Cleanup(func() { _ = syscall.Kill(runaway, syscall.SIGKILL) })
	child := askPid(t, p, "child")
	if _, err := ask(t.Context(), p, 1, "kill"); execFailure(t, err).Kind != processor.Retry {
		t.Errorf("got %v, want a retry", err)
	}
	awaitDead(t, child)
	if !alive(runaway) {
		t.Error("the runaway has ended: it proves nothing")
	}
	child = askPid(t, p, "child")
	began := time.Now()
	p.Close()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Close took %v", took)
	}
	awaitDead(t, child)
}

// TestExecCloseEndsTheStubborn: end of input and SIGTERM are ignored.
func TestExecCloseEndsTheStubborn(t *testing.T) {
	for _, mode := range []string{"", "stubborn"} {
		p, log := pool(t, mode, transform.ExecOptions{Processes: 1})
		pid := askPid(t, p, "pid")
		began := time.Now()
		p.Close()
		took := time.Since(began)
		if alive(pid) {
			t.Errorf("%q: process %d runs after Close", mode, pid)
		}
		if mode == "" && !strings.Contains(log.String(), "the input has ended") {
			t.Errorf("the process did not end with its input:\n%s", log)
		}
		if mode == "stubborn" && took < time.Second || took > 10*time.Second {
			t.Errorf("%q: Close took %v:\n%s", mode, took, log)
		}
	}
}

// TestExecDiesWithUs kills the parent of a worker. On Linux even a worker that
// ignores the end of its input dies.
func TestExecDiesWithUs(t *testing.T) {
	modes := []string{""}
	if runtime.GOOS == "linux" {
		modes = append(modes, "stubborn")
	}
	for _, mode := range modes {
		parent := exec.Command(os.Args[0], asParent, mode)
		parent.Stderr = os.Stderr
		out, err := parent.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := parent.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		var pid int
		if _, err := fmt.Sscan(line, &pid); err != nil || !alive(pid) {
			t.Fatalf("%q: %v, want the pid of a process that runs", line, err)
		}
		if err := parent.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = parent.Wait() // killed
		awaitDead(t, pid)
	}
}
