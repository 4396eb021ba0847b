package transform

import (
	"context"
	"errors"
	"slices"

	"seriatim/processor"
)

// leastLoaded returns the process with the fewest records, but for the given one;
// nil if none has a place. p.mu is held.
func (p *Pool) leastLoaded(but *process) (least *process) {
	for _, w := range p.ready {
		if w != but && !w.kept && len(w.calls) < p.opts.InFlight && (least == nil || len(w.calls) < len(least.calls)) {
			least = w
		}
	}
	return least
}

// acquire takes a place at the process with the fewest records. It waits until
// there is one, but not while no process gets ready. A second attempt that runs
// beside the first goes to another process if there is one with a place.
func (p *Pool) acquire(ctx context.Context, in processor.Input, alone bool, note func(string)) (_ *process, _ *call, err error) {
	var kept *process // for a call that is to be alone
	defer func() {
		if err != nil && kept != nil {
			p.share(kept)
		}
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	var has *process // the record now, of which this is a second attempt
	if in.Asked != nil {
		has, _ = in.Asked.Load().(*process)
	}
	for {
		var w *process
		if alone {
			w = p.idle(&kept)
		} else if w = p.leastLoaded(has); w == nil && has != nil {
			w = p.leastLoaded(nil)
		}
		switch {
		case p.ctx.Err() != nil:
			return nil, nil, p.fail(processor.Retry, "is being stopped")
		case w != nil:
			if in.Asked != nil {
				in.Asked.Store(w)
			}
			return w, w.call(victim{in.Topic, in.Partition, in.Offset}, note), nil
		case p.unready != nil && len(p.ready) == 0:
			f := p.fail(processor.Deployment, "does not get ready: %w", p.unready)
			f.Unsent = true
			return nil, nil, f
		}
		changed := p.changed
		p.waiting++
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		p.mu.Lock()
		p.waiting--
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
	}
}

// wake has waiting attempts look again. p.mu is held.
func (p *Pool) wake() {
	if p.waiting > 0 {
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

// When a process ends with several calls any one of them may be the reason, and all of
// them have failed. A batch that was among them is therefore alone in its process when it is
// tried again, and a record when that has happened to it twice (most are innocent, and one at a time
// is slow): the one that ends the next process ends it for itself. Without that
// records would lose their attempts beside one that kills.

// A crowdedEnd is the end of a process that had several calls.
type crowdedEnd struct{ err error }

func (e *crowdedEnd) Error() string { return e.err.Error() }
func (e *crowdedEnd) Unwrap() error { return e.err }

// crowded reports whether an attempt ended so.
func crowded(last error) bool {
	var end *crowdedEnd
	return last != nil && errors.As(last, &end)
}

// wasCrowded reports whether the last attempt at one of the records ended so.
func wasCrowded(items []processor.Item) bool {
	return slices.ContainsFunc(items, func(item processor.Item) bool { return crowded(item.Last) })
}

// idle returns a process without calls, of which kept is kept free for the caller; nil if
// it is to wait. p.mu is held.
func (p *Pool) idle(kept **process) *process {
	if *kept == nil || !slices.Contains(p.ready, *kept) {
		if *kept = p.leastLoaded(nil); *kept == nil {
			return nil
		}
		(*kept).kept = true
	}
	for _, c := range (*kept).calls {
		if !c.abandoned {
			return nil
		}
	}
	return *kept
}

// share ends what idle began: a process takes other calls again.
func (p *Pool) share(w *process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.kept = false
	p.wake()
}
