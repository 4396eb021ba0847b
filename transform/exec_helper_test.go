package transform_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
	"seriatim/transform"
)

// The test binary is also the worker process, and the parent of one, if it is told
// so by its arguments: workers have no environment.
const (
	asWorker = "be-a-worker"
	asParent = "be-the-parent-of-a-worker"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == asWorker {
		(&worker{}).run(os.Args[2])
		return
	}
	if len(os.Args) > 2 && os.Args[1] == asParent {
		beParent(os.Args[2])
	}
	os.Exit(m.Run())
}

// A worker does what the values of its records say.
type worker struct {
	frames  bool // its messages have their length before them
	mu      sync.Mutex
	waiting []request
}

type request struct {
	ID    uint64
	Value any
	Batch []struct{ Value any }
	line  string
}

func (w *worker) run(mode string) {
	switch mode {
	case "exit":
		fmt.Fprintln(os.Stderr, "Error: no password for \x1b[31mthe database"+strings.Repeat("\n    at main (worker.js:1:1)", 12)+" {\n  code: 'NO_PASSWORD'\n}\n\nNode.js v20")
		os.Exit(4)
	case "greet wrongly":
		fmt.Fprintln(os.Stdout, "listening on port 9000")
	case "deaf":
		fmt.Fprintln(os.Stdout, `{"seriatim":1}`)
		forever()
	case "stubborn":
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
		fmt.Fprintln(os.Stdout, `{"seriatim":1}`)
	default:
		w.frames = mode == "frames"
		w.say(`{"seriatim":1, "made_by": "a test"}` + "\n")
	}
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := w.hear(in)
		if err != nil {
			if mode == "stubborn" {
				forever()
			}
			fmt.Fprintln(os.Stderr, "the input has ended")
			return
		}
		r := request{line: line}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			panic(err)
		}
		go w.treat(r)
	}
}

// forever waits to be killed.
func forever() {
	for range time.Tick(time.Hour) {
	}
}

// hear reads a message.
func (w *worker) hear(in *bufio.Reader) (string, error) {
	if !w.frames {
		return in.ReadString('\n')
	}
	var length uint32
	if err := binary.Read(in, binary.BigEndian, &length); err != nil {
		return "", err
	}
	frame := make([]byte, length)
	_, err := io.ReadFull(in, frame)
	return string(frame), err
}

// say writes a line, or a part of one. As a frame it has its length before it, and not
// the line break.
func (w *worker) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	if w.frames {
		text = strings.TrimSuffix(text, "\n")
		_ = binary.Write(os.Stdout, binary.BigEndian, uint32(len(text)))
	}
	_, _ = os.Stdout.WriteString(text)
}

func (w *worker) echo(r request, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	w.say(`{"id":%d,"outputs":[{"value":%s}]}`+"\n", r.ID, text)
}

func (w *worker) treat(r request) {
	value, _ := r.Value.(string)
	if len(r.Batch) > 0 { // the first record says it for all
		value, _ = r.Batch[0].Value.(string)
	}
	what, arg, _ := strings.Cut(value, " ")
	switch what {
	case "answer":
		w.say(`{"id":%d,%s}`+"\n", r.ID, arg)
	case "batch": // back again, in the other order
		var parts []string
		for i, item := range slices.Backward(r.Batch) {
			text, err := json.Marshal(item.Value)
			if err != nil {
				panic(err)
			}
			parts = append(parts, fmt.Sprintf(`{"outputs":[{"value":%s}],"id":%d}`, text, i+1))
		}
		w.say(`{"answers":[%s],"id":%d}`+"\n", strings.Join(parts, ","), r.ID)
	case "hang":
	case "crash":
		fmt.Fprintln(os.Stderr, "it hurts:", arg)
		os.Exit(3)
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "say":
		w.say("%s\n", strings.ReplaceAll(arg, "ID", strconv.FormatUint(r.ID, 10)))
	case "half":
		w.say(`{"id":%d,"outputs":[`, r.ID)
		os.Exit(0)
	case "twice":
		w.echo(r, "once")
		w.echo(r, "twice")
	case "long":
		w.echo(r, strings.Repeat("x", 6<<20))
	case "huge":
		w.echo(r, strings.Repeat("x", 40<<20))
	case "endless":
		w.say(`{"id":%d,"outputs":[{"value":"`, r.ID)
		for block := strings.Repeat("x", 1<<20); ; {
			w.say("%s", block)
		}
	case "many":
		w.say(`{"id":%d,"outputs":[{"value":""}%s]}`+"\n", r.ID, strings.Repeat(`,{"value":""}`, 10000))
	case "close":
		os.Stdout.Close()
	case "line":
		w.echo(r, r.line)
	case "environment":
		w.echo(r, strings.Join(os.Environ(), "\n"))
	case "pid":
		w.echo(r, strconv.Itoa(os.Getpid()))
	case "child", "runaway":
		child := exec.Command("sleep", "1000")
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: what == "runaway"}
		if err := child.Start(); err != nil {
			panic(err)
		}
		w.echo(r, strconv.Itoa(child.Process.Pid))
	case "flood":
		out := bufio.NewWriterSize(os.Stderr, 1<<20)
		for i := range 100_000 {
			fmt.Fprintln(out, "flood", i, strings.Repeat("x", i%500))
		}
		fmt.Fprint(out, strings.Repeat("y", 10<<20))
		_ = out.Flush()
		w.echo(r, "flooded")
	case "grow":
		for block := make([]byte, 0); ; {
			block = append(block, make([]byte, 16<<20)...)
			for i := 0; i < len(block); i += 4096 {
				block[i] = 1
			}
			if len(block) > 600<<20 {
				forever()
			}
		}
	case "extend": // by two seconds, so many times, and then answer, or not
		n, then, _ := strings.Cut(arg, " ")
		times, err := strconv.Atoi(n)
		if err != nil {
			panic(err)
		}
		for range times {
			w.say(`{"id":%d,"extend":2000}`+"\n", r.ID)
			<-time.After(200 * time.Millisecond)
		}
		if then == "" {
			w.echo(r, "extended")
		}
	case "foreign": // about the next record, and one that is answered
		w.say(`{"id":%d,"extend":60000}`+"\n"+`{"note":"not mine","id":%d}`+"\n", r.ID+1, r.ID+1)
		w.echo(r, "foreign")
		w.say(`{"id":%d,"extend":60000}`+"\n", r.ID)
	case "raw": // bytes, and then the end
		text, err := strconv.Unquote(arg)
		if err != nil {
			panic(err)
		}
		_, _ = os.Stdout.WriteString(text)
		os.Stdout.Close()
	case "spin": // until the process has taken so much CPU time
		most, err := time.ParseDuration(arg)
		if err != nil {
			panic(err)
		}
		var usage syscall.Rusage
		for time.Duration(usage.Utime.Nano()+usage.Stime.Nano()) < most {
			if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
				panic(err)
			}
		}
		w.echo(r, strconv.Itoa(os.Getpid()))
	case "wait": // for the last
		w.mu.Lock()
		w.waiting = append(w.waiting, r)
		w.mu.Unlock()
	case "last":
		w.mu.Lock()
		waiting := w.waiting
		w.waiting = nil
		w.mu.Unlock()
		w.echo(r, "last")
		slices.Reverse(waiting)
		for _, r := range waiting {
			w.echo(r, r.Value)
		}
	default:
		w.echo(r, r.Value)
	}
}

// pool returns a pool of such workers, closed with the test, and its log.
func pool(t testing.TB, mode string, opts transform.ExecOptions) (*transform.Pool, *logged) {
	t.Helper()
	log := new(logged)
	if opts.Command == nil {
		opts.Command = []string{os.Args[0], asWorker, mode}
	}
	if opts.Timeout == 0 { // a busy machine fails no attempt
		opts.Timeout = time.Minute
	}
	opts.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	p, err := transform.Exec(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		if t.Failed() {
			text := log.String()
			t.Logf("the log:\n%s", text[max(0, len(text)-10_000):])
		}
	})
	return p, log
}

type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// ask makes one attempt at a record, and returns the value of its only output.
func ask(ctx context.Context, p *transform.Pool, offset int64, value string) (string, error) {
	in := input()
	in.Record = &kgo.Record{Topic: in.Topic, Partition: in.Partition, Offset: offset, Timestamp: in.Timestamp, Value: []byte(value)}
	out, err := processor.Call(ctx, p, in)
	switch {
	case err != nil:
		return "", err
	case len(out) != 1:
		return "", fmt.Errorf("%d outputs", len(out))
	}
	return string(out[0].Value), nil
}

// mustAsk is ask for what must be answered.
func mustAsk(t testing.TB, p *transform.Pool, value string) string {
	t.Helper()
	answer, err := ask(t.Context(), p, 1000, value)
	if err != nil {
		t.Fatalf("%s: %v", value, err)
	}
	return answer
}

// askPid returns the pid that a process names.
func askPid(t testing.TB, p *transform.Pool, value string) int {
	t.Helper()
	pid, err := strconv.Atoi(mustAsk(t, p, value))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// alive reports whether a process runs. One that has ended and that nobody has
// waited for does not.
func alive(pid int) bool {
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		_, state, _ := strings.Cut(string(stat), ") ")
		return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
	} else if _, err := os.Stat("/proc/self/stat"); err == nil {
		return false
	}
	return syscall.Kill(pid, 0) == nil
}

func awaitDead(t testing.TB, pid int) {
	t.Helper()
	await(t, fmt.Sprintf("process %d to end", pid), func() bool { return !alive(pid) })
}

func await(t testing.TB, what string, done func() bool) {
	t.Helper()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for deadline := time.After(30 * time.Second); !done(); {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("waited 30s for %s", what)
		}
	}
}

// beParent has a worker and waits to be killed.
func beParent(mode string) {
	p, err := transform.Exec(transform.ExecOptions{Command: []string{os.Args[0], asWorker, mode}, Processes: 1})
	if err == nil {
		var pid string
		if pid, err = ask(context.Background(), p, 1, "pid"); err == nil {
			fmt.Fprintln(os.Stdout, pid)
			forever()
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
