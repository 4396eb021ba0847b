package conductor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"seriatim/internal/history"
	"seriatim/internal/testkafka"
)

// Service is who answers instances.
type Service string

// The services. The workers in Node ask the conductor in their turn.
const (
	Own      Service = ""     // the conductor itself, over HTTP
	NodeHTTP Service = "http" // processes that all instances share
	NodeExec Service = "exec" // processes that each instance starts itself
)

// What a plan with workers of its own is configured with.
const (
	nodes       = 3 // processes over HTTP
	callTimeout = 4 * time.Second
	hedgeAfter  = 500 * time.Millisecond
	// lateBy is how long after its timeout a call that hangs is answered, unless
	// it was cancelled.
	lateBy = time.Second
)

// everybody stands for the instance in calls of workers that all of them share.
const everybody = "all"

// transform is the setting of that name.
func (i *instance) transform() settings {
	r := i.run
	switch r.plan.Service {
	case NodeHTTP:
		var urls []string
		for _, n := range r.nodes {
			urls = append(urls, fmt.Sprintf("http://127.0.0.1:%d/", n.port))
		}
		return settings{"http": settings{"urls": urls, "timeout": callTimeout.String()}}
	case NodeExec:
		return settings{"exec": settings{
			"command":   []string{"node", r.bed.script, "stdio", r.worker.URL(i.name)},
			"processes": 2, "in_flight": 32, "timeout": callTimeout.String(),
		}}
	default:
		return settings{"http": settings{"urls": []string{r.worker.URL(i.name)}, "timeout": "30s"}}
	}
}

// A node is a place of a worker process over HTTP.
type node struct {
	run     *run
	name    string
	port    int
	process *testkafka.Process
}

func (n *node) start() error {
	log, err := os.OpenFile(filepath.Join(n.run.dir, n.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("node", n.run.bed.script, "serve", n.run.worker.URL(everybody))
	cmd.Env = append(os.Environ(), fmt.Sprintf("PORT=%d", n.port))
	cmd.Stdout, cmd.Stderr = log, log
	if n.process, err = n.run.bed.leash.Start(cmd); err != nil {
		return fmt.Errorf("the workers of this plan need Node 20: %w", err)
	}
	return nil
}

// startNodes starts the workers that all instances share.
func (r *run) startNodes() error {
	if r.plan.Service != NodeHTTP {
		return nil
	}
	ports, err := testkafka.FreePorts(nodes)
	if err != nil {
		return err
	}
	for k, port := range ports {
		n := &node{run: r, name: fmt.Sprintf("w%d", k+1), port: port}
		if err := n.start(); err != nil {
			return err
		}
		r.nodes = append(r.nodes, n)
	}
	return nil
}

// keep starts a worker again whenever it has ended, until ctx ends.
func (n *node) keep(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.process.Exited():
			n.run.note("%s has ended", n.name)
			wait(ctx, 200*time.Millisecond) // nobody listens there for a moment
			if err := n.start(); err != nil {
				return err
			}
		}
	}
}

// playWorkers takes the steps that are about workers.
func (r *run) playWorkers(ctx context.Context, steps []Step) error {
	var g errgroup.Group
	keeping, enough := context.WithCancel(ctx)
	defer enough()
	for _, n := range r.nodes {
		g.Go(func() error { return n.keep(keeping) })
	}
	killed := 0
	for _, s := range steps {
		if !wait(ctx, time.Until(r.began.Add(s.At))) {
			break
		}
		pid := r.worker.busyPid()
		for deadline := time.Now().Add(time.Second); pid == 0 && time.Now().Before(deadline) && wait(ctx, 10*time.Millisecond); {
			pid = r.worker.busyPid()
		}
		r.note("%v (%d)", s, pid)
		if pid == 0 {
			continue
		}
		if s.Do == Kill {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
			killed = pid
			r.count(func(c *Counts) { c.WorkerKills++ })
			continue
		}
		_ = syscall.Kill(pid, syscall.SIGSTOP)
		r.count(func(c *Counts) { c.WorkerFreezes++ })
		wait(ctx, s.Time)
		_ = syscall.Kill(pid, syscall.SIGCONT) // it may have been replaced
	}
	<-ctx.Done()
	err := g.Wait()
	for _, n := range r.nodes { // one may have been killed at the end
		if n.process.Pid() == killed {
			<-n.process.Exited()
		}
		select {
		case <-n.process.Exited():
			if err == nil {
				err = n.start()
			}
		default:
		}
	}
	return err
}

// stopNodes ends the workers in good order. The instances have ended.
func (r *run) stopNodes() {
	for _, n := range r.nodes {
		_ = n.process.Signal(syscall.SIGTERM)
		select {
		case <-n.process.Exited():
		case <-time.After(15 * time.Second):
			_ = n.process.Signal(syscall.SIGKILL)
			<-n.process.Exited()
		}
		if code := n.process.ExitCode(); code != 0 {
			r.fault(history.Alive, "worker %s ended with exit code %d after SIGTERM, see its log", n.name, code)
		}
	}
	for _, pid := range r.worker.pids() {
		command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.Contains(string(command), r.bed.script) {
			r.fault(history.Alive, "worker process %d is still there when all instances have ended", pid)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
