package journal

import "seriatim/internal/seeded"

// A Memory is what the state records about one source partition come to, read in the
// order of their log. All that read the same log agree about it, whoever they are.
type Memory struct {
	Generation int64 // the highest one that was read
	// Open are the generations of the tenures that have not ended in good order, by
	// the name in their key.
	Open map[string]int64
	// Records is what is known of single records, by offset.
	Records map[int64]*Known
	Replies int64 // bytes of the replies in Records, with what they cost beside that
}

// Known is what is known of one record.
type Known struct {
	Attempts *Attempts // nil: none was counted
	Reply    *Reply    // nil: none was stored, or it was taken
	// Decision won about the hold in Attempts; nil: nobody has decided yet.
	Decision *Decision
	By       string // of Decision
	// Done is for the owner to note that it has deleted the keys. It is unset by a record
	// that comes later.
	Done bool

	decisions map[string]*Decision // all that are in the log
	keys      map[Key]struct{}     // of all that is in the log
}

// Replaced returns the decision that has given the record another value, or nil.
func (k *Known) Replaced() *Decision {
	if k.Attempts == nil || k.Attempts.Value == "" {
		return nil
	}
	return k.decisions[k.Attempts.Value]
}

// Held reports whether the record waits for a decision.
func (k *Known) Held() bool { return k.Attempts != nil && k.Attempts.Hold != nil && k.Decision == nil }

// Keys are the state records that are to be deleted when the record is done.
func (k *Known) Keys() []Key {
	keys := make([]Key, 0, len(k.keys))
	for key := range k.keys {
		keys = append(keys, key)
	}
	return keys
}

// NewMemory returns that of an empty log.
func NewMemory() *Memory {
	return &Memory{Open: make(map[string]int64), Records: make(map[int64]*Known)}
}

// An Effect is what a state record has done.
type Effect uint8

// The effects.
const (
	Taken Effect = iota
	// Older is what a lower generation wrote after a higher one, and so after it had lost
	// the partition; it changed nothing.
	Older
	// Won is a decision that is the first one about a hold.
	Won
	// Beaten is a decision about a record that is not held, or was decided about.
	Beaten
)

// Apply takes the next state record about the partition.
func (m *Memory) Apply(r *Record) Effect {
	if r.Kind == KindOpen {
		if r.Open == nil {
			delete(m.Open, r.By)
			return Taken
		}
		// Who begins later has a higher generation, whatever it knew when it wrote its marker.
		generation, known := m.Open[r.By]
		if !known {
			generation = m.Generation + 1
		}
		m.Open[r.By] = max(generation, r.Open.Generation)
		m.Generation = max(m.Generation, m.Open[r.By])
		return Taken
	}
	k := m.Records[r.Offset]
	if r.Deletes() {
		if k != nil {
			m.delete(k, r.Key)
			if len(k.keys) == 0 {
				delete(m.Records, r.Offset)
			}
		}
		return Taken
	}
	if k == nil {
		k = &Known{decisions: make(map[string]*Decision), keys: make(map[Key]struct{})}
		m.Records[r.Offset] = k
	}
	k.keys[r.Key] = struct{}{}
	k.Done = false
	switch {
	case r.Attempts != nil:
		if k.Attempts != nil && r.Attempts.Generation < k.Attempts.Generation && !seeded.Bug("older-generation-wins") {
			return Older
		}
		m.Generation = max(m.Generation, r.Attempts.Generation)
		k.attempts(r.Attempts)
	case r.Reply != nil:
		if k.Reply != nil && r.Reply.Generation < k.Reply.Generation {
			return Older
		}
		m.Generation = max(m.Generation, r.Reply.Generation)
		m.TakeReply(k)
		k.Reply = r.Reply
		m.Replies += k.Reply.size()
	case r.Decision != nil:
		k.decisions[r.By] = r.Decision
		if !k.Held() {
			return Beaten
		}
		k.Decision, k.By = r.Decision, r.By
		return Won
	}
	return Taken
}

// attempts takes newer attempts. They end a hold, or begin another one, if there were
// more of them since, or if it is younger: no topic took what a decision made of the record.
func (k *Known) attempts(a *Attempts) {
	old := k.Attempts
	if a.Hold == nil || old == nil || old.Hold == nil || old.Begun != a.Begun || !old.Hold.Since.Equal(a.Hold.Since) {
		k.Decision, k.By = nil, ""
	}
	k.Attempts = a
}

// TakeReply returns the reply of a record, if there is one, and keeps it no longer.
func (m *Memory) TakeReply(k *Known) *Reply {
	reply := k.Reply
	if reply != nil {
		m.Replies -= reply.size()
		k.Reply = nil
	}
	return reply
}

func (m *Memory) delete(k *Known, key Key) {
	delete(k.keys, key)
	switch {
	case key.Kind == KindAttempts && k.Attempts != nil && Owner(k.Attempts.Generation) == key.By:
		k.Attempts, k.Decision, k.By = nil, nil, ""
	case key.Kind == KindReply && k.Reply != nil && Owner(k.Reply.Generation) == key.By:
		m.TakeReply(k)
	case key.Kind == KindDecision:
		delete(k.decisions, key.By)
		if k.By == key.By {
			k.Decision, k.By = nil, ""
		}
	}
}

// Next is the generation of the owner that comes now. It is that of the group, which
// grows with every owner, unless the group was made anew or has let a static member in
// again without a new one.
func (m *Memory) Next(group int32) int64 { return max(int64(group), m.Generation+1) }
