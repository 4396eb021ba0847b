package processor_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"seriatim/processor"
)

// oldBrokers are clusters whose transactions do not fence each other.
var oldBrokers = map[string]struct {
	opts    []kfake.Opt
	level   int16 // transaction.version that the cluster is set to, if it is not 0
	classic bool  // it knows no other groups
}{
	"Kafka 2.5":                          {opts: []kfake.Opt{kfake.MaxVersions(kversion.V2_5_0())}, classic: true},
	"Kafka 3.9":                          {opts: []kfake.Opt{kfake.MaxVersions(kversion.V3_9_0())}, classic: true},
	"Kafka 4 with transaction.version 1": {level: 1},
}

// newOldBed starts a cluster with old transactions.
func newOldBed(t *testing.T, opts []kfake.Opt, level int16) *bed {
	t.Helper()
	b := newBed(t, 2, nil, opts...)
	if level == 0 {
		return b
	}
	update := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
	update.Feature, update.MaxVersionLevel, update.UpgradeType = "transaction.version", level, 2
	req := kmsg.NewPtrUpdateFeaturesRequest()
	req.FeatureUpdates = append(req.FeatureUpdates, update)
	resp, err := req.RequestWith(t.Context(), b.own)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// refuses waits for the end of a pipeline that refuses to run, and has no outputs, and returns its
// error, which has these words.
func (b *bed) refuses(r *running, words ...string) (err error) {
	b.t.Helper()
	select {
	case err = <-r.done:
	case <-time.After(b.patience):
		b.t.Fatal("the pipeline runs")
	}
	if err == nil {
		b.t.Fatal("Run returned no error")
	}
	for _, words := range words {
		if !strings.Contains(err.Error(), words) {
			b.t.Errorf("%q does not say %q", err, words)
		}
	}
	if end := b.end("out", 0); end != 0 {
		b.t.Errorf("there are %d outputs of a pipeline that refused to run", end)
	}
	return err
}

// Exactly once is not begun where a delayed request could end a later transaction.
// The pipeline says what the cluster has and what to do.
func TestOldBrokersAreRefused(t *testing.T) {
	for name, old := range oldBrokers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newOldBed(t, old.opts, old.level)
			b.produce("in", 0, 0, 10)
			r := b.run(b.exactlyOnce(), processor.TransformFunc(passOn))
			err := b.refuses(r, "transaction.version 2", fmt.Sprintf("the cluster has %d", old.level), "upgrade", "allow_old_brokers", "KAFKA-17754")
			var refused *processor.OldBrokersError
			if !errors.As(err, &refused) || refused.TransactionVersion != old.level {
				t.Fatalf("Run returned %v, want an OldBrokersError with transaction.version %d", err, old.level)
			}
		})
	}
}

// Whoever accepts what may go wrong there has the rest of exactly once: outputs
// become visible once each, in order, aborted transactions included.
func TestAllowedOldBrokersAreExactlyOnce(t *testing.T) {
	const records = 600
	for name, old := range oldBrokers {
		for _, serverSide := range []bool{false, true} {
			if serverSide && old.classic {
				continue
			}
			t.Run(fmt.Sprintf("%s, server side %t", name, serverSide), func(t *testing.T) {
				t.Parallel()
				b := newOldBed(t, old.opts, old.level)
				added := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.AddOffsetsToTxn}, Err: kerr.ConcurrentTransactions, Count: 2})
				refused := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.GroupAuthorizationFailed, Count: 2})
				opts := b.exactlyOnce()
				opts.AllowOldBrokers = true
				opts.Source.ServerSide = serverSide
				r := b.run(opts, jittered(time.Millisecond))
				for i := 0; i < records; i += 20 {
					b.produceToAll(2, i, i+20)
				}
				b.caughtUp(2)
				if added.Hits() == 0 || refused.Hits() == 0 {
					t.Errorf("AddOffsetsToTxn was answered badly %d times and TxnOffsetCommit %d times, want more than none", added.Hits(), refused.Hits())
				}
				b.eventually("transactions are counted as aborted and, after the broker's own count, as committed", func() bool {
					n := b.status(r).Transactions
					return n["aborted"] > 0 && n["committed"] > 0
				})
				b.stop(r)
				for p := range int32(2) {
					b.inOrder(p, 0, records)
				}
			})
		}
	}
}

// A group of KIP-848 is not exchanged for a classic one where there is none: with the
// client's own balancer a member that was too late would claim what others have.
func TestBrokersWithoutTheGroupProtocolAreRefused(t *testing.T) {
	for _, exactlyOnce := range []bool{false, true} {
		t.Run(fmt.Sprintf("exactly once %t", exactlyOnce), func(t *testing.T) {
			t.Parallel()
			b := newOldBed(t, []kfake.Opt{kfake.MaxVersions(kversion.V3_9_0())}, 0)
			b.produce("in", 0, 0, 10)
			opts := b.options()
			if exactlyOnce {
				opts = b.exactlyOnce()
				opts.AllowOldBrokers = true
			}
			opts.Source.ServerSide = true
			r := b.run(opts, processor.TransformFunc(passOn))
			err := b.refuses(r, "input.group_protocol", "KIP-848", "Kafka 4.0", "upgrade", "classic")
			var refused *processor.GroupProtocolError
			if !errors.As(err, &refused) {
				t.Fatalf("Run returned %v, want a GroupProtocolError", err)
			}
		})
	}
}
