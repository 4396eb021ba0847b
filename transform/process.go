package transform

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxLine is the longest answer: room for outputs of maxList as JSON.
	maxLine = maxList + 64<<10
	// endless is how long a line may be that is too long, before its process is
	// ended.
	endless = 16 * maxLine
	// stopGrace is how long a process may take to end when its input ends, and then
	// again after SIGTERM, so that a drain keeps its promise.
	stopGrace = 500 * time.Millisecond
	// pipeGrace is how long a pipe is read on when the process has ended, in case
	// that a process which left the group holds it open.
	pipeGrace = 500 * time.Millisecond
	// lookInterval is how often the memory and the CPU time of a process are looked at.
	lookInterval = time.Second
	// lastWords is how many of the last lines of stderr a failure shows, stack frames
	// left out, longestWord how much of each.
	lastWords, longestWord = 5, 300
)

// A process is one worker process. The fields of the second block are guarded by
// the pool's mutex; those of the third are for reading when it has ended.
type process struct {
	pool   *Pool
	cmd    *exec.Cmd
	pid    int
	lines  chan []byte // to be written; has room for all places
	stdin  *os.File
	stdout *os.File
	stderr *os.File
	ready  chan struct{} // closed when it said that it is
	eof    chan struct{} // closed when its output has ended
	ending chan struct{} // closed by end
	gone   chan struct{} // closed when it has ended

	calls    map[uint64]*call
	issued   uint64    // the last id
	began    time.Time // when it was ready
	heard    time.Time // of the last answer
	alive    time.Time // of the last report
	overdue  int       // records that it has not answered in time
	retiring error     // why it gets no more records; nil if it does
	kept     bool      // free for one call, which is to be alone

	endOnce sync.Once
	why     error // of the end
	words   []string
}

// launch starts a process. The calling thread must outlive it.
func launch(p *Pool) (*process, error) {
	w := &process{
		pool:   p,
		cmd:    exec.Command(p.opts.Command[0], p.opts.Command[1:]...),
		lines:  make(chan []byte, p.opts.InFlight),
		ready:  make(chan struct{}),
		eof:    make(chan struct{}),
		ending: make(chan struct{}),
		gone:   make(chan struct{}),
		calls:  make(map[uint64]*call),
	}
	w.cmd.Env = environment(p.opts.Env)
	w.cmd.SysProcAttr = leader()
	// Pipes of our own: those of os/exec are closed at the end of the process, with
	// what it wrote last.
	var theirs [3]*os.File
	var errs [3]error
	theirs[0], w.stdin, errs[0] = os.Pipe()
	w.stdout, theirs[1], errs[1] = os.Pipe()
	w.stderr, theirs[2], errs[2] = os.Pipe()
	err := errors.Join(errs[:]...)
	if err == nil {
		w.cmd.Stdin, w.cmd.Stdout, w.cmd.Stderr = theirs[0], theirs[1], theirs[2]
		err = w.cmd.Start()
	}
	for _, f := range theirs {
		_ = f.Close() // nil where there is none
	}
	if err != nil {
		w.closePipes()
		return nil, err
	}
	w.pid = w.cmd.Process.Pid
	return w, nil
}

func (w *process) closePipes() {
	for _, f := range []*os.File{w.stdin, w.stdout, w.stderr} {
		_ = f.Close() // maybe twice
	}
}

// environment is what a process sees of ours.
func environment(names []string) []string {
	env := []string{} // nil would be all of it
	for _, name := range append([]string{"PATH", "HOME", "LANG", "TMPDIR", "TZ"}, names...) {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// call gives the process a record. The pool's mutex is held.
func (w *process) call(record victim, note func(string)) *call {
	w.issued++
	c := &call{id: w.issued, record: record, began: time.Now(), note: note, late: make(chan struct{}), answer: make(chan response, 1)}
	c.term = newTerm(w.pool.opts.Timeout, func() { close(c.late) })
	w.calls[c.id] = c
	return c
}

// end has the process end. The first reason counts.
func (w *process) end(why error) {
	w.endOnce.Do(func() {
		w.why = why
		close(w.ending)
	})
}

// attend runs the process from its start to its end, and returns when nothing of
// it is left. ctx ends it.
func (w *process) attend(ctx context.Context) {
	var pipes, input sync.WaitGroup
	pipes.Go(w.readAnswers)
	pipes.Go(w.readErrors)
	input.Go(w.write)
	exited := make(chan error, 1)
	go func() { exited <- w.cmd.Wait() }()

	late := time.NewTimer(startTimeout)
	defer late.Stop()
	var look <-chan time.Time // at what it takes
	if w.pool.opts.Memory > 0 || w.pool.opts.CPU > 0 {
		ticker := time.NewTicker(lookInterval)
		defer ticker.Stop()
		look = ticker.C
	}
	var next <-chan time.Time // when to be less patient
	signals := []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}
	ready, eof, ending, done := w.ready, w.eof, w.ending, ctx.Done()
	stop := func() {
		if next == nil {
			_ = w.stdin.Close()
			next = time.After(stopGrace)
		}
	}
	var status error
	for running := true; running; {
		select {
		case <-ready:
			ready = nil
			late.Stop()
			w.pool.join(w)
		case <-late.C:
			w.end(fmt.Errorf(`it has not said {"seriatim":1} within %v`, startTimeout))
		case <-eof: // it ends, or has closed its output
			eof = nil
			if next == nil {
				next = time.After(stopGrace)
			}
		case <-look:
			if err := w.look(); err != nil {
				w.end(err)
				w.signal(syscall.SIGKILL) // it may grow on
			}
		case <-done:
			done = nil
			stop()
		case <-ending:
			ending = nil
			w.pool.leave(w)
			stop()
		case <-next:
			if ctx.Err() == nil {
				w.end(errors.New("it closed its output")) // unless there is another reason
			}
			w.signal(signals[0])
			signals = signals[min(1, len(signals)-1):]
			next = time.After(stopGrace)
		case status = <-exited:
			running = false
		}
	}
	w.signal(syscall.SIGKILL) // whoever is left of its group
	deadline := time.Now().Add(pipeGrace)
	_ = w.stdout.SetReadDeadline(deadline)
	_ = w.stderr.SetReadDeadline(deadline)
	pipes.Wait()
	_ = w.stdin.Close()
	close(w.gone)
	input.Wait()
	w.closePipes()
	w.endOnce.Do(func() { w.why = ended(status) })
	if len(w.words) > 0 {
		w.why = fmt.Errorf("%w; its last words: %s", w.why, strings.Join(w.words, " "))
	}
}

// look looks at what the process takes. The error says why it must go at once. One that
// has had its CPU time may finish the records that it has, for a quarter of that time more.
func (w *process) look() error {
	opts := &w.pool.opts
	memory, cpu := usageOf(w.pid)
	if opts.Memory > 0 && memory > opts.Memory {
		return fmt.Errorf("it takes %d MiB of memory, more than the %d MiB that it may (transform.exec.memory)", memory>>20, opts.Memory>>20)
	}
	if opts.CPU == 0 || cpu <= opts.CPU {
		return nil
	}
	err := fmt.Errorf("it has taken %v of CPU time, more than the %v that it may (transform.exec.cpu)", cpu.Round(100*time.Millisecond), opts.CPU)
	if cpu > opts.CPU+opts.CPU/4 {
		return err
	}
	w.pool.retire(w, err)
	return nil
}

func ended(status error) error {
	if status == nil {
		return errors.New("it ended by itself (exit status 0)")
	}
	return fmt.Errorf("it ended (%w)", status)
}

// signal sends to the whole group.
func (w *process) signal(s syscall.Signal) { _ = syscall.Kill(-w.pid, s) }

// write hands records over. Lines that are there together are written together.
func (w *process) write() {
	out := bufio.NewWriterSize(w.stdin, 64<<10)
	for {
		select {
		case line := <-w.lines:
			w.pool.message(out, line) // after an error the process ends, or is ended when it answers nothing
			if len(w.lines) == 0 {
				_ = out.Flush()
			}
		case <-w.gone:
			return
		}
	}
}

// readAnswers reads standard output to its end.
func (w *process) readAnswers() {
	defer close(w.eof)
	messages := w.pool.reader(w.stdout)
	line, tooLong, err := messages.next()
	if errors.Is(err, errEndless) {
		w.end(err)
	}
	if err != nil {
		return
	}
	var hello struct{ Seriatim int }
	if json.Unmarshal(line, &hello) != nil || hello.Seriatim != 1 || tooLong {
		// It has had no record yet, so this holds none.
		w.end(fmt.Errorf(`its first %s is not {"seriatim":1}, but %.100q: print everything else to standard error`, w.pool.unit(), line))
	} else {
		close(w.ready)
	}
	for {
		line, tooLong, err := messages.next()
		if errors.Is(err, errEndless) {
			w.end(err)
		}
		if err != nil { // what stands behind the last line break, or is less than its length, is no answer
			return
		}
		select {
		case <-w.ending:
		default:
			err = w.pool.answered(w, line, tooLong)
		}
		if err != nil {
			w.end(err)
		}
	}
}

// stackFrame reports whether a line, of which text is what stands in it, is the place of
// a call in Node, Java and the like: there, what went wrong comes before a dozen of these.
func stackFrame(line []byte, text string) bool {
	return (line[0] == ' ' || line[0] == '\t') && strings.HasPrefix(text, "at ")
}

// readErrors reads standard error to its end: into the log, which it does not
// flood.
func (w *process) readErrors() {
	const perSecond, burst = 10, 100
	limit := rate.NewLimiter(perSecond, burst)
	left := 0
	lines := lineReader{Reader: bufio.NewReaderSize(w.stderr, 4<<10), max: longestWord}
	for {
		line, _, err := lines.next()
		if text := strings.TrimSpace(strings.ToValidUTF8(string(line), "\uFFFD")); text != "" {
			if !stackFrame(line, text) {
				w.words = append(w.words, strconv.Quote(text))
				w.words = w.words[max(0, len(w.words)-lastWords):]
			}
			if !limit.Allow() {
				left++
			} else {
				w.pool.log.Info("a worker process writes to stderr", "pid", w.pid, "line", text, "left_out", left)
				left = 0
			}
		}
		if err != nil && !errors.Is(err, errEndless) {
			if left > 0 {
				w.pool.log.Info("a worker process wrote more to stderr", "pid", w.pid, "left_out", left)
			}
			return
		}
	}
}
