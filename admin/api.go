package admin

import (
	"net/http"
	"time"

	"seriatim/processor"
)

// The JSON of /api/v1/pipelines. Times are RFC 3339, durations are in seconds,
// and what is not known is null. docs/http.md describes the fields.
type (
	pipelinesJSON struct {
		Pipelines []pipelineJSON `json:"pipelines"`
	}
	pipelineJSON struct {
		Name             string             `json:"name"`
		Group            string             `json:"group"`
		State            string             `json:"state"`
		Problems         []problemJSON      `json:"problems"`
		Workers          int                `json:"workers"`
		WorkersBusy      int                `json:"workers_busy"`
		WindowBytes      int64              `json:"window_bytes"`
		WindowLimitBytes int64              `json:"window_limit_bytes"`
		Attempts         map[string]uint64  `json:"attempts"`
		RetriesWaiting   int                `json:"retries_waiting"`
		BreakerOpen      bool               `json:"breaker_open"`
		Hedges           uint64             `json:"hedges"`
		Commits          map[string]uint64  `json:"commits"`
		Transactions     map[string]uint64  `json:"transactions"`
		Rebalances       uint64             `json:"rebalances"`
		LimitedBy        map[string]float64 `json:"limited_by"`
		Partitions       []partitionJSON    `json:"partitions"`
	}
	problemJSON struct {
		Scope  string     `json:"scope"`
		Reason string     `json:"reason"`
		Since  *time.Time `json:"since"`
	}
	partitionJSON struct {
		Topic              string            `json:"topic"`
		Partition          int32             `json:"partition"`
		WindowRecords      int               `json:"window_records"`
		WindowLimitRecords int               `json:"window_limit_records"`
		WindowBytes        int64             `json:"window_bytes"`
		SpilledRecords     int               `json:"spilled_records"`
		Head               *headJSON         `json:"head"`
		NextOffset         *int64            `json:"next_offset"`
		CommittedOffset    *int64            `json:"committed_offset"`
		EndOffset          *int64            `json:"end_offset"`
		LagRecords         *int64            `json:"lag_records"`
		LagSeconds         *float64          `json:"lag_seconds"`
		CommitAgeSeconds   *float64          `json:"commit_age_seconds"`
		Paused             bool              `json:"paused"`
		TailWithoutRecords bool              `json:"tail_without_records"`
		Stopped            string            `json:"stopped"`
		Emitted            uint64            `json:"emitted"`
		Settled            uint64            `json:"settled"`
		Filtered           uint64            `json:"filtered"`
		Dropped            uint64            `json:"dropped"`
		DeadLetters        map[string]uint64 `json:"dead_letters"`
		GapOffsets         map[string]uint64 `json:"gap_offsets"`
	}
	headJSON struct {
		Offset     int64     `json:"offset"`
		Timestamp  time.Time `json:"timestamp"`
		AgeSeconds float64   `json:"age_seconds"`
		Attempt    int       `json:"attempt"`
		Running    bool      `json:"running"`
		LastError  string    `json:"last_error"`
		Behind     int       `json:"behind"`
	}
)

// unresponsive is the state of a pipeline that does not tell its own.
const unresponsive = "unresponsive"

func (s *Server) listPipelines(w http.ResponseWriter, r *http.Request) {
	list := pipelinesJSON{Pipelines: []pipelineJSON{}}
	for _, a := range ask(r.Context(), s.pipelines) {
		list.Pipelines = append(list.Pipelines, toPipelineJSON(&a))
	}
	s.answer(w, list)
}

func toPipelineJSON(a *answer) pipelineJSON {
	s := a.status
	p := pipelineJSON{
		Name: a.name, Group: s.Group, State: s.State,
		Problems: []problemJSON{},
		Workers:  s.Workers, WorkersBusy: s.WorkersBusy,
		WindowBytes: s.WindowBytes, WindowLimitBytes: s.WindowLimitBytes,
		Attempts: counts(s.Attempts), RetriesWaiting: s.RetriesWaiting, BreakerOpen: s.BreakerOpen, Hedges: s.Hedges, Commits: counts(s.Commits), Transactions: counts(s.Transactions), Rebalances: s.Rebalances,
		LimitedBy:  counts(s.LimitedBy),
		Partitions: []partitionJSON{},
	}
	if a.err != nil {
		p.State = unresponsive
	}
	for _, problem := range problemsOf(&s) {
		p.Problems = append(p.Problems, problemJSON{problem.Scope, problem.Reason, known(problem.Since, !problem.Since.IsZero())})
	}
	for i := range s.Partitions {
		p.Partitions = append(p.Partitions, toPartitionJSON(&s.Partitions[i]))
	}
	return p
}

func toPartitionJSON(p *processor.PartitionStatus) partitionJSON {
	j := partitionJSON{
		Topic: p.Topic, Partition: p.Partition,
		WindowRecords: p.WindowRecords, WindowLimitRecords: p.WindowLimitRecords,
		WindowBytes: p.WindowBytes, SpilledRecords: p.SpilledRecords,
		NextOffset:       known(p.NextOffset, p.NextOffset >= 0),
		CommittedOffset:  known(p.CommittedOffset, p.CommittedOffset >= 0),
		EndOffset:        known(p.EndOffset, p.EndOffset >= 0),
		LagRecords:       known(p.LagRecords, lagKnown(p)),
		LagSeconds:       known(p.LagTime.Seconds(), p.NextOffset >= 0),
		CommitAgeSeconds: known(p.CommitAge.Seconds(), p.CommittedOffset >= 0),
		Paused:           p.Paused, TailWithoutRecords: p.TailWithoutRecords, Stopped: p.Stopped,
		Emitted: p.Emitted, Settled: p.Settled, Filtered: p.Filtered, Dropped: p.Dropped,
		DeadLetters: counts(p.DeadLetters), GapOffsets: counts(p.GapOffsets),
	}
	if h := p.Head; h != nil {
		j.Head = &headJSON{
			Offset: h.Offset, Timestamp: h.Timestamp, AgeSeconds: h.Age.Seconds(),
			Attempt: h.Attempt, Running: h.Running, LastError: h.LastError, Behind: h.Behind,
		}
	}
	return j
}

// counts makes an empty map an object in JSON, not null.
func counts[T any](m map[string]T) map[string]T {
	if m == nil {
		return map[string]T{}
	}
	return m
}

// known returns v, or nil, which is null in JSON, where v is not known.
func known[T any](v T, ok bool) *T {
	if !ok {
		return nil
	}
	return &v
}
