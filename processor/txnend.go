package processor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"seriatim/internal/seeded"
	"seriatim/offsets"
)

// An ending is one attempt to end a transaction. It runs beside the loop and
// reads nothing of it.
type ending struct {
	txnOffsets
	producer        *kgo.Client
	transactionalID string
	refused         func() bool
	abort           bool
}

// outcome is what became of a transaction.
type outcome uint8

const (
	committedTxn  outcome = iota
	abortedTxn            // by us, for a reason or because it was told to
	unfinishedTxn         // still open: the group's generation has changed
	unknownTxn            // the broker may have done either
)

// run ends the transaction. The error says why it was not committed.
func (e *ending) run(ctx context.Context) (outcome, error) {
	var cause error
	if !e.abort {
		switch err := e.prepare(ctx); {
		case err == nil:
			err := e.producer.EndTransaction(ctx, kgo.TryCommit)
			if err == nil || seeded.Bug("unknown-end-is-a-commit") {
				return committedTxn, nil
			}
			if !errors.Is(err, kerr.TransactionAbortable) && !errors.Is(err, kerr.OperationNotAttempted) {
				return unknownTxn, err
			}
			cause = err
		case passing(err):
			return unfinishedTxn, err
		case fencing(err):
			return unknownTxn, err
		default:
			cause = err
		}
	}
	if err := e.producer.AbortBufferedRecords(ctx); err != nil {
		return unknownTxn, errors.Join(cause, err)
	}
	if err := e.producer.EndTransaction(ctx, kgo.TryAbort); err != nil {
		return unknownTxn, errors.Join(cause, err)
	}
	return abortedTxn, cause
}

// prepare has every output acknowledged and the offsets added to the transaction.
// It must be known that no output was refused: the client would commit without it.
func (e *ending) prepare(ctx context.Context) error {
	if err := e.producer.Flush(ctx); err != nil {
		return fmt.Errorf("outputs are not acknowledged: %w", err)
	}
	// A topic that is new to the client: it hands over what has waited for the topic, and only then
	// stores the topic's partitions, which the end of a transaction goes through. An end that comes in
	// between finds nothing that was produced, aborts, and says that all is well; the outputs would be
	// lost (seen with franz-go 1.22.2). Nothing is buffered any more, so that this only takes the lock
	// under which the client does both.
	if err := e.producer.AbortBufferedRecords(ctx); err != nil {
		return err
	}
	if e.refused() && !seeded.Bug("commit-despite-refusal") {
		return errRefused
	}
	return whileBusy(ctx, func() error {
		id, epoch, err := e.producer.ProducerID(ctx)
		if err != nil {
			return err
		}
		return e.commit(ctx, e.producer, identity{e.transactionalID, id, epoch})
	})
}

// errRefused: the loop knows which output was refused, and why.
var errRefused = errors.New("an output was refused")

// A recovery makes a producer with our transactional id, which ends whatever
// transaction an earlier one has left, takes the id of those without outputs as
// well, and reads what was committed.
type recovery struct {
	loop       *loop
	opts       []kgo.Opt // of the producer
	alone      string    // the transactional id of offsets alone
	old        *kgo.Client
	consumer   *kgo.Client
	group      string
	allowOld   bool
	partitions []partitionKey // with outputs in the transaction that was given up
}

// A producing is a producer that may begin a transaction.
type producing struct {
	client    *kgo.Client
	alone     identity
	old       bool // transaction.version 1
	committed map[partitionKey]offsets.Next
}

const (
	recoveryRetry   = time.Second
	recoveryTimeout = 10 * time.Second
)

// run tries until it has succeeded or the loop has ended.
func (r *recovery) run() {
	if r.old != nil {
		r.old.Close()
		// It leaves the answers for outputs that were not acknowledged to a goroutine: they
		// must not meet the same outputs when these are emitted again (seen with franz-go 1.22.2).
		_ = r.old.Flush(r.loop.life)
	}
	for {
		ctx, cancel := context.WithTimeout(r.loop.life, recoveryTimeout)
		p, err := r.try(ctx)
		late := ctx.Err() != nil
		cancel()
		var refused *OldBrokersError
		if errors.As(err, &refused) {
			r.loop.do(func() { r.loop.end(err) })
			return
		}
		if err == nil {
			if !r.loop.do(func() { r.loop.recovered(p) }) {
				p.client.Close()
			}
			return
		}
		if !r.loop.do(func() {
			if late { // the broker may carry out later what was given up, and shut out who comes next
				r.loop.disturbed = r.loop.now
			}
			r.loop.note("producer", r.loop.opts.Name, "the transactional producer cannot be made; trying again: "+explain(err), 0)
		}) {
			return
		}
		select {
		case <-r.loop.stopped:
			return
		case <-time.After(recoveryRetry):
		}
	}
}

func (r *recovery) try(ctx context.Context) (p producing, err error) {
	level, err := transactionVersion(ctx, r.consumer)
	if err != nil {
		return p, err
	}
	opts := r.opts
	if p.old = level < 2; p.old {
		if !r.allowOld {
			return p, &OldBrokersError{TransactionVersion: level}
		}
		opts = append(opts[:len(opts):len(opts)], kgo.MaxVersions(kversion.V3_9_0()))
	}
	if p.client, err = kgo.NewClient(opts...); err != nil {
		return p, err
	}
	defer func() {
		if err != nil {
			p.client.Close()
		}
	}()
	if _, _, err = p.client.ProducerID(ctx); err != nil {
		return p, err
	}
	if p.alone, err = newIdentity(ctx, p.client, r.alone); err != nil {
		return p, err
	}
	p.committed = make(map[partitionKey]offsets.Next, len(r.partitions))
	if len(r.partitions) == 0 {
		return p, nil
	}
	topics := make(map[string]map[int32]standing)
	for _, key := range r.partitions {
		commits, asked := topics[key.topic]
		if !asked {
			commits, err = commitsOf(ctx, r.consumer, r.group, key.topic)
			if err != nil && (!goneTopicError(err) || r.known(key.topic)) {
				return p, fmt.Errorf("the group's offsets of %s: %w", key.topic, err)
			}
			topics[key.topic] = commits
		}
		switch c, told := commits[key.partition]; {
		case !told && commits == nil: // the topic is gone, and its commits with it
		case !told:
			return p, fmt.Errorf("the group's offset of %v was not told", key)
		case c.pending:
			return p, kerr.UnstableOffsetCommit
		case c.at >= 0:
			p.committed[key] = offsets.Next(c.at)
		}
	}
	return p, nil
}

// known reports whether the watcher sees a topic. A broker that does not know one yet says the same of
// it as one that knows it no longer.
func (r *recovery) known(topic string) (known bool) {
	r.loop.do(func() { _, known = r.loop.topicIDs[topic] })
	return known
}

// transactionVersion is the cluster's finalized transaction.version; 0 if it has
// none (before Kafka 3.8 or so).
func transactionVersion(ctx context.Context, client *kgo.Client) (int16, error) {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "seriatim", "1"
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return 0, err
	}
	for _, f := range resp.FinalizedFeatures {
		if f.Name == "transaction.version" {
			return f.MaxVersionLevel, nil
		}
	}
	return 0, nil
}
