package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

// Held are the records that wait for a person to decide, as /api/v1/held tells them.
type Held struct {
	Held []HeldRecord `json:"held"`
	// Unresponsive are the pipelines that do not answer: what they hold is not known.
	Unresponsive []string `json:"unresponsive"`
}

// HeldRecord is one of them.
type HeldRecord struct {
	Pipeline  string       `json:"pipeline"`
	Topic     string       `json:"topic"`
	Partition int32        `json:"partition"`
	Offset    int64        `json:"offset"`
	Timestamp time.Time    `json:"timestamp"`
	Since     time.Time    `json:"since"`
	Attempts  int          `json:"attempts"`
	Note      string       `json:"note,omitempty"`
	Reason    string       `json:"reason"`
	LastError string       `json:"last_error"`
	Key       *Bytes       `json:"key"`
	Value     *Bytes       `json:"value"`
	Headers   []HeldHeader `json:"headers"`
}

// HeldHeader is one header of a held record.
type HeldHeader struct {
	Name  string `json:"name"`
	Value *Bytes `json:"value"`
}

// Bytes are a JSON string if they are UTF-8, else {"base64": "..."}.
type Bytes []byte

// MarshalJSON writes b as text where that is possible.
func (b Bytes) MarshalJSON() ([]byte, error) {
	if utf8.Valid(b) {
		return json.Marshal(string(b))
	}
	return json.Marshal(map[string][]byte{"base64": b})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (b *Bytes) UnmarshalJSON(text []byte) error {
	var s string
	if json.Unmarshal(text, &s) == nil {
		*b = Bytes(s)
		return nil
	}
	var other struct {
		Base64 *[]byte `json:"base64"`
	}
	if err := json.Unmarshal(text, &other); err != nil || other.Base64 == nil {
		return errors.New(`bytes are a string or {"base64": "..."}`)
	}
	*b = *other.Base64
	return nil
}

// valueOf is the value of a record; empty is not null.
func (b *Bytes) valueOf() []byte {
	if b == nil {
		return nil
	}
	return append([]byte{}, *b...)
}

func bytesOf(b []byte) *Bytes {
	if b == nil {
		return nil
	}
	return (*Bytes)(&b)
}

// Decision is what a request says about a held record.
type Decision struct {
	Pipeline  string `json:"pipeline"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Decision  string `json:"decision"` // retry, skip, dead_letter, replace_value, replace_output or replace_outputs
	Attempts  int    `json:"attempts"` // of retry and replace_value; 0 is 1
	Reason    string `json:"reason"`   // for the log
	// Value is [Bytes] for replace_value and replace_output; null is a null value.
	Value json.RawMessage `json:"value,omitempty"`
	// Outputs are the values of the outputs for replace_outputs; nil is a null value.
	Outputs []*Bytes `json:"outputs,omitempty"`
}

func (s *Server) listHeld(w http.ResponseWriter, r *http.Request) {
	list := Held{Held: []HeldRecord{}, Unresponsive: []string{}}
	for _, a := range ask(r.Context(), s.pipelines) {
		if a.err != nil {
			list.Unresponsive = append(list.Unresponsive, a.name)
		}
		for i := range a.status.Partitions {
			p := &a.status.Partitions[i]
			for _, h := range p.Held {
				list.Held = append(list.Held, HeldRecord{
					Pipeline: a.name, Topic: p.Topic, Partition: p.Partition, Offset: h.Offset,
					Timestamp: h.Timestamp, Since: h.Since, Attempts: h.Attempts, Note: h.Note, Reason: h.Reason, LastError: h.LastError,
					Key: bytesOf(h.Key), Value: bytesOf(h.Value), Headers: heldHeaders(h.Headers),
				})
			}
		}
	}
	s.answer(w, list)
}

func heldHeaders(headers []kgo.RecordHeader) []HeldHeader {
	list := make([]HeldHeader, len(headers))
	for i, h := range headers {
		list[i] = HeldHeader{h.Key, bytesOf(h.Value)}
	}
	return list
}

// decideTimeout is how long a decision may take. With a state topic that is read to the
// place where the decision stands.
const decideTimeout = 8 * time.Second

// maxDecision bounds a request: a value may be as large as a record.
const maxDecision = 32 << 20

func (s *Server) decide(w http.ResponseWriter, r *http.Request) {
	d := Decision{Partition: -1, Offset: -1} // what is left out must not mean the first record of all
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxDecision))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		s.problem(w, http.StatusBadRequest, "the decision cannot be read: "+err.Error())
		return
	}
	verdict, err := processor.ParseVerdict(d.Decision)
	if err != nil {
		s.problem(w, http.StatusBadRequest, err.Error())
		return
	}
	for _, p := range s.pipelines {
		if p.Name != d.Pipeline {
			continue
		}
		if d.Partition < 0 || d.Offset < 0 {
			s.problem(w, http.StatusBadRequest, "partition and offset: both are needed to name the record")
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), decideTimeout)
		defer cancel()
		decision := processor.Decision{
			Topic: d.Topic, Partition: d.Partition, Offset: d.Offset, Verdict: verdict, Attempts: d.Attempts, Reason: d.Reason,
		}
		if verdict == processor.ReplaceValue || verdict == processor.ReplaceOutput {
			var value *Bytes
			if err := json.Unmarshal(d.Value, &value); err != nil {
				s.problem(w, http.StatusBadRequest, `value: must be a string, {"base64": "..."} or null`)
				return
			}
			decision.Value = value.valueOf()
		}
		if verdict == processor.ReplaceOutputs {
			for _, value := range d.Outputs {
				decision.Outputs = append(decision.Outputs, value.valueOf())
			}
		}
		switch err := p.Decide(ctx, decision); {
		case err == nil:
			s.answer(w, struct{}{})
		case errors.Is(err, processor.ErrNotHeld):
			s.problem(w, http.StatusConflict, fmt.Sprintf("%s/%d at offset %d is not held: somebody decided about it, or, without a state topic, its partition is with another instance", d.Topic, d.Partition, d.Offset))
		case errors.Is(err, context.DeadlineExceeded):
			s.problem(w, http.StatusGatewayTimeout, "it is not known what became of the decision: look at /api/v1/held and /readyz?verbose, and say it again")
		default:
			s.problem(w, http.StatusUnprocessableEntity, err.Error())
		}
		return
	}
	s.problem(w, http.StatusNotFound, fmt.Sprintf("there is no pipeline %q", d.Pipeline))
}

func (s *Server) answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	s.write(w, http.StatusOK, body)
}

// problem answers with an error as RFC 9457 has it.
func (s *Server) problem(w http.ResponseWriter, code int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	s.write(w, code, map[string]any{"title": http.StatusText(code), "status": code, "detail": detail})
}

func (s *Server) write(w http.ResponseWriter, code int, body any) {
	w.WriteHeader(code)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(body); err != nil {
		s.log.Debug("the client of the admin API went away", "err", err)
	}
}
