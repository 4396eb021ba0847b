package conductor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"seriatim/internal/testkafka"
)

// A Bed is what runs share: a cluster of three nodes behind proxies, and the
// binary under test. One run at a time.
type Bed struct{ bed }

type bed struct {
	cluster *testkafka.Cluster
	proxies []*Proxy // by node
	admin   *kadm.Client
	leash   *testkafka.Leash // holds the instances
	binary  string
	script  string // of the workers in Node
	dir     string
}

// NewBed builds the binary of the module in the given folder and starts the
// cluster. The caller closes the bed.
func NewBed(ctx context.Context, module string) (*Bed, error) {
	b := new(Bed)
	var err error
	if b.dir, err = os.MkdirTemp("", "seriatim-chaos-"); err != nil {
		return nil, err
	}
	if b.leash, err = testkafka.NewLeash(b.dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(b.dir))
	}
	if err := b.start(ctx, module); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func (b *bed) start(ctx context.Context, module string) error {
	b.binary = filepath.Join(b.dir, "seriatim")
	b.script = filepath.Join(module, "internal/conductor/worker.mjs")
	build := exec.CommandContext(ctx, "go", "build", "-o", b.binary, "./cmd/seriatim")
	build.Dir = module
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	var err error
	b.cluster, err = testkafka.Start(ctx, testkafka.Options{
		Nodes: brokers,
		Users: map[string]string{user: password},
		Front: func(addr string) (string, error) {
			proxy, err := NewProxy(addr)
			if err != nil {
				return "", err
			}
			b.proxies = append(b.proxies, proxy)
			return proxy.Addr(), nil
		},
		Properties: map[string]string{
			"log.cleaner.backoff.ms":                  "1000",
			"group.consumer.session.timeout.ms":       fmt.Sprint(sessionTimeout.Milliseconds()),
			"group.consumer.heartbeat.interval.ms":    "1000",
			"unclean.leader.election.enable":          "false",
			"offsets.retention.check.interval.ms":     "600000",
			"transaction.max.timeout.ms":              "60000",
			"replica.lag.time.max.ms":                 "10000",
			"controller.quorum.election.timeout.ms":   "1000",
			"controller.quorum.fetch.timeout.ms":      "2000",
			"offsets.topic.segment.bytes":             "10485760",
			"transaction.state.log.segment.bytes":     "10485760",
			"leader.imbalance.check.interval.seconds": "20",
		},
	})
	if err != nil {
		return err
	}
	b.admin, err = b.cluster.Admin()
	return err
}

// Close ends everything.
func (b *Bed) Close() error {
	var errs []error
	if b.admin != nil {
		b.admin.Close()
	}
	errs = append(errs, b.leash.Close())
	if b.cluster != nil {
		errs = append(errs, b.cluster.Close())
	}
	for _, p := range b.proxies {
		p.Close()
	}
	return errors.Join(errs...)
}

// LogTail returns the ends of the brokers' logs.
func (b *Bed) LogTail(lines int) string { return b.cluster.LogTail(lines) }

// breakNode takes a node out for a while, and returns when it and all that it
// holds is back: two out at once would leave no majority.
func (b *bed) breakNode(ctx context.Context, node *testkafka.Node, step Step) error {
	long := context.WithoutCancel(ctx) // whatever happens, the node comes back
	var err error
	switch step.Do {
	case Freeze:
		if err = node.Freeze(); err == nil {
			wait(ctx, step.Time)
			err = node.Thaw()
		}
	case Stop:
		stop, cancel := context.WithTimeout(long, 20*time.Second)
		_ = node.Stop(stop) // an error means that it had to be killed
		cancel()
		wait(ctx, step.Time)
		err = node.Start(long)
	default:
		if err = node.Kill(); err == nil {
			wait(ctx, step.Time)
			err = node.Start(long)
		}
	}
	if err != nil {
		return err
	}
	return b.awaitInSync(long)
}

// awaitInSync returns when every partition has all its replicas, so that the next
// node may go.
func (b *bed) awaitInSync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	var state string
	for {
		topics, err := b.admin.ListTopicsWithInternal(ctx)
		behind := 0
		topics.EachPartition(func(p kadm.PartitionDetail) {
			if len(p.ISR) < len(p.Replicas) || p.Leader < 0 {
				behind++
			}
		})
		if err == nil && behind == 0 {
			return nil
		}
		state = fmt.Sprintf("%d partitions lack replicas, %v", behind, err)
		if !wait(ctx, 200*time.Millisecond) {
			return fmt.Errorf("the cluster does not recover: %s", state)
		}
	}
}
