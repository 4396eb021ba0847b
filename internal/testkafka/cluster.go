package testkafka

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// Options say what cluster to run. The zero Options are one node with all the
// features of its version.
type Options struct {
	// Nodes is how many nodes there are, each of them broker and controller; 0 is
	// one. Topics have as many replicas, at most three, of which all but one must
	// be in sync.
	Nodes int
	// Users, with their passwords, may log in at a second listener, over TLS,
	// with PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, and must log in at the front
	// listener, in the clear, with SCRAM. The brokers then check ACLs: users may do
	// what they have been granted, the first listener everything.
	Users map[string]string
	// Features are set when the storage is formatted, such as transaction.version.
	Features map[string]int
	// Front, if it is not nil, gives every node one more listener, which is for
	// clients alone: nodes talk to each other past it. Front is called with the
	// listener's host:port before any node starts, and returns the host:port that
	// the node shall advertise, such as that of a proxy.
	Front func(addr string) (advertised string, err error)
	// Properties are added to those of every node, and win.
	Properties map[string]string
}

// A Cluster is a Kafka that runs. Its methods may be called at once.
type Cluster struct {
	// Nodes are the nodes by number.
	Nodes []*Node
	// CAFile holds the certificate that vouches for the second listener.
	CAFile string

	dir   string
	jars  string
	leash *Leash
}

// startTimeout is how long nodes may take until they answer.
const startTimeout = 90 * time.Second

// Start runs a cluster and returns when every node answers. The first start on a
// machine fetches the jars. The cluster lives until Close, or until this process
// ends; ctx bounds the start alone.
func Start(ctx context.Context, opts Options) (*Cluster, error) {
	jars, err := provision(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "seriatim-kafka-")
	if err != nil {
		return nil, err
	}
	leash, err := NewLeash(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	c := &Cluster{dir: dir, jars: jars, leash: leash, CAFile: filepath.Join(dir, "ca.pem")}
	if err := c.start(ctx, opts); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, opts Options) error {
	if err := os.WriteFile(c.logSettings(), logSettings, 0o600); err != nil {
		return err
	}
	if len(opts.Users) > 0 {
		if err := makeCertificates(c.CAFile, c.keystore()); err != nil {
			return err
		}
	}
	ports, err := FreePorts(4 * max(1, opts.Nodes))
	if err != nil {
		return err
	}
	for ; len(ports) > 0; ports = ports[4:] {
		n := &Node{cluster: c, id: len(c.Nodes) + 1, plain: ports[0], secure: ports[1], controller: ports[2], front: ports[3]}
		if opts.Front != nil {
			if n.advertised, err = opts.Front(loopback(n.front)); err != nil {
				return err
			}
		}
		c.Nodes = append(c.Nodes, n)
	}
	id := clusterID()
	var formats errgroup.Group
	for _, n := range c.Nodes {
		formats.Go(func() error { return n.format(ctx, id, opts) })
	}
	if err := formats.Wait(); err != nil {
		return err
	}
	for _, n := range c.Nodes {
		if err := n.launch(); err != nil {
			return err
		}
	}
	return c.AwaitReady(ctx)
}

// AwaitReady returns when every node answers and takes part in the cluster.
func (c *Cluster) AwaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for _, n := range c.Nodes {
		if err := n.awaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the cluster and removes its data. It is safe to call it again.
func (c *Cluster) Close() error { return c.leash.Close() }

// Brokers returns host:port of every node's first listener, which needs no
// login.
func (c *Cluster) Brokers() []string {
	var addrs []string
	for _, n := range c.Nodes {
		addrs = append(addrs, n.Addr())
	}
	return addrs
}

// SecureBrokers returns host:port of every node's second listener, which is
// there if the cluster has users.
func (c *Cluster) SecureBrokers() []string {
	var addrs []string
	for _, n := range c.Nodes {
		addrs = append(addrs, loopback(n.secure))
	}
	return addrs
}

// FrontBrokers returns host:port that every node advertises for its front
// listener, which is there if Options.Front is set.
func (c *Cluster) FrontBrokers() []string {
	var addrs []string
	for _, n := range c.Nodes {
		addrs = append(addrs, n.advertised)
	}
	return addrs
}

// Client returns a client of the first listener. The caller closes it.
func (c *Cluster) Client(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(c.Brokers()...)}, opts...)...)
}

// Admin returns an administrator, who may do everything. The caller closes it.
func (c *Cluster) Admin() (*kadm.Client, error) {
	client, err := c.Client()
	if err != nil {
		return nil, err
	}
	return kadm.NewClient(client), nil
}

// LogTail returns the last n lines of every node's log.
func (c *Cluster) LogTail(n int) string {
	var text strings.Builder
	for _, node := range c.Nodes {
		fmt.Fprintf(&text, "== node %d\n%s\n", node.id, node.logTail(n))
	}
	return text.String()
}

// KeepLogs copies the log of every node to dir, as kafka-<node>.log.
func (c *Cluster) KeepLogs(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, n := range c.Nodes {
		text, err := os.ReadFile(n.logFile())
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("kafka-%d.log", n.id)), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) logSettings() string { return filepath.Join(c.dir, "log4j2.properties") }
func (c *Cluster) keystore() string    { return filepath.Join(c.dir, "keystore.pem") }

// clusterID returns an id as Kafka makes them. One that begins with a dash would
// be taken for a flag.
func clusterID() string {
	for {
		b := make([]byte, 16)
		_, _ = rand.Read(b) // never fails
		if id := base64.RawURLEncoding.EncodeToString(b); id[0] != '-' {
			return id
		}
	}
}
