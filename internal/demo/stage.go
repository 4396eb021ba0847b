package demo

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

// A stage is what runs while a play is shown. A play embeds its own.
type stage struct {
	client  []kgo.Opt
	runs    []func(context.Context) error // until the context ends; the end of one ends the play
	inputs  []string                      // topics that get records
	record  func(partition int32, n int64) *kgo.Record
	outputs []string // topics that are read
	see     func(r *kgo.Record, now time.Time)

	feed     *feed
	endInput context.CancelFunc
}

// perform shows the play. All run until the verdict is given, whatever happens to ctx.
func (s *stage) perform(ctx context.Context, p play, opts Options) (wrong bool, err error) {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	shown, hide := context.WithCancel(ctx)
	defer hide()
	var parts sync.WaitGroup
	failed := make([]error, len(s.runs))
	for i, run := range s.runs {
		parts.Go(func() {
			failed[i] = run(running)
			hide()
		})
	}
	defer func() {
		stop()
		parts.Wait()
		err = errors.Join(append(failed, err)...)
	}()
	reader, err := newReader(s.client, s.outputs)
	if err != nil {
		return false, err
	}
	parts.Go(func() { read(running, reader, s.see) })
	if s.feed, err = newFeed(s.client, s.inputs, s.record); err != nil {
		return false, err
	}
	input, endInput := context.WithCancel(running)
	s.endInput = endInput
	parts.Go(func() { s.feed.run(input) })

	if !opts.Screen.live() {
		opts.Screen.print(append([]string{p.title()}, p.about()...)...)
	}
	show := presenter{play: p, screen: opts.Screen, length: opts.Length, keep: opts.Keep}
	return show.present(shown), nil
}

func (s *stage) stopInput() { s.endInput() }

// runOf is Run of a pipeline. Little is under way at its end, and nobody needs it.
func runOf(p *processor.Pipeline) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := p.Run(ctx); !errors.Is(err, processor.ErrDrainDeadline) {
			return err
		}
		return nil
	}
}
