package transform

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"seriatim/processor"
)

// ExecOptions are the settings of [Exec].
type ExecOptions struct {
	// Command is the program and its arguments. No shell reads it; a program
	// without a slash is looked up in our PATH.
	Command []string
	// Processes is how many run at a time; 2 if zero.
	Processes int
	// InFlight is how many records each of them has at a time; 32 if zero.
	InFlight int
	// Timeout is for one attempt, from handing the record over; 10s if zero.
	Timeout time.Duration
	// Env are names of variables of our environment that the processes get beside
	// PATH, HOME, LANG, TMPDIR and TZ. They get no others.
	Env []string
	// Memory is the most that a process and the rest of its group may take of the
	// machine's memory, in bytes; no limit if zero, the only value where the system
	// is not Linux. It is looked at once a second.
	Memory int64
	// CPU is the most CPU time that a process and its group may take in all; no limit if
	// zero, as with Memory. One that has had it is replaced when it is done with the
	// records that it has, or has taken a quarter more.
	CPU time.Duration
	// LengthPrefixed has messages travel with their length before them, instead of as
	// lines.
	LengthPrefixed bool
	// Logger gets what the processes write to stderr; none if nil.
	Logger *slog.Logger
}

const (
	// startTimeout is the longest that a process may take to say that it is ready.
	startTimeout = 30 * time.Second
	// firstRestart is the wait before a process that ended badly is started again,
	// doubled up to lastRestart until one has answered.
	firstRestart = 100 * time.Millisecond
	lastRestart  = 5 * time.Second
	// crashLoop is how many processes in a row may end with records before one is
	// answered, until it is taken for the fault of the program.
	crashLoop = 3
)

// A Pool asks worker processes, which it starts with the first attempt and keeps
// running. Make one with [Exec].
type Pool struct {
	opts    ExecOptions
	name    string // of the program, in errors: arguments may hold secrets
	log     *slog.Logger
	start   sync.Once
	ctx     context.Context // ends with Close
	stop    context.CancelFunc
	keepers sync.WaitGroup

	mu      sync.Mutex
	ready   []*process    // those that take records
	unready error         // why the last one did not get ready; nil when one has since
	changed chan struct{} // closed when an attempt that waits should look again
	waiting int           // such attempts
	ignored int           // reports about records that a process did not have

	// Since a record was answered last:
	crashes int
	victims map[victim]struct{} // records that were with processes that crashed
}

type victim struct {
	topic     string
	partition int32
	offset    int64
}

// Exec returns a transform that asks processes by the contract in
// docs/workers.md. It starts none yet. The error names every option that is
// wrong.
//
// Each process leads a process group of its own, which is killed when the process
// has ended. On Linux it is killed when we die, in whatever way; elsewhere the end
// of its standard input tells it to end.
func Exec(opts ExecOptions) (*Pool, error) {
	if opts.Processes == 0 {
		opts.Processes = 2
	}
	if opts.InFlight == 0 {
		opts.InFlight = 32
	}
	if opts.Timeout == 0 {
		opts.Timeout = 10 * time.Second
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	var errs []error
	if len(opts.Command) == 0 || opts.Command[0] == "" {
		errs = append(errs, errors.New("command: names no program"))
	}
	if opts.Processes < 0 {
		errs = append(errs, fmt.Errorf("processes: %d is negative", opts.Processes))
	}
	if opts.InFlight < 0 {
		errs = append(errs, fmt.Errorf("in_flight: %d is negative", opts.InFlight))
	}
	if opts.Timeout < 0 {
		errs = append(errs, fmt.Errorf("timeout: %v is negative", opts.Timeout))
	}
	switch {
	case opts.Memory < 0:
		errs = append(errs, fmt.Errorf("memory: %d is negative", opts.Memory))
	case opts.Memory > 0 && !measures:
		errs = append(errs, errors.New("memory: can be limited on Linux only"))
	case opts.CPU < 0:
		errs = append(errs, fmt.Errorf("cpu: %v is negative", opts.CPU))
	case opts.CPU > 0 && !measures:
		errs = append(errs, errors.New("cpu: can be limited on Linux only"))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	name := filepath.Base(opts.Command[0])
	p := &Pool{
		opts:    opts,
		name:    name,
		log:     opts.Logger.With("worker", name),
		changed: make(chan struct{}),
		victims: make(map[victim]struct{}),
	}
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p, nil
}

// Close ends all processes: it closes their standard input, and after half a
// second each sends SIGTERM and SIGKILL to those that are left. Attempts that
// still run fail, and so do later ones.
func (p *Pool) Close() {
	p.start.Do(func() {}) // from now on none is started
	p.stop()
	p.mu.Lock()
	p.wake()
	p.mu.Unlock()
	p.keepers.Wait()
}

// Transform makes one attempt.
func (p *Pool) Transform(ctx context.Context, in processor.Input, out *processor.Outputs) error {
	return p.ask(ctx, in, in.Attempt > 2 && crowded(in.Last), in.SetNote, func(id uint64, deadline time.Time) []byte {
		return appendRequest(make([]byte, 0, 512+len(in.Value)), id, in, deadline)
	}, func(line []byte) error {
		if len(line) > maxLine {
			return p.fail(processor.Reject, "its answer has more than %d bytes; have it answer with less", maxLine)
		}
		return failer(p.fail).answer(new(values), line, in, out)
	})
}

// ask has one process asked, with a line, and the line that is the answer read. in is the
// record, or the first of a batch; alone has no other call in the process.
func (p *Pool) ask(ctx context.Context, in processor.Input, alone bool, note func(string), write func(id uint64, deadline time.Time) []byte, read func(line []byte) error) error {
	p.start.Do(func() {
		for range p.opts.Processes {
			p.keepers.Go(p.keep)
		}
	})
	w, c, err := p.acquire(ctx, in, alone, note)
	if err != nil {
		return err
	}
	if alone {
		defer p.share(w)
	}
	defer c.term.stop()
	line := write(c.id, c.term.end())
	lines := w.lines
	for {
		select {
		case lines <- line:
			lines = nil // sent
		case a := <-c.answer:
			if a.err != nil {
				return a.err
			}
			return read(a.line)
		case <-c.late:
			p.abandon(w, c, true)
			return p.fail(processor.Retry, "%w", &timeoutError{"no answer", "transform.exec.timeout", p.opts.Timeout, time.Since(c.began)})
		case <-ctx.Done():
			if lines != nil {
				p.forget(w, c)
			} else {
				p.abandon(w, c, false)
			}
			return context.Cause(ctx)
		}
	}
}

// fail returns how an attempt failed, beginning with the program.
func (p *Pool) fail(kind processor.Kind, format string, args ...any) *processor.Failure {
	return &processor.Failure{Kind: kind, Err: fmt.Errorf("worker %s: "+format, append([]any{p.name}, args...)...)}
}

// A call is an attempt that a process has been given. What is not the answer's is
// guarded by the pool's mutex.
type call struct {
	id        uint64
	record    victim
	began     time.Time
	term      *term
	late      chan struct{} // closed at the end of the term
	note      func(string)  // takes the worker's notes
	answer    chan response // has room for one
	abandoned bool          // nobody waits for the answer
	overdue   bool          // it was not there in time
}

type response struct {
	line []byte
	err  error
}

// forget gives up an attempt that the process has not been told of. It would never answer
// that, so its place is free.
func (p *Pool) forget(w *process, c *call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(w.calls, c.id)
	p.retired(w)
	p.wake()
}

// abandon gives up an attempt that the process still has. Its place stays taken
// until it is answered. A process that answers nothing, or has half of its
// places taken so, gets no more records and is replaced.
func (p *Pool) abandon(w *process, c *call, timedOut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.abandoned = true
	if !timedOut {
		// The worker may take its time: nobody told it.
		time.AfterFunc(time.Until(c.term.end()), func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.overdue(w, c)
		})
	} else {
		p.overdue(w, c)
	}
	p.retired(w)
	p.wake()
}

// overdue notes that a process has not answered in time. p.mu is held.
func (p *Pool) overdue(w *process, c *call) {
	if w.calls[c.id] != c {
		return // meanwhile it has
	}
	c.overdue = true
	w.overdue++
	if silent := w.heard.Before(c.began) && w.alive.Before(c.began); silent || 2*w.overdue >= p.opts.InFlight {
		p.retireLocked(w, fmt.Errorf("records were not answered within %v; it is replaced", p.opts.Timeout))
	}
	p.retired(w)
}

// retire has a process get no more records, and end when nobody waits for it any more.
func (p *Pool) retire(w *process, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retireLocked(w, why)
	p.retired(w)
}

// retireLocked is the first half of retire. p.mu is held.
func (p *Pool) retireLocked(w *process, why error) {
	if w.retiring == nil {
		w.retiring = why
		p.leaveLocked(w)
	}
}

// retired ends a process that gets no more records when nobody waits for it any
// more. p.mu is held.
func (p *Pool) retired(w *process) {
	if w.retiring == nil {
		return
	}
	for _, c := range w.calls {
		if !c.abandoned {
			return
		}
	}
	w.end(w.retiring)
}

// answered takes an answer to its attempt. The error ends the process.
func (p *Pool) answered(w *process, line []byte, tooLong bool) error {
	id, ok := idOf(line)
	if !ok {
		return fmt.Errorf(`a %s of its output is no answer: it must be a JSON object with an "id"; what is not for Seriatim belongs on stderr`, p.unit())
	}
	r, broken := reportOf(line)
	if r != nil {
		p.reported(w, id, r)
		return nil
	}
	p.mu.Lock()
	c := w.calls[id]
	if c == nil {
		issued := id <= w.issued
		p.mu.Unlock()
		if !issued {
			return fmt.Errorf("it answered id %d, which it was not given", id)
		}
		p.log.Debug("a second answer to a record is dropped", "pid", w.pid, "id", id)
		return nil
	}
	delete(w.calls, id)
	w.heard = time.Now()
	p.crashes = 0
	clear(p.victims)
	late := c.abandoned
	if c.overdue {
		w.overdue-- // its place is free again
	}
	p.retired(w)
	p.wake()
	p.mu.Unlock()
	switch {
	case late:
		p.log.Debug("an answer that came too late is dropped", "pid", w.pid, "id", id)
	case broken != nil:
		c.answer <- response{err: failer(p.fail).judged(broken)}
	case tooLong:
		c.answer <- response{err: p.fail(processor.Reject, "its answer has more than %d bytes; have it answer with less", maxReply)}
	default:
		c.answer <- response{line: slices.Clone(line)}
	}
	return nil
}

// keep keeps one process running until the pool is closed.
func (p *Pool) keep() {
	// The kernel sends the parent-death signal when the thread that started the
	// process ends. This one ends with this goroutine, when the process has ended.
	runtime.LockOSThread()
	var wait time.Duration
	for p.ctx.Err() == nil {
		if p.run() {
			wait = 0
			continue
		}
		wait = min(max(firstRestart, 2*wait), lastRestart)
		select {
		case <-time.After(wait/2 + rand.N(wait/2)):
		case <-p.ctx.Done():
		}
	}
}

// run runs one process to its end. It reports whether the next one can be started
// at once: this one has answered, or was replaced.
func (p *Pool) run() bool {
	w, err := launch(p)
	if err != nil {
		p.failedStart(fmt.Errorf("it cannot be started: %w", err))
		return false
	}
	w.attend(p.ctx)

	p.mu.Lock()
	p.leaveLocked(w)
	served, began := !w.heard.IsZero(), w.began
	calls := p.crash(w)
	p.mu.Unlock()
	switch {
	case p.ctx.Err() != nil:
		p.log.Debug("a worker process was ended", "pid", w.pid, "reason", w.why)
		return false
	case began.IsZero():
		p.failedStart(w.why)
		return false
	case calls > 0:
		p.log.Error("a worker process ended with records, which are tried again", "pid", w.pid, "records", calls, "reason", w.why)
	default:
		p.log.Warn("a worker process ended", "pid", w.pid, "reason", w.why)
	}
	return served
}

// crash fails the attempts that a process had when it ended, and returns their
// number. p.mu is held.
//
// Each is a retry, for any of them may have killed it. But if one process after
// the other dies without an answer, and not all with one and the same record, it is
// the program: the pipeline shall pause instead of using up all attempts. A
// pipeline then finds out by itself if it is one record after all.
func (p *Pool) crash(w *process) (failed int) {
	for _, c := range w.calls {
		if !c.abandoned {
			failed++
			if len(p.victims) < 1000 {
				p.victims[c.record] = struct{}{}
			}
		}
	}
	if failed > 0 {
		p.crashes++
	}
	why := w.why
	if failed > 1 {
		why = &crowdedEnd{w.why}
	}
	kind, words := processor.Retry, "ended with the record: %w"
	if p.crashes >= crashLoop && len(p.victims) > 1 {
		kind, words = processor.Deployment, "one process after the other ends with its records: %w"
	}
	for id, c := range w.calls {
		delete(w.calls, id)
		if !c.abandoned {
			c.answer <- response{err: p.fail(kind, words, why)}
		}
	}
	p.wake()
	return failed
}

// failedStart notes that a process did not get ready.
func (p *Pool) failedStart(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unready == nil || p.unready.Error() != why.Error() {
		p.log.Error("a worker process does not get ready; it is started again, up to 5 s apart", "reason", why)
	}
	p.unready = why
	p.wake()
}

// leave has a process get no more records: they would fail with it.
func (p *Pool) leave(w *process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaveLocked(w)
}

// leaveLocked is leave. p.mu is held.
func (p *Pool) leaveLocked(w *process) {
	p.ready = slices.DeleteFunc(p.ready, func(other *process) bool { return other == w })
}

// join has a process take records.
func (p *Pool) join(w *process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.began = time.Now()
	p.unready = nil
	p.ready = append(p.ready, w)
	p.wake()
	p.log.Info("a worker process is ready", "pid", w.pid)
}
