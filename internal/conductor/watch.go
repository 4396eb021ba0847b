package conductor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"seriatim/internal/history"
)

// How often offsets and metrics are looked at.
const (
	sampleInterval = 300 * time.Millisecond
	scrapeInterval = time.Second
)

// watch samples offsets and metrics until ctx ends.
func (r *run) watch(ctx context.Context) {
	var g errgroup.Group
	g.Go(func() error {
		for wait(ctx, sampleInterval) {
			if s, err := r.look(ctx); err == nil { // brokers may be out
				r.looks = append(r.looks, s)
			}
		}
		return nil
	})
	g.Go(func() error {
		for wait(ctx, scrapeInterval) {
			for _, i := range r.instances {
				r.scrape(i)
			}
		}
		return nil
	})
	_ = g.Wait()
}

// A look is a sample with what the bounds of time are judged by.
type look struct {
	history.Sample
	in     []int64 // ends of the input, for readers of committed records
	stable []int64 // ends of the output, for readers of committed records
}

func (r *run) look(ctx context.Context) (l look, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	l.At = time.Now()
	if l.in, err = r.bed.ends(ctx, r.in, partitions, true); err != nil {
		return l, err
	}
	if l.stable, err = r.bed.ends(ctx, r.out, partitions, true); err != nil {
		return l, err
	}
	if l.Committed, err = r.bed.committed(ctx, r.group, r.in, partitions); err != nil {
		return l, err
	}
	if l.Ends[history.Outputs], err = r.bed.ends(ctx, r.out, partitions, false); err != nil {
		return l, err
	}
	l.Ends[history.DeadLetters], err = r.bed.ends(ctx, r.dead, deadPartitions, false)
	return l, err
}

// A pause is a time in which a partition did not go on.
type pause struct {
	partition int
	from, to  time.Time
}

func (p pause) length() time.Duration { return p.to.Sub(p.from) }

func (p pause) String() string {
	return fmt.Sprintf("partition %d from %s to %s", p.partition, p.from.UTC().Format("15:04:05.0"), p.to.UTC().Format("15:04:05.0"))
}

// longest returns the longest time in which the same partition waited in every
// look and nothing of it moved between them.
func longest(looks []look, waits func(l *look, p int) bool, moved func(a, b *look, p int) bool) pause {
	var worst pause
	for p := range partitions {
		var from time.Time
		for i := range looks {
			b := &looks[i]
			if i == 0 || !waits(b, p) || moved(&looks[i-1], b, p) {
				from = b.At
			}
			if now := (pause{p, from, b.At}); now.length() > worst.length() {
				worst = now
			}
		}
	}
	return worst
}

// standstill is the longest time in which a partition had lag and neither an
// output nor a commit came.
func standstill(looks []look) pause {
	return longest(looks,
		func(l *look, p int) bool { return l.Committed[p] < l.in[p] && l.Committed[p] >= 0 },
		func(a, b *look, p int) bool {
			return a.Committed[p] != b.Committed[p] || a.Ends[history.Outputs][p] != b.Ends[history.Outputs][p]
		})
}

// blocked is the longest time in which readers of committed records could not go
// on, because a transaction was open.
func blocked(looks []look) pause {
	return longest(looks,
		func(l *look, p int) bool { return l.stable[p] < l.Ends[history.Outputs][p] },
		func(a, b *look, p int) bool { return a.stable[p] != b.stable[p] })
}

// memoryBase is what a process may take beside its windows.
const memoryBase = 200 << 20

// scrape reads the metrics of the process that runs, and checks its limits.
// It reports whether the process has answered: it may be down, frozen, or have
// just been started.
func (r *run) scrape(i *instance) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	text, err := get(ctx, i.addr, "/metrics")
	if err != nil {
		return false
	}
	m := readMetrics(text)
	if n, limit := m["process_resident_memory_bytes"], float64(windowBytes+memoryBase); n > limit {
		r.fault(history.BoundedMemory, "%s has %.0f MiB, more than %d MiB and its windows", i.name, n/(1<<20), memoryBase>>20)
	}
	if n, limit := m["seriatim_window_records"], m["seriatim_window_limit_records"]; n > limit {
		r.fault(history.BoundedMemory, "the windows of %s have %.0f records, more than %.0f", i.name, n, limit)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	i.scraped = m
	return true
}

// retire adds what a process counted when it has ended.
func (r *run) retire(i *instance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts.Rebalances += int(i.scraped["seriatim_rebalances_total"])
	r.counts.Hedges += int(i.scraped["seriatim_hedges_total"])
	r.counts.Reused += int(i.scraped["seriatim_replies_total{reused}"])
	i.scraped = nil
}

// drainBound is how long the lag may take to go to 0 when all is healed.
const drainBound = 90 * time.Second

// drain waits until everything is done.
func (r *run) drain(ctx context.Context) error {
	deadline := time.Now().Add(drainBound)
	for {
		lag, err := r.lag(ctx)
		if err == nil && lag == 0 {
			r.note("quiet")
			return nil
		}
		for _, i := range r.instances {
			i.alive()
		}
		if time.Now().After(deadline) {
			r.fault(history.Progress, "%v after everything was healed the lag is %d (%v):%s", drainBound, lag, err, r.reasons(ctx))
			return nil
		}
		if !wait(ctx, 250*time.Millisecond) {
			return ctx.Err()
		}
	}
}

func (r *run) lag(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	committed, err := r.bed.committed(ctx, r.group, r.in, partitions)
	if err != nil {
		return 0, err
	}
	ends, err := r.bed.ends(ctx, r.in, partitions, false)
	if err != nil {
		return 0, err
	}
	var lag int64
	for p := range ends {
		lag += ends[p] - max(0, committed[p])
	}
	return lag, nil
}

// reasons are those that instances give for not being ready.
func (r *run) reasons(ctx context.Context) string {
	var text strings.Builder
	for _, i := range r.instances {
		ready, err := get(ctx, i.addr, "/readyz?verbose")
		state, _ := get(ctx, i.addr, "/api/v1/pipelines")
		fmt.Fprintf(&text, "\n%s: %v %s", i.name, err, ready)
		_ = os.WriteFile(filepath.Join(r.dir, i.name+"-state.json"), []byte(state), 0o600)
	}
	return text.String()
}

// resting checks an instance that has nothing to do. What it tells may be a little
// behind.
func (r *run) resting(ctx context.Context, i *instance) {
	var rule history.Rule
	var problem string
	for deadline := time.Now().Add(10 * time.Second); ; {
		rule, problem = r.restless(i)
		if problem == "" {
			return
		}
		if time.Now().After(deadline) || !wait(ctx, 250*time.Millisecond) {
			r.fault(rule, "%s with nothing to do: %s", i.name, problem)
			return
		}
	}
}

func (r *run) restless(i *instance) (history.Rule, string) {
	if !r.scrape(i) {
		return history.Alive, "it does not answer: " + i.log
	}
	r.mu.Lock()
	m := i.scraped
	r.mu.Unlock()
	if lag := m["seriatim_lag_records"]; lag != 0 {
		return history.MetricsAgree, fmt.Sprintf("it says that its lag is %.0f, the brokers say 0", lag)
	}
	if n := m["seriatim_window_records"]; n != 0 {
		return history.MetricsAgree, fmt.Sprintf("it says that %.0f records are in its windows, when all are committed", n)
	}
	// A worker has a goroutine, and may have a connection with two.
	if n, most := m["go_goroutines"], float64(4*r.plan.Workers+150); n > most {
		return history.NoLeak, fmt.Sprintf("it has %.0f goroutines, more than %.0f", n, most)
	}
	if n, most := m["process_open_fds"], float64(r.plan.Workers+150); n > most {
		return history.NoLeak, fmt.Sprintf("it has %.0f open files, more than %.0f", n, most)
	}
	return "", ""
}

// examineLogs looks in all logs for what no instance should ever say, and for
// what it may say when it has lost its session.
func (r *run) examineLogs() {
	logs, _ := filepath.Glob(filepath.Join(r.dir, "i*.log")) // the pattern is good
	for _, name := range logs {
		text, err := os.ReadFile(name)
		if err != nil {
			r.fault(history.Alive, "%v", err)
			continue
		}
		r.counts.Lost += strings.Count(string(text), "the group has taken partitions away")
		r.counts.Undrained += strings.Count(string(text), "the drain deadline passed; what is unfinished")
		for _, bad := range []string{"\npanic: ", "\nfatal error: ", "this is a bug in seriatim", "DATA RACE"} {
			if strings.Contains(string(text), bad) {
				r.fault(history.Alive, "%s says %q", name, strings.TrimSpace(bad))
			}
		}
	}
}
