package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// rebalances measure what readers of the output see when instances come and go.
var rebalances = []trial{
	{name: "rebalance, 100 partitions", times: 7, bars: true, run: rebalance(100, false)},
	{name: "rebalance, 100 partitions, a death", times: 3, run: rebalance(100, true)},
	{name: "rebalance, 1,000 partitions", times: 1, run: rebalance(1000, true)},
}

// A group is two instances of which the second comes and goes, while a flow passes.
type group struct {
	program       *build
	broker        string
	pipeline      string
	first, second *instance
	all           int // partitions
}

// A change is one that the group went through, and which partitions the first instance kept.
type change struct {
	name     string
	from, to time.Time
	kept     map[int32]bool
}

// rebalance sends 2,000 records a second through the group while its second instance joins,
// leaves and, if death, joins again and dies. The longest time that a record took around a change is the pause:
// each partition gets one every 50 ms, or 500 ms.
func rebalance(partitions int, death bool) func(context.Context, *bed) ([]figure, error) {
	return func(ctx context.Context, b *bed) ([]figure, error) {
		program, err := b.program(ctx)
		if err != nil {
			return nil, err
		}
		in, out, err := b.pairOfTopics(ctx, int32(partitions))
		if err != nil {
			return nil, err
		}
		config := passConfig(in, out, passing)
		config = strings.Replace(config, "start: earliest", "start: earliest, session_timeout: 6s", 1)
		config += "    drain_timeout: 30s\n" // with a thousand partitions 10 s were not enough
		g := &group{program: program, broker: b.brokers[0], pipeline: config, all: partitions}
		if g.first, err = program.startInstance(g.broker, "first", config); err != nil {
			return nil, err
		}
		if err := g.settle(ctx); err != nil {
			return nil, err
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		const rate = 2000
		f := flow{in: in, out: out, partitions: partitions, at: steadily(rate*35, rate), again: true}
		if death {
			f.at = steadily(rate*70, rate)
		}
		var passed passage
		flowed := make(chan error, 1)
		go func() {
			var err error
			passed, err = f.run(ctx, b)
			flowed <- err
		}()
		changes, err := g.change(ctx, death)
		if err != nil {
			cancel()
			_ = <-flowed // what the change says comes first
			return nil, err
		}
		if err := <-flowed; err != nil {
			return nil, err
		}
		if err := g.first.leave(); err != nil {
			return nil, err
		}
		return pauses(changes, passed, partitions), b.remove(ctx, in, out)
	}
}

// change has the second instance come and go.
func (g *group) change(ctx context.Context, death bool) ([]change, error) {
	var changes []change
	steps := []struct {
		name string
		do   func() error
	}{
		{"nothing changes", func() error { return pause(ctx, time.After(settling)) }},
		{"an instance joins", g.join},
		{"an instance leaves", func() error { return g.part((*instance).leave) }},
		{"an instance joins again", g.join},
		{"an instance dies (session_timeout 6 s)", func() error { return g.part((*instance).kill) }},
	}
	if !death {
		steps = steps[:3]
	}
	for _, step := range steps {
		if err := pause(ctx, time.After(settling)); err != nil {
			return nil, err
		}
		before, err := g.first.partitions(ctx)
		if err != nil {
			return nil, err
		}
		c := change{name: step.name, from: time.Now()}
		if err := step.do(); err != nil {
			return nil, err
		}
		if err := g.settle(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
		c.to = time.Now().Add(time.Second)
		after, err := g.first.partitions(ctx)
		if err != nil {
			return nil, err
		}
		maps.DeleteFunc(before, func(p int32, _ bool) bool { return !after[p] })
		c.kept = before
		changes = append(changes, c)
	}
	return changes, nil
}

func (g *group) join() (err error) {
	g.second, err = g.program.startInstance(g.broker, "second", g.pipeline)
	return err
}

func (g *group) part(how func(*instance) error) error {
	gone := g.second
	g.second = nil
	return how(gone)
}

// settle waits until the instances share all partitions evenly.
func (g *group) settle(ctx context.Context) error {
	return until(ctx, "the group has not settled", func() (bool, error) {
		members := []*instance{g.first}
		if g.second != nil {
			members = append(members, g.second)
		}
		for _, member := range members {
			assigned, err := member.partitions(ctx)
			if err != nil || len(assigned) != g.all/len(members) {
				return false, err
			}
		}
		return true, nil
	})
}

// pauses are the longest times that records took around the changes.
func pauses(changes []change, p passage, partitions int) []figure {
	var figures []figure
	for _, c := range changes {
		from, to := c.from.Sub(p.begin), c.to.Sub(p.begin)
		var kept, moved time.Duration
		for i, arrived := range p.arrived {
			if arrived < from || arrived > to {
				continue
			}
			took := p.seen[i] - arrived
			if c.kept[int32(i%partitions)] {
				kept = max(kept, took)
			} else {
				moved = max(moved, took)
			}
		}
		var bar float64
		if slices.Contains([]string{"an instance joins", "an instance leaves"}, c.name) {
			bar = 100
		}
		figures = append(figures, milliseconds(fmt.Sprintf("%s: pause of the %d that stay", c.name, len(c.kept)), kept, bar))
		if moved > 0 {
			figures = append(figures, milliseconds("... of those that move", moved, 0))
		}
	}
	return append(figures, figure{name: "records repeated", value: float64(p.repeated)})
}
