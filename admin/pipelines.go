package admin

import (
	"context"
	"sync"
	"time"

	"seriatim/processor"
)

// A Pipeline is one pipeline to show.
type Pipeline struct {
	Name string
	// Status is the Status method of a [processor.Pipeline]. It must return when
	// its context ends; it is called from many goroutines at once.
	Status func(context.Context) (processor.Status, error)
	// Decide is its Decide method; it must return when its context ends.
	Decide func(context.Context, processor.Decision) error
	// CloseBreaker is its CloseBreaker method, likewise.
	CloseBreaker func(ctx context.Context, reason string) error
}

// answerTimeout is how long a pipeline may take to tell its status. It needs
// microseconds; one that takes longer hangs.
const answerTimeout = time.Second

// An answer is what one pipeline said. A status with an error says nothing.
type answer struct {
	name   string
	status processor.Status
	err    error
}

// ask asks all pipelines at once. It returns within answerTimeout, with one
// answer for each, in their order.
func ask(ctx context.Context, pipelines []Pipeline) []answer {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	answers := make([]answer, len(pipelines))
	var asking sync.WaitGroup
	for i, p := range pipelines {
		asking.Go(func() {
			status, err := p.Status(ctx)
			answers[i] = answer{name: p.Name, status: status, err: err}
		})
	}
	asking.Wait()
	return answers
}
