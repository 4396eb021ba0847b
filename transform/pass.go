package transform

import (
	"context"

	"seriatim/processor"
)

// Pass returns a transform that passes every record on as it is: key, value,
// headers and timestamp, with null and empty kept apart.
func Pass() processor.Transform { return processor.TransformFunc(pass) }

func pass(_ context.Context, in processor.Input, out *processor.Outputs) error {
	out.Add(in.Value)
	return nil
}
