package conductor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"seriatim/internal/history"
)

// A load produces the input: batches outside transactions, in committed and in
// aborted ones. Each partition belongs to one lane, which sends a batch when the
// fate of the one before it is known, so that the order of sequence numbers is
// that of the log.
type load struct {
	cluster *bed
	plan    *Plan
	work    *history.Workload
	topic   string
	run     string
	fates   [][]history.Fate // by partition and seq
}

const lanes = 4

// pace is how often a lane sends a batch.
const pace = 50 * time.Millisecond

// produce sends records until the time is over, and returns when the fate of all
// is known. ctx bounds that.
func (l *load) produce(ctx context.Context, length time.Duration) error {
	var g errgroup.Group
	for i := range lanes {
		g.Go(func() error {
			lane, err := l.lane(i)
			if err != nil {
				return err
			}
			defer lane.close()
			return lane.run(ctx, length)
		})
	}
	return g.Wait()
}

type lane struct {
	*load
	rand       *rand.Rand
	id         string
	partitions []int32
	plain      *kgo.Client
	txn        *kgo.Client
}

func (l *load) lane(i int) (*lane, error) {
	n := &lane{load: l, rand: rand.New(rand.NewPCG(l.plan.Seed, uint64(i))), id: fmt.Sprintf("%s-load-%d", l.run, i)}
	for p := i; p < len(l.fates); p += lanes {
		n.partitions = append(n.partitions, int32(p))
	}
	var err error
	if n.plain, err = l.client(); err != nil {
		return nil, err
	}
	if n.txn, err = n.transactional(); err != nil {
		n.plain.Close()
		return nil, err
	}
	return n, nil
}

func (l *load) client(opts ...kgo.Opt) (*kgo.Client, error) {
	return l.cluster.cluster.Client(append([]kgo.Opt{
		kgo.DefaultProduceTopic(l.topic), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0),
	}, opts...)...)
}

func (n *lane) transactional() (*kgo.Client, error) {
	return n.client(kgo.TransactionalID(n.id), kgo.TransactionTimeout(30*time.Second))
}

func (n *lane) close() {
	n.plain.Close()
	n.txn.Close()
}

func (n *lane) run(ctx context.Context, length time.Duration) error {
	began := time.Now()
	sent := 0
	for {
		elapsed := time.Since(began)
		if elapsed >= length {
			return nil
		}
		// What a stalled broker held up is not made up for.
		due := int(elapsed.Seconds()*float64(n.plan.Rate)/lanes) - sent
		if due > 500 {
			sent += due - 500
			due = 500
		}
		sent += due
		if err := n.batch(ctx, due); err != nil {
			return err
		}
		if !wait(ctx, pace/2+time.Duration(n.rand.Int64N(int64(pace)))) {
			return errors.New("the load did not end in time")
		}
	}
}

// batch sends count records.
func (n *lane) batch(ctx context.Context, count int) error {
	var batch []*kgo.Record
	var origins []history.Origin
	for range count {
		p := n.partitions[n.rand.IntN(len(n.partitions))]
		o := history.Origin{Partition: p, Seq: int64(len(n.fates[p]))}
		n.fates[p] = append(n.fates[p], history.Unknown)
		batch, origins = append(batch, n.work.Record(o)), append(origins, o)
	}
	fate, err := n.send(ctx, batch)
	for _, o := range origins {
		n.fates[o.Partition][o.Seq] = fate
	}
	return err
}

// send sends a batch in one of three ways.
func (n *lane) send(ctx context.Context, batch []*kgo.Record) (history.Fate, error) {
	dice := n.rand.IntN(100)
	if dice >= n.plan.Committed+n.plan.Aborted {
		if err := n.plain.ProduceSync(ctx, batch...).FirstErr(); err != nil {
			return history.Unknown, fmt.Errorf("the load cannot be produced: %w", err)
		}
		return history.Committed, nil
	}
	end, fate := kgo.TryCommit, history.Committed
	if dice < n.plan.Aborted {
		end, fate = kgo.TryAbort, history.Aborted
	}
	err := n.txn.BeginTransaction()
	if err == nil {
		err = n.txn.ProduceSync(ctx, batch...).FirstErr()
	}
	if err == nil {
		err = n.txn.EndTransaction(ctx, end)
	}
	if err == nil {
		return fate, nil
	}
	// Whatever became of it: a new producer ends it before anything else is sent.
	n.txn.Close()
	for {
		if n.txn, err = n.transactional(); err != nil {
			return history.Unknown, err
		}
		if _, _, err = n.txn.ProducerID(ctx); err == nil {
			return history.Unknown, nil
		}
		n.txn.Close()
		if !wait(ctx, 500*time.Millisecond) {
			return history.Unknown, fmt.Errorf("the load has no transactional producer: %w", err)
		}
	}
}
