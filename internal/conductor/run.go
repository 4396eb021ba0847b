package conductor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"seriatim/internal/history"
	"seriatim/internal/testkafka"
)

// Delivery is a value of the setting of that name.
type Delivery string

// The deliveries.
const (
	AtLeastOnce Delivery = "at_least_once"
	ExactlyOnce Delivery = "exactly_once"
)

// Counts are what happened in a run.
type Counts struct {
	Kills, KillsAtWork, Stops, Undrained, Freezes, Cuts int // of instances
	BrokerKills, BrokerFaults, Moves, Refusals          int
	Lost                                                int // sessions that instances say they lost
	Rebalances                                          int // as instances tell them
	Transactions, Aborted                               int // of instances, as the markers in the output tell
	AbortedCopies                                       int // outputs that only readers of uncommitted records see
	// Standstill is the longest time in which a partition had lag and did not go on,
	// Blocked the longest in which an open transaction held up readers.
	Standstill, Blocked time.Duration
	Still               time.Duration // the longest in which an instance did not run but for moments
	// Of workers in processes of their own: what was killed and frozen in mid-record.
	WorkerKills, WorkerFreezes int
	Hangs, Late                int // calls that were not answered in time, and those of them that were answered at last
	Hedges, Reused             int // second calls, and results from the reply log, as instances tell them
}

// A Result is what a run has come to.
type Result struct {
	Plan    *Plan
	Mode    Delivery
	Counts  Counts
	Verdict history.Verdict
	Void    []string // what should have happened and has not: the run shows nothing
	Dir     string   // logs and configurations
	Took    time.Duration
}

// partitions of the input and the output.
const partitions = 12

// A run is one in progress.
type run struct {
	bed              *bed
	mode             Delivery
	plan             *Plan
	dir              string
	id               string
	in, out, dead    string // topics
	state            string // topic; empty: none
	group            string
	began            time.Time
	worker           *Worker
	work             *history.Workload
	load             *load
	instances        []*instance
	nodes            []*node
	check            *history.Check
	looks            []look
	transactionsSeen markers

	mu     sync.Mutex // guards what follows
	counts Counts
	faults []fault
	notes  *os.File
}

func (r *run) count(f func(*Counts)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.counts)
}

func (r *run) fault(rule history.Rule, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.note("FAULT %s: %s", rule, text)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, fault{rule, text})
}

// note writes to the run's diary.
func (r *run) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = fmt.Fprintf(r.notes, "%s %7.2fs %s\n", time.Now().UTC().Format("15:04:05.000"), time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

// Run carries out a plan and judges it. The diary, the logs and the
// configurations of the instances are in dir afterwards. An error means that
// there is no verdict, because the cluster or the load did not work.
func (b *Bed) Run(ctx context.Context, mode Delivery, plan *Plan, dir string) (*Result, error) {
	ctx, cancel := context.WithTimeout(ctx, plan.Length+6*time.Minute)
	defer cancel()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	notes, err := os.Create(filepath.Join(dir, "diary.log"))
	if err != nil {
		return nil, err
	}
	defer notes.Close()
	id := fmt.Sprintf("%s-%s-%d-%x", strings.ReplaceAll(string(mode), "_", "-"), plan.Name, plan.Seed, time.Now().UnixMilli()&0xffffff)
	r := &run{
		bed: &b.bed, mode: mode, plan: plan, dir: dir, id: id, notes: notes, began: time.Now(),
		in: id + ".in", out: id + ".out", dead: id + ".dead", group: id,
		transactionsSeen: make(markers),
		work: &history.Workload{
			Run: id, Seed: plan.Seed, Start: time.Now(), Mix: plan.Mix, Keys: plan.Keys, Compacted: plan.Compacted,
		},
	}
	began := time.Now()
	err = r.all(ctx)
	for _, i := range r.instances { // none is left, whatever happened
		i.end(syscall.SIGKILL)
		<-i.process.Exited()
	}
	for _, n := range r.nodes {
		_ = n.process.Signal(syscall.SIGKILL) // it may have ended
		<-n.process.Exited()
	}
	if r.worker != nil {
		r.worker.Close()
	}
	if err = errors.Join(err, r.remove(context.WithoutCancel(ctx))); err != nil {
		r.note("no verdict: %v", err)
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	result := &Result{Plan: plan, Mode: mode, Counts: r.counts, Dir: dir, Took: time.Since(began)}
	result.Verdict = r.judge()
	result.Void = r.void(result)
	r.note("%s", result)
	return result, r.evidence(result)
}

// evidence writes what a verdict rests on beside the logs.
func (r *run) evidence(result *Result) error {
	var looks strings.Builder
	fmt.Fprintln(&looks, "seconds\tpartition\tinput\tcommitted\tstable\tend")
	for _, l := range r.looks {
		for p := range partitions {
			fmt.Fprintf(&looks, "%.2f\t%d\t%d\t%d\t%d\t%d\n", l.At.Sub(r.began).Seconds(), p, l.in[p], l.Committed[p], l.stable[p], l.Ends[history.Outputs][p])
		}
	}
	return errors.Join(
		os.WriteFile(filepath.Join(r.dir, "offsets.tsv"), []byte(looks.String()), 0o644),
		os.WriteFile(filepath.Join(r.dir, "faults.txt"), []byte(strings.Join(result.Verdict.All, "\n")), 0o644),
	)
}

// all carries out the run and gathers what the verdict needs.
func (r *run) all(ctx context.Context) error {
	if err := r.prepare(ctx); err != nil {
		return err
	}
	r.began = time.Now()
	load, end := context.WithTimeout(ctx, r.plan.Length+90*time.Second)
	defer end()
	watching, enough := context.WithCancel(ctx)
	defer enough()
	var watch, g errgroup.Group
	watch.Go(func() error { r.watch(watching); return nil })
	g.Go(func() error { return r.load.produce(load, r.plan.Length) })
	g.Go(func() error { return r.play(ctx) })
	err := g.Wait()
	if err == nil {
		err = r.drain(ctx)
	}
	enough()
	_ = watch.Wait()
	if err != nil {
		return err
	}
	r.stopAll(ctx)
	r.stopNodes()
	return r.truth(ctx)
}

// prepare makes topics, worker and instances.
func (r *run) prepare(ctx context.Context) (err error) {
	if err := r.bed.awaitInSync(ctx); err != nil {
		return err
	}
	configs := map[string]*string{"max.message.bytes": kadm.StringPtr("1048588")}
	inputConfigs := configs
	if r.plan.Compacted {
		inputConfigs = map[string]*string{
			"cleanup.policy": kadm.StringPtr("compact"), "segment.ms": kadm.StringPtr("3000"),
			"min.cleanable.dirty.ratio": kadm.StringPtr("0.01"), "delete.retention.ms": kadm.StringPtr("1000"),
			"max.compaction.lag.ms": kadm.StringPtr("3000"),
		}
	}
	for topic, spec := range map[string]struct {
		partitions int32
		configs    map[string]*string
	}{r.in: {partitions, inputConfigs}, r.out: {partitions, configs}, r.dead: {deadPartitions, configs}} {
		if _, err := r.bed.admin.CreateTopic(ctx, spec.partitions, -1, spec.configs, topic); err != nil {
			return err
		}
	}
	granted := rights
	if r.plan.State {
		r.state = r.id + ".state"
		compacted := map[string]*string{"cleanup.policy": kadm.StringPtr("compact")}
		if _, err := r.bed.admin.CreateTopic(ctx, deadPartitions, -1, compacted, r.state); err != nil {
			return err
		}
		granted = append(granted[:len(granted):len(granted)], "acl-state")
	}
	for _, right := range granted {
		if err := r.grant(ctx, right); err != nil {
			return err
		}
	}
	if err := r.bed.awaitInSync(ctx); err != nil {
		return err
	}
	if r.worker, err = StartWorker(r.work, r.plan.Hangs); err != nil {
		return err
	}
	if err := r.startNodes(); err != nil {
		return err
	}
	r.load = &load{cluster: r.bed, plan: r.plan, work: r.work, topic: r.in, run: r.id, fates: make([][]history.Fate, partitions)}
	ports, err := testkafka.FreePorts(r.plan.Instances)
	if err != nil {
		return err
	}
	for n, port := range ports {
		i := &instance{run: r, name: fmt.Sprintf("i%d", n+1), addr: fmt.Sprintf("127.0.0.1:%d", port)}
		if err := i.start(); err != nil {
			return err
		}
		r.instances = append(r.instances, i)
	}
	return nil
}

// play carries out the steps: those of one instance or broker one after another.
// When the time is over everything is made whole again.
func (r *run) play(ctx context.Context) error {
	faults, heal := context.WithTimeout(ctx, r.plan.Length)
	defer heal()
	by := make(map[string][]Step)
	for _, s := range r.plan.Steps {
		whom := s.Whom
		switch {
		case whom[0] == 'n':
			whom = "cluster"
		case s.Do == Refuse:
			whom = "rights"
		}
		by[whom] = append(by[whom], s)
	}
	var g errgroup.Group
	for _, i := range r.instances {
		g.Go(func() error { return i.play(faults, by[i.name]) })
	}
	g.Go(func() error { return r.playCluster(faults, by["cluster"]) })
	g.Go(func() error { return r.playWorkers(faults, by[atWork]) })
	g.Go(func() error { return r.playRights(faults, by["rights"]) })
	err := g.Wait()
	if err == nil {
		err = r.bed.cluster.AwaitReady(ctx)
	}
	r.note("healed")
	return err
}

// betweenBrokers is the least time between two faults of brokers: a cluster that is
// never whole shows only that nothing goes on.
const betweenBrokers = 2 * time.Second

func (r *run) playCluster(ctx context.Context, steps []Step) error {
	for _, s := range steps {
		if !wait(ctx, time.Until(r.began.Add(s.At))) {
			return nil
		}
		r.note("%v", s)
		if s.Do == Move {
			r.count(func(c *Counts) { c.Moves++ })
			if err := r.bed.moveLeaders(ctx); err != nil {
				r.note("leaders do not move: %v", err)
			}
			continue
		}
		node := r.bed.cluster.Nodes[s.Whom[1]-'1']
		r.count(func(c *Counts) {
			if c.BrokerFaults++; s.Do == Kill {
				c.BrokerKills++
			}
		})
		if err := r.bed.breakNode(ctx, node, s); err != nil {
			return fmt.Errorf("%v: %w", s, err)
		}
		r.note("%s is back", s.Whom)
		wait(ctx, betweenBrokers)
	}
	return nil
}

// stopAll ends the instances, which have nothing left to do.
func (r *run) stopAll(ctx context.Context) {
	var g errgroup.Group
	for _, i := range r.instances {
		g.Go(func() error {
			i.alive()
			r.resting(ctx, i)
			if code := i.stop(); code != 0 {
				r.fault(history.Bounds, "%s had nothing left to do and ended with exit code %d: %s", i.name, code, i.log)
			}
			return nil
		})
	}
	_ = g.Wait()
}

// truth reads what the brokers hold.
func (r *run) truth(ctx context.Context) error {
	var end history.End
	var err error
	if err = r.settle(ctx, &end); err != nil {
		return err
	}
	r.examineLogs()
	r.check = history.NewCheck(r.work, history.Options{
		ExactlyOnce: r.mode == ExactlyOnce, Partitions: partitions, DeadPartitions: deadPartitions,
		Topic: r.in, Group: r.group, Attempts: r.plan.Attempts,
		Unclean:     r.counts.Kills + r.counts.Freezes + r.counts.Undrained + r.counts.Lost + r.counts.Cuts + r.counts.BrokerFaults + r.counts.Moves + r.counts.Refusals,
		Zombies:     r.plan.mixes() || r.counts.Lost > 0,
		Lateness:    max(30*time.Second, r.counts.Still+15*time.Second),
		LateCommits: r.plan.mixes(),
	}, r.load.fates)
	control := func(each func(*kgo.Record) error) func(*kgo.Record) error {
		return func(rec *kgo.Record) error {
			if rec.Attrs.IsControl() {
				return nil
			}
			return each(rec)
		}
	}
	if err := r.bed.read(ctx, r.in, partitions, kgo.ReadCommitted(), control(r.check.Input)); err != nil {
		return err
	}
	for _, l := range r.looks {
		r.check.Sample(l.Sample)
	}
	r.times()
	visible := 0
	for sink, topic := range []string{r.out, r.dead} {
		n := []int{partitions, deadPartitions}[sink]
		if err := r.bed.read(ctx, topic, n, kgo.ReadCommitted(), control(func(rec *kgo.Record) error {
			visible++
			r.check.Visible(history.Sink(sink), rec)
			return nil
		})); err != nil {
			return err
		}
		if err := r.bed.read(ctx, topic, n, kgo.ReadUncommitted(), func(rec *kgo.Record) error {
			if rec.Attrs.IsControl() {
				r.transactionsSeen.add(rec)
			} else {
				r.counts.AbortedCopies++
			}
			return nil
		}); err != nil {
			return err
		}
	}
	r.counts.AbortedCopies -= visible
	r.counts.Hangs, r.counts.Late = r.worker.hung()
	r.counts.Transactions, r.counts.Aborted = r.transactionsSeen.counts()
	r.counts.Transactions += r.counts.Aborted
	if r.mode == AtLeastOnce && r.counts.AbortedCopies != 0 {
		r.fault(history.Final, "%d outputs are not visible to readers of committed records", r.counts.AbortedCopies)
	}
	r.check.Finish(end)
	return nil
}

// transactionTimeout is the engine's.
const transactionTimeout = 15 * time.Second

// times judges how long partitions and readers had to wait. Where brokers are out
// they wait for these.
func (r *run) times() {
	still, shut := standstill(r.looks), blocked(r.looks)
	r.counts.Standstill, r.counts.Blocked = still.length(), shut.length()
	r.note("the longest standstill was %v, the longest wait of a reader %v", still, shut)
	const slack = 5 * time.Second
	if most := sessionTimeout + slack; r.plan.Name == "recovery" && still.length() > most {
		r.fault(history.Bounds, "%v had lag and did not go on: more than the session timeout and %v", still, slack)
	}
	if most := transactionTimeout + slack; !r.plan.breaksBrokers() && shut.length() > most {
		r.fault(history.Bounds, "readers of %v were blocked: more than the transaction timeout and %v", shut, slack)
	}
}

// settle waits until no transaction is open any more, as long as that may take,
// and reads the ends.
func (r *run) settle(ctx context.Context, end *history.End) (err error) {
	deadline := time.Now().Add(25 * time.Second) // the transaction timeout is 15 s
	for {
		if end.Committed, err = r.bed.committed(ctx, r.group, r.in, partitions); err != nil {
			return err
		}
		if end.LogEnd, err = r.bed.ends(ctx, r.in, partitions, false); err != nil {
			return err
		}
		done := true
		for sink, topic := range []string{r.out, r.dead} {
			n := []int{partitions, deadPartitions}[sink]
			if end.Stable[sink], err = r.bed.ends(ctx, topic, n, true); err != nil {
				return err
			}
			if end.High[sink], err = r.bed.ends(ctx, topic, n, false); err != nil {
				return err
			}
			for p := range n {
				done = done && end.Stable[sink][p] == end.High[sink][p]
			}
		}
		if end.Open, err = r.bed.openTransactions(ctx); err != nil {
			return err
		}
		if done && len(end.Open) == 0 || time.Now().After(deadline) {
			return nil
		}
		if !wait(ctx, 500*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// judge adds what the conductor and the worker have seen to the verdict.
func (r *run) judge() history.Verdict {
	for _, f := range append(r.faults, r.worker.faults...) {
		r.check.Fault(f.rule, "%s", f.text)
	}
	return r.check.Verdict()
}
