package processor

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// txnOffsets are what a transaction commits of the group's partitions.
type txnOffsets struct {
	group string
	// member is that of the moment at which the positions were read. Read later, after the group took the partitions away and
	// gave them to us again, they would let offsets of the old tenure pass, and its
	// outputs beside those of the new one.
	member    member
	marks     []mark
	positions []position // of the marks; the tenures are the loop's
	old       bool       // the cluster has transaction.version 1
}

// A position is what the transaction commits of one partition.
type position struct {
	partitionKey
	topicID [16]byte
	next    int64
	epoch   int32
}

// txnOffsets are what a transaction commits with these marks.
func (l *loop) txnOffsets(as member, marks []mark) txnOffsets {
	o := txnOffsets{group: l.opts.Source.Group, member: as, marks: marks, old: l.txn.old}
	for _, m := range marks {
		o.positions = append(o.positions, position{m.tenure.partitionKey, m.tenure.reads, int64(m.next), m.epoch})
	}
	return o
}

// An identity is that of a transactional producer: the id that stays, and what the
// broker last gave it.
type identity struct {
	transactionalID string
	id              int64
	epoch           int16
}

// commit sends the positions as a member of the group (KIP-447): the coordinator
// refuses those of a member whose partitions went to others.
func (o *txnOffsets) commit(ctx context.Context, client *kgo.Client, as identity) error {
	if o.old {
		add := kmsg.NewPtrAddOffsetsToTxnRequest()
		add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = as.transactionalID, as.id, as.epoch, o.group
		resp, err := add.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			return err
		}
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = as.transactionalID, as.id, as.epoch, o.group
	req.MemberID, req.Generation, req.InstanceID = o.member.id, o.member.generation, o.member.instance
	byTopic := make(map[string]int)
	for _, p := range o.positions {
		i, ok := byTopic[p.topic]
		if !ok {
			i = len(req.Topics)
			byTopic[p.topic] = i
			topic := kmsg.NewTxnOffsetCommitRequestTopic()
			topic.Topic, topic.TopicID = p.topic, p.topicID
			req.Topics = append(req.Topics, topic)
		}
		part := kmsg.NewTxnOffsetCommitRequestTopicPartition()
		part.Partition, part.Offset, part.LeaderEpoch, part.Metadata = p.partition, p.next, p.epoch, kmsg.StringPtr("")
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, part)
	}
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return err
			}
		}
	}
	return nil
}

// commitAlone commits the positions in a transaction without outputs. It returns
// the identity for the next one, which is worth nothing if the outcome is unknown.
//
// A plain commit would do as well, were it not for one that is given up without an
// answer: the broker may carry it out after the next transaction has committed, and
// the group is back at the older offset (seen: 20 to 10). In a transaction it comes
// with an epoch that is over by then, and is refused (KIP-890).
//
// The client ends no transaction without records, and takes no epoch that it has
// not asked for itself. Hence these have a transactional id of their own.
func (o *txnOffsets) commitAlone(ctx context.Context, client *kgo.Client, as identity) (identity, outcome, error) {
	cause := whileBusy(ctx, func() error { return o.commit(ctx, client, as) })
	if cause != nil && (fencing(cause) || ctx.Err() != nil) {
		return as, unknownTxn, cause
	}
	// What was refused has begun a transaction all the same, perhaps.
	as, err := as.end(ctx, client, cause == nil)
	switch {
	case err != nil:
		return as, unknownTxn, errors.Join(cause, err)
	case cause != nil:
		return as, abortedTxn, cause
	}
	return as, committedTxn, nil
}

// end ends the transaction of as and returns what the broker gives for the next.
func (as identity) end(ctx context.Context, client *kgo.Client, commit bool) (identity, error) {
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = as.transactionalID, as.id, as.epoch, commit
	err := whileBusy(ctx, func() error {
		resp, err := req.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		if resp.Version >= 5 && resp.ErrorCode == 0 && resp.ProducerID >= 0 {
			as.id, as.epoch = resp.ProducerID, resp.ProducerEpoch
		}
		return kerr.ErrorForCode(resp.ErrorCode)
	})
	return as, err
}

// newIdentity takes a transactional id, which ends whatever transaction is open
// under it and shuts out whoever had it.
func newIdentity(ctx context.Context, client *kgo.Client, transactionalID string) (as identity, err error) {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis = &transactionalID, int32(transactionTimeout.Milliseconds())
	req.ProducerID, req.ProducerEpoch = -1, -1
	err = whileBusy(ctx, func() error {
		resp, err := req.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		as = identity{transactionalID, resp.ProducerID, resp.ProducerEpoch}
		return kerr.ErrorForCode(resp.ErrorCode)
	})
	return as, err
}

// whileBusy repeats a request that meets the end of the transaction before, or a
// coordinator that moves or loads: these are soon over.
func whileBusy(ctx context.Context, request func() error) error {
	for {
		err := request()
		again := kerr.IsRetriable(err) || errors.Is(err, kerr.ConcurrentTransactions)
		if !again || passing(err) || goneTopicError(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}
