package demo

import (
	"context"
	"fmt"

	"seriatim/processor"
)

// ask asks a pipeline for its status. It is not ok before the pipeline runs.
func ask(status func(context.Context) (processor.Status, error)) (_ processor.Status, ok bool) {
	ctx, cancel := context.WithTimeout(context.Background(), drawEvery/2)
	defer cancel()
	s, err := status(ctx)
	return s, err == nil
}

// headOf describes the head of a partition.
func headOf(name string, p processor.PartitionStatus) head {
	h := head{name: name, idle: p.Head == nil, stopped: p.Stopped != ""}
	if h.idle {
		return h
	}
	h.offset, h.age, h.attempt, h.behind = p.Head.Offset, p.Head.Age, p.Head.Attempt, p.Head.Behind
	switch {
	case p.Head.Running:
		h.doing = "being transformed"
	case p.Head.Attempt == 0:
		h.doing = "waits for a worker"
	default:
		h.doing = "waits for a retry"
	}
	return h
}

// maxProblems is how many problems are shown.
const maxProblems = 4

// problemsOf says in words why records wait that should not.
func problemsOf(s processor.Status) []string {
	var notes []string
	for i, p := range s.Problems {
		if i == maxProblems {
			return append(notes, fmt.Sprintf("and %d more", len(s.Problems)-i))
		}
		notes = append(notes, fmt.Sprintf("%s: %s", p.Scope, p.Reason))
	}
	return notes
}
