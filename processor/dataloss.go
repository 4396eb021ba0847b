package processor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/offsets"
)

// OnDataLoss says what becomes of a partition whose log does not have the offset
// that comes next: it was deleted, or the log ends before it. What is missing is
// logged and counted in any case.
type OnDataLoss uint8

const (
	// LossStop stops the partition before what is missing.
	LossStop OnDataLoss = iota
	// LossEarliest goes on at the beginning of the log; after a truncation, where
	// the logs part.
	LossEarliest
	// LossLatest goes on at the end of the log.
	LossLatest
)

// gapKind is why offsets have no record, as gap_offsets_total tells it.
type gapKind uint8

const (
	gapAbsent    gapKind = iota // compaction, aborted transactions
	gapLost                     // deleted before they were read, or skipped by LossLatest
	gapBeyondEnd                // committed, and beyond the end of the log
	gapTruncated                // read, and then gone from the log
	gapKinds
)

func (k gapKind) String() string {
	return [gapKinds]string{"absent", "lost", "beyond_end", "truncated"}[k]
}

// A loss is what a log should have and has not: the offsets [from, to). They are
// none where nobody can tell which.
type loss struct {
	kind     gapKind
	from, to offsets.Next
	resume   offsets.Next // the first offset after it that the log has, or will have
}

// An extent is what a log has: the offsets [start, end). Readers of committed
// transactions see those below stable.
type extent struct{ start, stable, end offsets.Next }

// lost finds out what the log of t has lost: a fetch was refused, or, if diverged
// is not nil, the client found that the log was truncated. What is polled of t
// meanwhile is dropped: it comes from behind the gap, or from the place to which
// the client went back by itself.
func (l *loop) lost(t *tenure, diverged *kgo.ErrDataLoss) {
	if t.phase != open || t.tracker == nil || t.stopped != "" || t.searching {
		return
	}
	if diverged == nil && len(t.spill) > 0 {
		return // the partition is paused: the fetch after that is refused again
	}
	t.searching = true
	l.pause(t)
	l.pauses.apply(l.consumer)
	l.search(t, diverged, firstPlacing)
}

// search looks the log up beside the loop, again and again until it is known.
func (l *loop) search(t *tenure, diverged *kgo.ErrDataLoss, wait time.Duration) {
	l.beside.Go(func() { // ends with the request's time limit, or the loop
		l.poller.flush() // nothing of t comes after this: it is paused
		ctx, cancel := context.WithTimeout(l.life, 10*time.Second)
		defer cancel()
		log, err := l.extent(ctx, t.partitionKey)
		l.do(func() {
			again := func(after, wait time.Duration) {
				l.at(l.now.Add(after), func() {
					if t.phase == open {
						l.search(t, diverged, wait)
					}
				})
			}
			switch {
			case t.phase != open || t.stopped != "":
			case err != nil:
				l.note("loss "+t.String(), t.String(), "the log does not have the offset that comes next, and what it has cannot be read; trying again: "+explain(err), 2*wait)
				again(wait, min(2*wait, lastPlacing))
			case l.txn.ends(t):
				again(commitRetry, wait) // what that commits is not to be read again
			default:
				l.over("loss " + t.String())
				l.decide(t, log.missing(t.tracker.Position(), diverged), log)
			}
		})
	})
}

// extent asks what a partition has.
func (l *loop) extent(ctx context.Context, key partitionKey) (log extent, err error) {
	admin := kadm.NewClient(l.consumer)
	list := func(ask func(context.Context, ...string) (kadm.ListedOffsets, error)) offsets.Next {
		listed, e := ask(ctx, key.topic)
		o, ok := listed.Lookup(key.topic, key.partition)
		switch {
		case ok && o.Err != nil:
			err = o.Err
		case !ok:
			err = errors.Join(e, fmt.Errorf("no offset was listed"))
		}
		return offsets.Next(o.Offset)
	}
	log.start, log.end = list(admin.ListStartOffsets), list(admin.ListEndOffsets)
	log.stable = log.end
	if !l.opts.Source.ReadUncommitted {
		log.stable = list(admin.ListCommittedOffsets)
	}
	return log, err
}

// missing says what the log lacks for a reader at a position.
func (x extent) missing(position offsets.Next, diverged *kgo.ErrDataLoss) loss {
	switch {
	case diverged != nil:
		at := offsets.Next(diverged.ResetTo)
		return loss{gapTruncated, at, offsets.Next(diverged.ConsumedTo), max(at, x.start)}
	case position < x.start:
		return loss{gapLost, position, x.start, x.start}
	case position > x.end:
		return loss{gapBeyondEnd, x.end, position, x.end}
	default: // the log has grown meanwhile
		return loss{gapBeyondEnd, position, position, x.end}
	}
}

// decide does what Source.OnDataLoss says.
func (l *loop) decide(t *tenure, missing loss, log extent) {
	t.searching = false
	if l.opts.Source.OnDataLoss == LossStop {
		// Each tenure meets the same loss again until somebody has decided.
		t.gaps[missing.kind] += missing.beside(t.lastLoss)
		t.lastLoss = missing
		l.stop(t, t.window.Next(), missing.String()+"; "+l.mend(t, missing))
		return
	}
	to := log.stable
	if l.opts.Source.OnDataLoss == LossEarliest {
		to = log.start
		if missing.kind == gapTruncated {
			to = missing.resume
		}
	}
	if missing.kind == gapTruncated {
		t.dropSpillFrom(missing.from) // the log does not have these any more
		l.budget.account(t)
	}
	t.gaps[missing.kind] += uint64(missing.to - missing.from)
	position := t.tracker.Position()
	if to >= position {
		if skipped := max(position, missing.to); skipped < to {
			t.gaps[gapLost] += uint64(to - skipped)
		}
		l.jump(t, to)
	} else {
		// Nothing that the log still has is passed over: what was admitted of it and
		// is not settled is read again.
		frontier, _ := t.tracker.Frontier()
		to = min(to, frontier)
		l.move(l.anew(t), to)
	}
	l.log.Warn("the log has lost records; the partition goes on without them", "topic", t.topic, "partition", t.partition,
		"kind", missing.kind.String(), "reason", missing.String(), "position", position, "next", to)
}

// jump has t go on at a later offset, in the same tenure: the step is a record
// without a topic that settles when those before it have. If there are none, another
// tenure begins there: it learns the id of the topic from its first fetch.
func (l *loop) jump(t *tenure, to offsets.Next) {
	if t.window.Next() == 0 && len(t.spill) == 0 {
		l.move(l.anew(t), to)
		return
	}
	if to > t.polled() {
		l.receive(t, []*kgo.Record{{
			Partition: t.partition, Offset: int64(to) - 1, LeaderEpoch: -1, Timestamp: l.now,
			Attrs: kgo.NewRecordAttrs(kgo.RecordAttrsOpts{Control: true}),
		}})
	}
	l.seek(t, to) // fetched again when there is room: see readmit
}

// anew begins another tenure of the same assignment, without a position, and
// paused. Nothing of the old one can be emitted or committed any more.
func (l *loop) anew(old *tenure) *tenure {
	l.leave(old)
	l.close(old)
	t := newTenure(old.partitionKey, l.opts, old.counters, l.now)
	t.memory = l.newMemory()
	t.given, t.reads, t.sink, t.deadSink = old.given, old.reads, old.sink, old.deadSink
	l.tenures[t.partitionKey] = t
	l.budget.assign(l.tenures)
	l.pause(t)
	l.remember()
	return t
}

// move places a tenure that is paused where the client is not.
func (l *loop) move(t *tenure, to offsets.Next) {
	l.seek(t, to)
	l.place(t, to)
	l.resume(t)
}

// seek has the client fetch t from an offset. The tenure must be open, so that no
// revoke callback has returned: the client still has the partition.
func (l *loop) seek(t *tenure, to offsets.Next) {
	l.consumer.SetOffsets(map[string]map[int32]kgo.EpochOffset{
		t.topic: {t.partition: {Epoch: -1, Offset: int64(to)}},
	})
}

// String names the offsets that are missing, and why they are.
func (x loss) String() string {
	n := x.to - x.from
	gone := fmt.Sprintf("offsets %d to %d (%d records at most) are gone", x.from, x.to-1, n)
	if n == 1 {
		gone = fmt.Sprintf("offset %d (1 record at most) is gone", x.from)
	}
	switch {
	case x.kind == gapLost:
		return "the log begins at offset " + fmt.Sprint(x.to) + ": " + gone + ": retention or a deletion of records was faster"
	case x.kind == gapTruncated:
		return "the log was truncated: " + gone + ", and what was written after that may stand in their place"
	case n == 0:
		return fmt.Sprintf("the log ended before offset %d, and has grown since: which records are gone cannot be told", x.from)
	default:
		return fmt.Sprintf("the log ends at offset %d, before the position of the group: %s: the log was truncated, or the offset was set by hand", x.from, gone)
	}
}

// beside counts the offsets of x that are not in y.
func (x loss) beside(y loss) uint64 {
	n := x.to - x.from
	if x.kind == y.kind {
		n -= max(0, min(x.to, y.to)-max(x.from, y.from))
	}
	return uint64(n)
}

// mend is what a person can do about a loss that has stopped a partition.
func (l *loop) mend(t *tenure, x loss) string {
	servers, _ := l.consumer.OptValue(kgo.SeedBrokers).([]string)
	return fmt.Sprintf("set input.on_data_loss to earliest or latest and restart; or stop every instance of the group, say "+
		"kafka-consumer-groups.sh --bootstrap-server %s --group %s --topic %s:%d --reset-offsets --to-offset %d --execute, and start again",
		strings.Join(servers, ","), l.opts.Source.Group, t.topic, t.partition, x.resume)
}

// sawTopics compares the ids of the input topics that exist with those that the
// tenures read.
func (l *loop) sawTopics(ids map[string][16]byte) {
	before := l.topicIDs
	l.topicIDs = ids
	none := [16]byte{}
	for _, t := range l.tenures {
		id, exists := ids[t.topic]
		switch {
		case t.recreated:
		case !exists:
			l.goneTopic(t)
		case t.reads != id && t.reads != none && id != none:
			l.recreatedTopic(t, id)
		default:
			t.goneSince = time.Time{}
			if t.reads == none {
				t.reads = id
			}
			if _, known := before[t.topic]; !known && l.committable(t) {
				l.commits.policy.Assigned(l.now) // it had to wait for the id
			}
		}
	}
}

// goneTopic notes that the topic of t is not there, until it is seen again.
// Offsets must not be committed: they could reach a topic that is made anew under
// the same name.
func (l *loop) goneTopic(t *tenure) {
	if !t.gone() {
		t.goneSince = l.now
	}
	l.pause(t)
}

// recreatedTopic gives up what t has of a topic that was deleted and created
// anew. The tenure that takes its place has no position, so that nothing is
// committed for it. The client keeps to the old topic for as long as it lives.
func (l *loop) recreatedTopic(t *tenure, id [16]byte) {
	reason := fmt.Sprintf("the topic was deleted and created anew (its id was %s, now it is %s): nothing is committed any more; "+
		"restart this instance to read the new one", topicID(t.reads), topicID(id))
	l.recreated[t.topic] = reason
	l.log.Warn("a topic was deleted and created anew; what was read of the old one and not committed is given up",
		"topic", t.topic, "partition", t.partition, "records", t.window.Len()+t.spillCount)
	if t.phase != open {
		l.close(t)
		return
	}
	l.forsake(l.anew(t), reason)
}

// forsake stops a tenure that has no position and shall not get one.
func (l *loop) forsake(t *tenure, reason string) {
	t.recreated = true
	l.stop(t, 0, reason)
}

// goneTopicError reports whether err says that there is no such topic, or not the
// one that was meant.
func goneTopicError(err error) bool {
	return errors.Is(err, kerr.UnknownTopicID) || errors.Is(err, kerr.UnknownTopicOrPartition)
}
