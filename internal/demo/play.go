package demo

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// A play is one kind of demo while it runs.
type play interface {
	title() string
	about() []string
	// frame describes the moment, but for the clock.
	frame(now time.Time) frame
	// stopInput ends the input; it may be called again.
	stopInput()
	// mark begins the verdict: it is about what was sent until now.
	mark()
	// pending counts what the verdict is about and did not come out yet.
	pending() int
	// verdict sums up. It is hurried if there was little time for what was under
	// way. Wrong is what should never happen.
	verdict(now time.Time, hurried bool) (lines []string, wrong bool)
}

const (
	drawEvery = 200 * time.Millisecond
	sayEvery  = 5 * time.Second
	// settleTime is how long the verdict waits for what is still under way.
	settleTime = 20 * time.Second
	// hurryTime is the same for somebody who has pressed Ctrl-C.
	hurryTime = 3 * time.Second
)

// A presenter shows a play.
type presenter struct {
	play
	screen *Screen
	length time.Duration
	keep   bool
	began  time.Time

	judging bool     // the verdict waits for what is under way
	footer  []string // added to the frame's
}

// present shows the play for its length, or until ctx ends, and its verdict. With
// keep it goes on after the verdict until ctx ends, and then gives another one.
func (p *presenter) present(ctx context.Context) (wrong bool) {
	p.began = time.Now()
	p.show(ctx, p.length, func() bool { return false })
	wrong, lines := p.judge(ctx)
	if p.keep && ctx.Err() == nil {
		p.footer = append(p.paint(lines, wrong), "It goes on until Ctrl-C.")
		if !p.screen.live() {
			p.screen.print(p.footer...)
		}
		p.show(ctx, 0, func() bool { return false })
		wrong, lines = p.judge(ctx)
	}
	last := p.now()
	last.footer = nil // there is nothing left to look into
	p.screen.leave(last)
	if p.screen.live() {
		p.screen.print("")
	}
	p.screen.print(p.paint(lines, wrong)...)
	p.screen.Close() // what is still under way may only be told of as unfinished
	return wrong
}

// paint makes a verdict stand out.
func (p *presenter) paint(lines []string, wrong bool) []string {
	tint := good
	if wrong {
		tint = bad
	}
	painted := make([]string, len(lines))
	for i, line := range lines {
		painted[i] = p.screen.view.paint(append(slices.Clone(strong), tint...), line)
	}
	return painted
}

// judge waits until what was sent has come out, for a while, and returns the
// verdict. When ctx ends there is less time.
func (p *presenter) judge(ctx context.Context) (wrong bool, lines []string) {
	if !p.keep || ctx.Err() != nil {
		p.stopInput()
	}
	p.mark()
	p.judging = true
	done := func() bool { return p.pending() == 0 }
	p.show(ctx, settleTime, done)
	hurried := ctx.Err() != nil
	if hurried {
		p.stopInput()
		p.show(context.WithoutCancel(ctx), hurryTime, done)
	}
	p.judging = false
	lines, wrong = p.verdict(time.Now(), hurried)
	return wrong, lines
}

// show shows the play until ctx ends, length has passed (0 is for ever), or done
// says so.
func (p *presenter) show(ctx context.Context, length time.Duration, done func() bool) {
	var end <-chan time.Time
	if length > 0 {
		timer := time.NewTimer(length)
		defer timer.Stop()
		end = timer.C
	}
	draw := time.NewTicker(drawEvery)
	defer draw.Stop()
	say := time.NewTicker(sayEvery)
	defer say.Stop()
	if p.screen.live() {
		p.screen.draw(p.now())
	}
	for !done() {
		select {
		case <-ctx.Done():
			return
		case <-end:
			return
		case <-draw.C:
			f := p.now() // keeps the history, also when it is not shown
			if p.screen.live() {
				p.screen.draw(f)
			}
		case <-say.C:
			if !p.screen.live() {
				p.screen.say(p.now())
			}
		}
	}
}

// now is the frame of this moment.
func (p *presenter) now() frame {
	now := time.Now()
	f := p.frame(now)
	elapsed := now.Sub(p.began).Round(time.Second)
	f.clock = fmt.Sprintf("%v of %v", elapsed, p.length)
	switch {
	case p.judging:
		f.clock = fmt.Sprintf("the verdict waits for %d", p.pending())
	case elapsed > p.length:
		f.clock = elapsed.String()
	}
	f.footer = append(f.footer, p.footer...)
	return f
}
