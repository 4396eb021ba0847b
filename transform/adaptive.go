package transform

import (
	"errors"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"

	"seriatim/processor"
)

// A limiter finds out how many attempts an endpoint takes at once before more of them
// only take longer.
type limiter = adaptivelimiter.AdaptiveLimiter[any]

// firstLimit is where a limiter begins.
const firstLimit = 20

// adapt gives each endpoint a limiter of its own, up to the limit of the set.
func (s *endpoints) adapt() {
	for _, e := range s.all {
		e.limiter = adaptivelimiter.NewBuilder[any]().WithLimits(1, uint(s.limit), uint(min(firstLimit, s.limit))).Build()
	}
}

// room reports whether the endpoint takes one more attempt.
func (e *endpoint) room(limit int) bool {
	if e.limiter != nil {
		return e.limiter.CanAcquirePermit()
	}
	return e.inFlight < limit
}

// measure tells the limiter how long the attempt took: if it was answered, or timed out.
// Other failures say nothing about the load, however fast they come.
func (l lease) measure(err error) {
	if l.permit == nil {
		return
	}
	var late *timeoutError
	var failure *processor.Failure
	if err == nil || errors.As(err, &late) || errors.As(err, &failure) && failure.Kind == processor.Reject {
		l.permit.Record()
	} else {
		l.permit.Drop()
	}
}
