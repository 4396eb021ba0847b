package conductor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v4"

	"seriatim/internal/history"
	"seriatim/internal/testkafka"
)

// What every instance is configured with.
const (
	sessionTimeout = 6 * time.Second
	drainTimeout   = 10 * time.Second
	deadPartitions = 4
	windowBytes    = 64 << 20
)

// An instance is a place that processes of the binary follow each other in, under
// one name. One goroutine at a time starts and ends them.
type instance struct {
	run     *run
	name    string
	addr    string // of the admin server
	process *testkafka.Process
	log     string // file of the process
	starts  int
	told    bool // to end
	frozen  bool
	still   stillness
	scraped metrics // of the process that runs
}

// A stillness is a time in which an instance has not run but for moments: freezes follow
// each other so closely that it wakes up with what it had before the first of them.
type stillness struct{ since, until time.Time }

// add adds a freeze and returns how long the instance has not run by now.
func (s *stillness) add(from, until time.Time) time.Duration {
	if from.Sub(s.until) > sessionTimeout {
		s.since = from
	}
	s.until = until
	return until.Sub(s.since)
}

// settings is a part of a configuration file.
type settings map[string]any

func (i *instance) config() settings {
	p := i.run.plan
	input := settings{
		"topics": []string{i.run.in}, "group": i.run.group, "start": "earliest", "rebalance_timeout": "20s",
	}
	switch p.Protocol {
	case Consumer:
		input["group_protocol"] = "consumer"
	case Static:
		input["static_membership"] = true
		fallthrough
	default:
		input["session_timeout"] = sessionTimeout.String()
	}
	pipeline := settings{
		"name": "chaos", "input": input,
		"workers":       p.Workers,
		"window":        settings{"records": p.Window, "bytes": fmt.Sprintf("%dMiB", windowBytes>>20)},
		"transform":     i.transform(),
		"retry":         settings{"attempts": p.Attempts, "initial": "20ms", "max": "200ms", "budget": p.RetryBudget},
		"hedge":         settings{"after": p.Hedge.String(), "budget": "20%"},
		"on_exhausted":  "dead_letter",
		"dead_letter":   settings{"topic": i.run.dead},
		"output":        settings{"topic": i.run.out},
		"delivery":      string(i.run.mode),
		"commit":        settings{"interval": "500ms"},
		"drain_timeout": drainTimeout.String(),
	}
	if i.run.state != "" {
		pipeline["state"] = settings{"topic": i.run.state, "reply_log": true}
	}
	return settings{
		"instance": i.name,
		"admin":    settings{"listen": i.addr},
		"kafka": settings{
			"brokers": i.run.bed.cluster.FrontBrokers(), "client_id": i.name,
			"sasl": settings{"mechanism": "scram-sha-256", "username": user, "password": password},
		},
		"pipelines": []settings{pipeline},
	}
}

// start starts a process.
func (i *instance) start() error {
	i.starts++
	base := filepath.Join(i.run.dir, fmt.Sprintf("%s-%d", i.name, i.starts))
	i.log = base + ".log"
	text, err := yaml.Marshal(i.config())
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(i.run.dir, i.name+".yaml"), text, 0o600); err != nil {
		return err
	}
	log, err := os.Create(i.log)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(i.run.bed.binary, "run", "-c", filepath.Join(i.run.dir, i.name+".yaml"))
	cmd.Stdout, cmd.Stderr = log, log
	i.process, err = i.run.bed.leash.Start(cmd)
	i.told, i.still = false, stillness{}
	return err
}

func (i *instance) running() bool {
	select {
	case <-i.process.Exited():
		return false
	default:
		return true
	}
}

// play takes the steps of the instance one after another, until ctx ends; then
// the instance is made to run if it does not.
func (i *instance) play(ctx context.Context, steps []Step) error {
	for _, s := range steps {
		if !wait(ctx, time.Until(i.run.began.Add(s.At))) {
			break
		}
		i.alive()
		if err := i.do(ctx, s); err != nil {
			return fmt.Errorf("%v: %w", s, err)
		}
	}
	i.alive()
	if !i.running() {
		return i.start()
	}
	return nil
}

// alive notes an end that nobody asked for, and starts the next process.
func (i *instance) alive() {
	if i.running() || i.told {
		return
	}
	i.run.fault(history.Alive, "%s has ended by itself with exit code %d: %s:\n%s", i.name, i.process.ExitCode(), i.log, i.logTail(15))
	if err := i.start(); err != nil {
		i.run.fault(history.Alive, "%s does not start: %v", i.name, err)
	}
}

func (i *instance) do(ctx context.Context, s Step) error {
	busy := i.run.worker.Busy(i.name)
	for deadline := time.Now().Add(sessionTimeout); busy == 0 && s.Do == Kill && time.Now().Before(deadline) && wait(ctx, 10*time.Millisecond); {
		busy = i.run.worker.Busy(i.name) // a kill is for an instance at work, which may have to join first
	}
	i.run.note("%v (%d calls under way)", s, busy)
	switch s.Do {
	case Kill:
		i.run.count(func(c *Counts) {
			c.Kills++
			if busy > 0 {
				c.KillsAtWork++
			}
		})
		i.end(syscall.SIGKILL)
		<-i.process.Exited()
		i.run.retire(i)
	case Stop:
		i.stop()
	case Freeze:
		from := time.Now()
		i.frozen = true
		err := i.process.Signal(syscall.SIGSTOP)
		wait(ctx, s.Time)
		i.frozen = false
		still := i.still.add(from, time.Now())
		i.run.count(func(c *Counts) { c.Freezes, c.Still = c.Freezes+1, max(c.Still, still) })
		return errors.Join(err, i.process.Signal(syscall.SIGCONT))
	default:
		i.trouble(ctx, s)
		return nil
	}
	wait(ctx, s.Time)
	return i.start()
}

func (i *instance) end(sig syscall.Signal) {
	i.told = true
	_ = i.process.Signal(sig) // it may have ended
}

// stop ends the instance in good order, judges how it did and returns its exit
// code.
func (i *instance) stop() int {
	began := time.Now()
	i.run.scrape(i)
	i.run.count(func(c *Counts) { c.Stops++ })
	i.end(syscall.SIGTERM)
	const slack = 2 * time.Second // the machine is busy
	select {
	case <-i.process.Exited():
	case <-time.After(drainTimeout + 2*time.Second + slack):
		i.run.fault(history.Bounds, "%s has not ended %v after SIGTERM: %s", i.name, drainTimeout+2*time.Second+slack, i.log)
		_ = i.process.Signal(syscall.SIGQUIT) // a picture of all goroutines in the log
		select {
		case <-i.process.Exited():
		case <-time.After(5 * time.Second):
			_ = i.process.Signal(syscall.SIGKILL)
			<-i.process.Exited()
		}
	}
	took := time.Since(began)
	code := i.process.ExitCode()
	switch {
	case code == 0:
	case code == 75:
		i.run.count(func(c *Counts) { c.Undrained++ })
	case code == -1 && !strings.Contains(i.logText(), "seriatim starts"):
		// It had not yet come to listening for signals.
	default:
		i.run.fault(history.Alive, "%s ended with exit code %d when it was told to stop: %s:\n%s", i.name, code, i.log, i.logTail(15))
	}
	i.run.note("%s has stopped with exit code %d after %v", i.name, code, took.Round(time.Millisecond))
	i.run.retire(i)
	return code
}

// trouble sets what happens to the instance's connections.
func (i *instance) trouble(ctx context.Context, s Step) {
	i.run.count(func(c *Counts) { c.Cuts++ })
	for _, p := range i.run.bed.proxies {
		switch s.Do {
		case Cut:
			p.Trouble(i.name, Trouble{Cut: true})
		case Stall:
			p.Trouble(i.name, Trouble{Stall: true})
		case Delay:
			p.Trouble(i.name, Trouble{Delay: 5*time.Millisecond + s.Time/80})
		case HoldUp:
			p.HoldUp(i.name, s.Time, s.Time)
		}
	}
	wait(ctx, s.Time)
	for _, p := range i.run.bed.proxies {
		p.Trouble(i.name, Trouble{})
	}
}

func (i *instance) logText() string {
	text, err := os.ReadFile(i.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (i *instance) logTail(lines int) string {
	all := strings.Split(strings.TrimSpace(i.logText()), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
