package processor

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/journal"
	"seriatim/internal/seeded"
	"seriatim/offsets"
	"seriatim/resequence"
)

// A memory is what a tenure knows from the state topic. It begins with a marker that the
// tenure writes: when that comes back, everything before it has been read, and the
// records of the partition may be admitted. From then on the tenure follows what others
// write: decisions, and what came too late.
type memory struct {
	*journal.Memory
	group int32  // generation of the group when the partition was assigned
	name  string // of the marker
	begun bool   // the marker is written; at is known
	at    int32  // partition of the state topic
	next  int64  // offset in it from which on nothing is known
	ready bool
	// generation is ours once ready: higher than that of any owner before. It is raised if one
	// of them turns up later; what we wrote before that has those in former.
	generation int64
	former     []int64
	past       map[string]bool // the names of the markers of owners before
	// unclean says that the process of an earlier tenure has ended in the midst of it:
	// one of the records that were in flight may have killed it.
	unclean bool
	fenced  bool  // another owner has begun: nothing is written any more
	care    trial // records that are counted before each attempt, few at a time
	// finished are records whose result is stored if it waits for long.
	finished []resequence.Seq
}

// kept is what the state topic has of a record, beside its slot.
type kept struct {
	written, durable int32 // attempts: counted, and acknowledged
	cut              int32 // attempts in which processes before this one have ended
	due              bool  // it is lined up when its count is acknowledged
	value            string
}

func (l *loop) newMemory() *memory {
	if l.stateLog == nil {
		return nil
	}
	_, generation := l.consumer.GroupMetadata()
	return &memory{Memory: journal.NewMemory(), group: generation, name: rand.Text(), past: make(map[string]bool), care: trial{most: l.opts.Workers}}
}

// remembers reports whether everything about the partition has been read.
func (t *tenure) remembers() bool { return t.memory == nil || t.memory.ready }

// remember begins to read about tenures that have not begun yet.
func (l *loop) remember() {
	if l.stateLog == nil || l.stateLog.sink == nil {
		return // told by the watcher
	}
	began := false
	for _, t := range l.tenures {
		if m := t.memory; m != nil && !m.begun && t.phase == open {
			m.begun, began = true, true
			m.at = journal.Place(t.topic, t.partition, l.stateLog.sink.partitions)
			m.generation = int64(m.group)
			l.mark(t)
		}
	}
	if began {
		l.follow()
	}
}

// mark writes the marker of a tenure.
func (l *loop) mark(t *tenure) {
	value := journal.Encode(journal.Open{Generation: t.memory.generation, Group: int64(t.memory.group), Instance: l.opts.Instance})
	l.keep(t, "open", t.key(l, -1, journal.KindOpen, t.memory.name), value, nil)
}

// key names a state record about t.
func (t *tenure) key(l *loop, offset int64, kind journal.Kind, by string) journal.Key {
	return journal.Key{Group: l.opts.Source.Group, Topic: t.topic, Partition: t.partition, Offset: offset, Kind: kind, By: by}
}

// ownKey is key of what t itself writes about a record.
func (t *tenure) ownKey(l *loop, offset int64, kind journal.Kind) journal.Key {
	return t.key(l, offset, kind, journal.Owner(t.memory.generation))
}

// recollect takes state records in the order of their log.
func (l *loop) recollect(reads []read) {
	for i := range reads {
		r := &reads[i]
		t := l.tenures[partitionKey{r.record.Topic, r.record.Partition}]
		if r.err != nil {
			l.ignore(r)
		}
		if t == nil || t.memory == nil || t.memory.at != r.partition || r.offset < t.memory.next {
			continue
		}
		t.memory.next = r.offset + 1
		if r.err == nil && t.phase != closed {
			l.learn(t, r)
			if r.record.Kind == journal.KindReply {
				l.boundReplies(t, &r.record)
			}
		}
	}
}

// learn takes one state record about t.
func (l *loop) learn(t *tenure, r *read) {
	m := t.memory
	if r.record.Kind == journal.KindOpen {
		l.sawMarker(t, &r.record)
		return
	}
	effect := m.Apply(&r.record)
	if !m.ready || r.record.Deletes() {
		return
	}
	generation := m.generation
	switch {
	case r.record.Attempts != nil:
		generation = r.record.Attempts.Generation
	case r.record.Reply != nil:
		generation = r.record.Reply.Generation
		m.TakeReply(m.Records[r.record.Offset]) // the window has ours; others come too late
	}
	switch {
	case generation > m.generation:
		l.fence(t)
	case slices.Contains(m.former, generation): // ours
	case effect == journal.Older || generation < m.generation:
		l.ignore(r)
		l.erase(r.record.Key)
	case t.hasCommitted && r.record.Offset < int64(t.committed), effect == journal.Beaten:
		l.erase(r.record.Key)
	case effect == journal.Won:
		l.carryOut(t, r.record.Offset)
	default:
		if seq, held := t.heldAt(r.record.Offset); held && !l.breaker.paused() {
			l.divertBack(t, seq) // if it had to wait for its hold to be read
		}
	}
}

// sawMarker takes the marker of a tenure of the partition, or its end.
func (l *loop) sawMarker(t *tenure, r *journal.Record) {
	m := t.memory
	switch {
	case r.By == m.name:
		if !m.ready && r.Open != nil {
			l.ready(t)
		}
	case !m.ready || r.Open == nil:
		m.Apply(r)
	case m.fenced:
	case !m.past[r.By] && r.Open.Group >= int64(m.group):
		l.fence(t)
	default:
		// It is of an owner before us, and was under way for long. That may have read our marker, and
		// have taken a higher generation.
		m.past[r.By] = true
		m.Apply(r)
		if m.Generation >= m.generation {
			m.former = append(m.former, m.generation)
			l.claim(t)
		}
		l.erase(r.Key)
	}
}

// claim takes a generation that is higher than any that was read, and marks the tenure with it.
func (l *loop) claim(t *tenure) {
	m := t.memory
	m.generation = m.Next(m.group)
	m.Generation = m.generation
	if m.generation != int64(m.group) {
		l.mark(t)
	}
}

// ready begins the work of a tenure: it knows what was known of its partition.
func (l *loop) ready(t *tenure) {
	m := t.memory
	m.ready = true
	l.claim(t) // before those markers go from which others would see that it must be higher
	for name := range m.Open {
		m.unclean, m.past[name] = true, true
		l.erase(t.key(l, -1, journal.KindOpen, name))
	}
	if m.unclean {
		l.log.Warn("the process that had the partition before has ended in the midst of it: its records are counted before they are attempted",
			"topic", t.topic, "partition", t.partition)
	}
	if n := len(m.Records); n > 0 {
		l.log.Info("the state topic knows records of the partition", "topic", t.topic, "partition", t.partition, "records", n)
	}
	if t.hasCommitted {
		l.forget(t, t.committed)
	}
}

// fence notes that another owner has begun. The group will tell soon.
func (l *loop) fence(t *tenure) {
	if !t.memory.fenced {
		t.memory.fenced = true
		l.log.Warn("somebody else has begun with the partition: nothing about it is written to the state topic any more", "topic", t.topic, "partition", t.partition)
	}
}

// forget deletes what is known of records that are done for good. What is read about
// them later is deleted then.
func (l *loop) forget(t *tenure, below offsets.Next) {
	m := t.memory
	if m == nil || !m.ready || m.fenced {
		return
	}
	for offset, k := range m.Records {
		if offset < int64(below) {
			l.forgetRecord(m, k)
		}
	}
	if t.phase != closed {
		l.budget.account(t)
	}
}

func (l *loop) forgetRecord(m *memory, k *journal.Known) {
	m.TakeReply(k)
	if !k.Done {
		k.Done = true
		for _, key := range k.Keys() {
			l.erase(key)
		}
	}
}

// forgive deletes what is known of a record that stops its partition, so that a restart
// tries it anew, as it is meant to.
func (l *loop) forgive(t *tenure, s *slot) {
	if s.kept == nil || t.memory.fenced {
		return
	}
	if k := t.memory.Records[s.record.Offset]; k != nil {
		l.forgetRecord(t.memory, k)
	}
	if s.kept.written > 0 { // perhaps it has not come back yet
		l.erase(t.ownKey(l, s.record.Offset, journal.KindAttempts))
	}
	s.kept = nil
}

// keep is what is kept of a record; it is made if there is a state topic.
func (t *tenure) keep(s *slot) *kept {
	if s.kept == nil && t.memory != nil {
		s.kept = new(kept)
	}
	return s.kept
}

// lineUp puts a record in line for its next attempt, once the state topic has counted it, and
// once it is its turn if it may be the one that kills.
func (l *loop) lineUp(t *tenure, seq resequence.Seq) {
	s := t.window.Slot(seq)
	if k := t.keep(s); k != nil && l.suspect(s) {
		s.state = backoff
		l.suspects.waiting = append(l.suspects.waiting, candidate{t, seq, k, s.ended()})
		return
	}
	l.count(t, seq)
}

// count puts a record in line for its next attempt, once the state topic has counted it.
func (l *loop) count(t *tenure, seq resequence.Seq) {
	s := t.window.Slot(seq)
	k := t.keep(s)
	if k == nil || k.durable > s.begun || seeded.Bug("attempt-before-its-count") {
		t.again(seq)
		l.sched.want(t)
		if k == nil || k.durable > s.begun {
			return
		}
	} else {
		s.state, k.due = backoff, true
	}
	if t.memory.fenced {
		return
	}
	k.written = s.begun + 1
	n := k.written
	l.keep(t, "attempts", t.ownKey(l, s.record.Offset, journal.KindAttempts), journal.Encode(l.attemptsOf(t, s, n, s.begun)), func() {
		k.durable = max(k.durable, n)
		if s := t.window.Slot(seq); k.due && t.phase == open && s != nil && s.kept == k {
			k.due = false
			t.again(seq)
			l.sched.want(t)
		}
	})
}

// uncount takes back that an attempt has begun which met an outage: in that a process may end as often
// as it likes, and its end is not to speak against the record. The attempt is in line again and will not be counted anew.
func (l *loop) uncount(t *tenure, s *slot) {
	if k := s.kept; k != nil && k.written > s.begun && !t.memory.fenced {
		l.restate(t, s, s.begun)
	}
}

// restate writes that so many attempts at a record count. Of none nothing is kept, but what a person
// has decided: the value of the record, and that it is attempted again.
func (l *loop) restate(t *tenure, s *slot, begun int32) {
	key := t.ownKey(l, s.record.Offset, journal.KindAttempts)
	if begun == 0 && !s.decided() {
		l.erase(key)
		return
	}
	l.write("attempts", key, journal.Encode(l.attemptsOf(t, s, begun, begun)), nil)
}

// keepNote writes what an attempt has noted, together with the attempt, which runs.
func (l *loop) keepNote(t *tenure, s *slot) {
	if k := t.keep(s); k != nil && !t.memory.fenced && !l.stateLog.crowded() {
		k.written = max(k.written, s.begun)
		l.write("note", t.ownKey(l, s.record.Offset, journal.KindAttempts), journal.Encode(l.attemptsOf(t, s, s.begun, s.begun-1)), nil)
	}
}

// attemptsOf is what is written of a record with so many attempts, of which so many have ended.
func (l *loop) attemptsOf(t *tenure, s *slot, begun, ended int32) journal.Attempts {
	a := journal.Attempts{
		Generation: t.memory.generation, TopicID: t.idText(), Epoch: &s.record.LeaderEpoch, Begun: begun, Failed: ended - s.kept.cut, Granted: s.granted, First: l.now,
		Note: s.noteText(), Value: s.kept.value,
	}
	if s.first != 0 {
		a.First = l.epoch.Add(time.Duration(s.first))
	}
	if s.failed != nil {
		a.FirstError, a.LastError, a.Error = s.failed.first, s.failed.last, journal.Text(s.failed.err.Error())
	}
	return a
}

// succeeded forgets the count of a record whose attempt has succeeded: should it be attempted
// again, because it was not committed, none of that speaks against it.
func (l *loop) succeeded(t *tenure, s *slot) {
	if s.kept == nil || s.kept.written == 0 || t.memory.fenced {
		return
	}
	s.kept.cut = 0
	if s.decided() {
		l.restate(t, s, 0)
		return
	}
	l.eraseAll(t, s, journal.KindAttempts)
}

// decided reports whether a person has given the record, of which something is kept, a value or further
// attempts. That stays until it is done.
func (s *slot) decided() bool { return s.kept.value != "" || s.granted > 0 }

// eraseAll deletes what there is of one kind about a record: what t has written of it, perhaps
// not read yet, and what others have.
func (l *loop) eraseAll(t *tenure, s *slot, kind journal.Kind) {
	own := t.ownKey(l, s.record.Offset, kind)
	l.erase(own)
	if k := t.memory.Records[s.record.Offset]; k != nil {
		for _, key := range k.Keys() {
			if key.Kind == kind && key != own {
				l.erase(key)
			}
		}
	}
}

// errCutOff is the failure of an attempt of which nobody saw the end.
var errCutOff = errors.New("an attempt was cut off: seriatim ended in the midst of it")

// recall gives a record that was just admitted what is known of it.
func (l *loop) recall(t *tenure, seq resequence.Seq) {
	m, s := t.memory, t.window.Slot(seq)
	known := m.Records[s.record.Offset]
	if known != nil {
		a, r := known.Attempts, known.Reply
		if a != nil && !t.reading(a.TopicID, a.Epoch, s.record) || r != nil && !t.reading(r.TopicID, r.Epoch, s.record) {
			l.forgetRecord(m, known) // of another record
			known = nil
		}
	}
	if known != nil && known.Reply != nil {
		l.reuse(t, seq, m.TakeReply(known)) // the window has it
		return
	}
	if known == nil || known.Attempts == nil {
		if m.unclean && seq < resequence.Seq(l.opts.Window.Records) {
			l.tryWithCare(t, seq)
		}
		return
	}
	a := known.Attempts
	s.kept = &kept{written: a.Begun, durable: a.Begun, cut: a.Begun - a.Failed, value: a.Value}
	s.begun, s.granted = a.Begun, a.Granted
	s.first = int64(a.First.Sub(l.epoch))
	if a.Note != "" {
		s.note = &a.Note
	}
	if a.Error != "" {
		s.failed = &failures{first: a.FirstError, last: a.LastError, err: errors.New(a.Error)}
	}
	if d := known.Replaced(); d != nil {
		l.replaceValue(t, seq, d.Value)
	}
	switch {
	case a.Hold != nil:
		s.remembered(l.now)
		l.hold(t, seq, reasonOf(a.Hold.Why), a.Hold.Reason, a.Hold.Since, false)
		if offset := s.record.Offset; known.Decision != nil {
			l.at(l.now, func() { l.carryOut(t, offset) })
		}
	case a.Begun >= l.allowed(s) && s.kept.cut > 1:
		// The last one was alone. Failures by themselves say nothing: what they exhaust is held,
		// or done, and others were shared with a batch.
		s.state, s.failed = backoff, nil
		s.remember(l.now, errCutOff)
		l.exhausted(t, seq, reasonAttempts, fmt.Sprintf("was attempted %d times, %d of which seriatim did not survive", a.Begun, s.kept.cut))
	default:
		l.tryWithCare(t, seq)
	}
}

// idText is the id of the topic that t reads; empty if it is not known.
func (t *tenure) idText() string {
	if t.topicID == [16]byte{} {
		return ""
	}
	return topicID(t.topicID)
}

// reading reports whether an id is that of the topic that t reads, and an epoch that of a record, as
// far as they are known: neither is another topic with this name, nor what was written in the
// record's place before the log was truncated.
func (t *tenure) reading(id string, epoch *int32, r *kgo.Record) bool {
	return (id == "" || t.idText() == "" || id == t.idText()) && (epoch == nil || *epoch == r.LeaderEpoch)
}

// remembered sees to it that the slot of an exhausted record has a failure.
func (s *slot) remembered(now time.Time) {
	if s.failed == nil {
		s.remember(now, errCutOff)
	}
}

// leave ends what a tenure that ends in good order has in the state topic. Its marker goes,
// and attempts that were given up by us do not count: they say nothing about their records.
func (l *loop) leave(t *tenure) {
	m := t.memory
	if m == nil || !m.begun || m.fenced {
		return
	}
	l.erase(t.key(l, -1, journal.KindOpen, m.name))
	if !m.ready || t.tracker == nil {
		return
	}
	l.storeOf(t, 0)
	for seq := resequence.Seq(t.tracker.Settled()); seq < t.window.Next(); seq++ {
		s := t.window.Slot(seq)
		if s.kept == nil || s.state != waiting && s.state != running && s.state != backoff {
			continue
		}
		begun := s.begun
		if s.state == running {
			begun--
		}
		if begun > 0 || s.kept.written > 0 {
			l.restate(t, s, begun)
		}
	}
}
