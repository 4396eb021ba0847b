package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"seriatim/processor"
)

// CloseBreaker is a request to close the breaker of a pipeline of this instance.
type CloseBreaker struct {
	Pipeline string `json:"pipeline"`
	Reason   string `json:"reason"` // for the log
}

// maxCloseBreaker bounds such a request.
const maxCloseBreaker = 64 << 10

func (s *Server) closeBreaker(w http.ResponseWriter, r *http.Request) {
	var c CloseBreaker
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCloseBreaker))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		s.problem(w, http.StatusBadRequest, "the request cannot be read: "+err.Error())
		return
	}
	for _, p := range s.pipelines {
		if p.Name != c.Pipeline {
			continue
		}
		ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
		defer cancel()
		switch err := p.CloseBreaker(ctx, c.Reason); {
		case err == nil:
			s.answer(w, struct{}{})
		case errors.Is(err, processor.ErrBreakerClosed):
			s.problem(w, http.StatusConflict, fmt.Sprintf("the breaker of %s is not open here: each instance has its own", c.Pipeline))
		case errors.Is(err, context.DeadlineExceeded):
			s.problem(w, http.StatusGatewayTimeout, "the pipeline does not answer: look at /livez, and say it again")
		default:
			s.problem(w, http.StatusUnprocessableEntity, err.Error())
		}
		return
	}
	s.problem(w, http.StatusNotFound, fmt.Sprintf("there is no pipeline %q", c.Pipeline))
}
