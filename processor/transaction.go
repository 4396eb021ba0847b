package processor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/seeded"
	"seriatim/offsets"
	"seriatim/resequence"
)

// A transactor is the loop's part that puts outputs and frontiers into
// transactions. One transaction is open at most, polling and transforms never
// wait for it, and slots are held until it has committed: after an abort the same
// results are emitted again from the window.
//
// The loop alone opens transactions. Ending one, which takes a few round trips,
// runs beside the loop; meanwhile nothing is emitted.
type transactor struct {
	cadence time.Duration
	phase   txnPhase
	since   time.Time
	emitted map[*tenure]struct{} // with outputs in this transaction
	refused error                // why it must be aborted

	notBefore time.Time // the next one may be opened; after an abort
	aborts    int       // in a row
	renew     bool      // the producer keeps to a topic that is another one by now
	fenced    time.Time // when another process last took our transactional id

	id           string   // transactional id
	alone        identity // of transactions without outputs
	producerOpts []kgo.Opt
	old          bool // transaction.version 1

	committed, aborted uint64
}

type txnPhase uint8

const (
	noTxn      txnPhase = iota
	openTxn             // outputs are emitted into it
	endingTxn           // flushed, committed or aborted beside the loop
	recovering          // the producer is made anew
)

// transactionTimeout is how long the broker keeps a transaction whose producer is
// gone, and with it readers of committed records waiting.
const transactionTimeout = 15 * time.Second

// endTimeout bounds ending a transaction; it leaves the broker time to answer
// before it aborts the transaction itself.
const endTimeout = 10 * time.Second

// twinInterval: an id taken twice within this time, or three ticks, is used by another
// process.
const twinInterval = time.Minute

func newTransactor(opts *Options) *transactor {
	id := opts.Source.Group + "-" + opts.Name + "-" + opts.Instance
	return &transactor{
		cadence: opts.Commit.Transaction,
		emitted: make(map[*tenure]struct{}),
		id:      id,
		alone:   identity{transactionalID: id + "/offsets"},
	}
}

// touches reports whether the transaction in progress has outputs of one of the
// tenures. One whose producer is made anew is none of ours any more: nothing else
// can be added to it, and the broker knows what has become of it.
func (x *transactor) touches(tenures []*tenure) bool {
	if x == nil || x.phase == recovering {
		return false
	}
	for _, t := range tenures {
		if _, ok := x.emitted[t]; ok {
			return true
		}
	}
	return false
}

// ends reports whether a transaction with outputs of t is being ended, or it is being found out how it
// has ended: it may be committed whatever becomes of t.
func (x *transactor) ends(t *tenure) bool {
	if x == nil || x.phase == openTxn {
		return false
	}
	_, ok := x.emitted[t]
	return ok
}

// running reports whether a transaction is under way, or the producer is made, so
// that nothing can be committed but by its end.
func (x *transactor) running() bool {
	return x != nil && x.phase != noTxn
}

// join lets t emit into the transaction, which is opened if there is none. It
// reports false if t has to wait: the loop tries again when something has ended.
func (l *loop) join(t *tenure) bool {
	x := l.txn
	switch x.phase {
	case noTxn:
		// Of two transactions that hold offsets of one partition, the one that sent
		// them last would win, and a tick reads its own before: never both at a time.
		if l.commits.inFlight != nil || l.now.Before(x.notBefore) {
			return false
		}
		if err := l.producer.BeginTransaction(); err != nil {
			l.recover(err)
			return false
		}
		x.phase, x.since = openTxn, l.now
		l.acks.refused.Store(false)
		l.at(l.now.Add(x.cadence), func() {})
	case openTxn:
		if x.refused != nil {
			return false
		}
	default:
		return false
	}
	x.emitted[t] = struct{}{}
	return true
}

// endTxnIfDue ends the open transaction when its time has come.
func (l *loop) endTxnIfDue() {
	x := l.txn
	if x == nil || x.phase != openTxn {
		return
	}
	due := x.refused != nil || l.pressed() || !l.now.Before(x.since.Add(x.cadence)) || l.commits.policy.Due(l.now)
	for _, d := range l.drains {
		due = due || x.touches(d.tenures) && d.settledButForTxn()
	}
	if due {
		l.endTxn()
	}
}

// pressed reports whether records wait for room that only the end of the transaction
// makes: slots are freed by the commit, and nearly all that the window holds is emitted. Each
// end costs the broker some 10 ms of CPU: ending it at half a window was 4 to 5 % slower.
func (l *loop) pressed() bool {
	for t := range l.backed {
		if t.tracker == nil || len(t.spill) == 0 && !t.paused {
			continue
		}
		if emitted := int(uint64(t.emitNext) - t.tracker.Settled()); emitted > 0 && 10*emitted >= 9*t.window.Len() {
			return true
		}
	}
	return false
}

// settledButForTxn reports whether nothing of the drained tenures is left to wait
// for but the end of the transaction.
func (d *drain) settledButForTxn() bool {
	for _, t := range d.tenures {
		if t.phase == closed {
			return true // lost: abort at once
		}
		if t.running > t.beaten || t.sink != nil && t.refused == nil && t.emitNext != t.emittable() {
			return false
		}
	}
	return true
}

// endTxn stops emitting and has the transaction committed, or aborted if an output
// was refused or a tenure in it is over.
func (l *loop) endTxn() {
	x := l.txn
	x.phase = endingTxn
	abort := x.refused != nil
	var marks []mark
	for t := range x.emitted {
		if !l.committable(t) && !seeded.Bug("transaction-of-a-lost-tenure") {
			abort = true
			continue
		}
		next, epoch := t.emittedFrontier()
		marks = append(marks, mark{t, next, epoch, t.emitNext})
	}
	if !abort && (l.commits.policy.Due(l.now) || len(l.drains) > 0) {
		l.commits.policy.Begin(l.now)
		l.commits.policy.Done(l.now)
		for _, t := range l.tenures {
			if _, ok := x.emitted[t]; !ok && l.committable(t) {
				next, epoch := t.tracker.Frontier()
				marks = append(marks, mark{tenure: t, next: next, epoch: epoch})
			}
		}
	}
	member := l.member()
	if !abort && member.id == "" {
		l.unfinished(errNoMember)
		return
	}
	e := &ending{
		txnOffsets: l.txnOffsets(member, marks), producer: l.producer, transactionalID: x.id,
		refused: l.acks.refused.Load, abort: abort,
	}
	l.beside.Go(func() { // ends within endTimeout, or with the loop
		ctx, cancel := context.WithTimeout(l.life, endTimeout)
		defer cancel()
		outcome, err := e.run(ctx)
		l.do(func() { l.txnEnded(e, outcome, err) })
	})
}

// emittedFrontier is one past the last record whose outputs are all emitted: the
// frontier once the transaction has committed.
func (t *tenure) emittedFrontier() (offsets.Next, int32) {
	if t.emitNext == resequence.Seq(t.tracker.Settled()) {
		return t.tracker.Frontier()
	}
	if seeded.Bug("transaction-commits-polled") {
		return t.tracker.Position(), -1
	}
	r := t.window.Slot(t.emitNext - 1).record
	return offsets.Offset(r.Offset).Next(), r.LeaderEpoch
}

// txnEnded takes what became of the transaction.
func (l *loop) txnEnded(e *ending, outcome outcome, err error) {
	x := l.txn
	l.answer() // what was flushed has been answered
	switch outcome {
	case committedTxn:
		x.committed++
		x.aborts = 0
		l.commits.ok++
		l.over("transaction")
		l.over("commit")
		for _, m := range e.marks {
			l.settleCommitted(m)
		}
		l.noTransaction()
	case abortedTxn:
		x.aborted++
		if err != nil && !passing(err) {
			l.log.Warn("a transaction was aborted; its outputs are emitted again", "err", err)
		}
		l.rewindAll(nil)
		if goneTopicError(err) {
			l.hurry()
		}
		if err != nil || x.refused != nil {
			x.aborts++
			x.notBefore = l.now.Add(min(firstReemit<<min(x.aborts-1, 10), lastReemit))
			l.at(x.notBefore, l.emitAll)
			if reason := errors.Join(x.refused, err); x.aborts > 1 && !passing(reason) {
				l.note("transaction", l.opts.Name, "transactions are aborted; trying again: "+explain(reason), 0)
			}
		}
		l.noTransaction()
	case unfinishedTxn: // the group's generation has changed
		l.unfinished(err)
	case unknownTxn:
		l.recover(err)
	}
}

// errNoMember: the group does without us, until we have joined again.
var errNoMember = fmt.Errorf("the group has to be joined again: %w", kerr.UnknownMemberID)

// unfinished has the transaction ended a little later, when the group will have told
// what is left of it.
func (l *loop) unfinished(err error) {
	x := l.txn
	if l.now.Sub(x.since) > endTimeout {
		x.refused = err
	}
	l.at(l.now.Add(commitRetry), l.endTxn)
}

// noTransaction leaves the transaction behind and lets everybody emit.
func (l *loop) noTransaction() {
	x := l.txn
	x.phase, x.refused = noTxn, nil
	clear(x.emitted)
	if x.renew {
		x.renew = false
		l.renewProducer()
		return
	}
	l.emitAll()
}

// emitAll has every tenure emit what it can.
func (l *loop) emitAll() {
	for _, t := range l.tenures {
		if t.tracker != nil {
			l.emit(t)
		}
	}
}

// settleCommitted settles what a committed transaction had of a tenure.
func (l *loop) settleCommitted(m mark) {
	t := m.tenure
	if t.phase == closed {
		return
	}
	t.committed, t.hasCommitted, t.committedAt = m.next, true, l.now
	l.forget(t, m.next)
	l.settleEmitted(t, m.end)
}

// settleEmitted settles the emitted records before end.
func (l *loop) settleEmitted(t *tenure, end resequence.Seq) {
	for lo := resequence.Seq(t.tracker.Settled()); lo < end; {
		hi := lo
		for hi < end && t.window.Slot(hi).state != settled {
			t.window.Slot(hi).state = settled
			hi++
		}
		if hi > lo {
			l.settle(t, lo, hi)
		}
		lo = max(hi, resequence.Seq(t.tracker.Settled()))
		for lo < end && t.window.Slot(lo).state == settled {
			lo++
		}
	}
}

// emittedBelow is one past the last emitted record with an offset below next.
func (t *tenure) emittedBelow(next offsets.Next) resequence.Seq {
	end := resequence.Seq(t.tracker.Settled())
	for end < t.emitNext && t.window.Slot(end).record.Offset < int64(next) {
		end++
	}
	return end
}

// rewindAll has every tenure emit again what the transaction had of it, but for
// what turned out to be committed.
func (l *loop) rewindAll(committed map[partitionKey]offsets.Next) {
	for t := range l.txn.emitted {
		if t.phase == closed {
			continue
		}
		if next, ok := committed[t.partitionKey]; ok {
			l.settleEmitted(t, t.emittedBelow(next))
		}
		first := resequence.Seq(t.tracker.Settled())
		for seq := first; seq < t.emitNext; seq++ {
			s := t.window.Slot(seq)
			if s.state == settled {
				continue
			}
			s.pending, s.state = 0, complete
			for o := s.outputs; o != nil; o = o.next {
				o.acked = false
				s.pending++
			}
		}
		if seeded.Bug("aborted-outputs-forgotten") {
			first = t.emitNext
		}
		t.emitNext, t.inFlight = first, 0
		t.refused = nil
	}
}

// recover makes the producer anew after an outcome that is not known, asks the
// group what was committed, and goes on from there.
func (l *loop) recover(cause error) {
	x := l.txn
	if fencing(cause) && l.now.Sub(l.disturbed) > twinInterval && l.now.Sub(x.since) < transactionTimeout {
		// Nothing of our own explains it: no lost session, no freeze, no timeout.
		if !x.fenced.IsZero() && l.now.Sub(x.fenced) < max(twinInterval, 3*l.opts.Commit.Interval) {
			l.end(&FencedError{Instance: l.opts.Instance, Err: cause})
			return
		}
		x.fenced = l.now
	}
	l.log.Warn("the outcome of a transaction is not known; the producer is made anew and goes on from what was committed", "err", cause)
	l.renewProducer()
}

// renewProducer closes the producer and starts another one.
func (l *loop) renewProducer() {
	old := l.producer
	l.producer = nil
	l.startProducer(old)
}

// startProducer makes a producer beside the loop. Until it is there nothing is
// emitted.
func (l *loop) startProducer(old *kgo.Client) {
	x := l.txn
	x.phase = recovering
	r := &recovery{
		loop: l, opts: x.producerOpts, alone: x.alone.transactionalID, old: old, consumer: l.consumer,
		group: l.opts.Source.Group, allowOld: l.opts.AllowOldBrokers,
	}
	for t := range x.emitted {
		if t.phase != closed {
			r.partitions = append(r.partitions, t.partitionKey)
		}
	}
	l.beside.Go(r.run) // ends with the loop
}

// recovered takes the new producer.
func (l *loop) recovered(p producing) {
	l.answer() // what the old producer gave up
	l.over("producer")
	l.producer, l.txn.alone, l.txn.old = p.client, p.alone, p.old
	if len(l.txn.emitted) > 0 {
		l.txn.aborted++
	}
	if seeded.Bug("committed-outputs-emitted-again") {
		p.committed = nil
	}
	l.rewindAll(p.committed)
	l.noTransaction()
}

// fencing reports whether err says that our producer was replaced: by another
// process, or by the broker after our transaction timed out.
func fencing(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch)
}
