package testkafka

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A Node is one process of a cluster: broker and controller at once.
type Node struct {
	cluster *Cluster
	id      int

	plain, secure, controller, front int    // ports
	advertised                       string // for front; empty if nobody listens there

	mu      sync.Mutex
	process *Process
}

//go:embed log4j2.properties
var logSettings []byte

// ID returns the number of the node, from 1.
func (n *Node) ID() int32 { return int32(n.id) }

// Addr returns host:port of the first listener.
func (n *Node) Addr() string { return loopback(n.plain) }

// Start starts a node that was stopped or killed, with the addresses and the data
// it had, and returns when it answers.
func (n *Node) Start(ctx context.Context) error {
	if err := n.launch(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return n.awaitReady(ctx)
}

// Stop has the node shut down in good order and waits for its end. When ctx ends
// first the node is killed, and that is an error.
func (n *Node) Stop(ctx context.Context) error {
	p := n.current()
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop node %d: %w", n.id, err)
	}
	select {
	case <-p.Exited():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("node %d does not stop: %w", n.id, n.Kill())
	}
}

// Kill ends the node at once, as kill -9 does.
func (n *Node) Kill() error {
	p := n.current()
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill node %d: %w", n.id, err)
	}
	<-p.Exited()
	return nil
}

// Freeze stops the node from running, without its connections being closed. Thaw
// has it go on.
func (n *Node) Freeze() error { return n.current().Signal(syscall.SIGSTOP) }

// Thaw ends what Freeze began.
func (n *Node) Thaw() error { return n.current().Signal(syscall.SIGCONT) }

// Pid is the process of the node, which must run.
func (n *Node) Pid() int { return n.current().Pid() }

func (n *Node) current() *Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process
}

func (n *Node) dir() string        { return filepath.Join(n.cluster.dir, fmt.Sprint(n.id)) }
func (n *Node) logFile() string    { return filepath.Join(n.dir(), "node.log") }
func (n *Node) properties() string { return filepath.Join(n.dir(), "server.properties") }

// java returns a command that runs a class of Kafka with all output in the
// node's log.
func (n *Node) java(ctx context.Context, class string, args ...string) (*exec.Cmd, *os.File, error) {
	log, err := os.OpenFile(n.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, "java", append([]string{
		"-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError",
		"-XX:-UsePerfData", "-Djava.io.tmpdir=" + n.dir(), // nothing outside
		"-Dlog4j2.configurationFile=" + n.cluster.logSettings(), class,
	}, args...)...)
	cmd.Env = append(os.Environ(), "CLASSPATH="+filepath.Join(n.cluster.jars, "*"))
	cmd.Dir = n.dir()
	cmd.Stdout, cmd.Stderr = log, log
	return cmd, log, nil
}

// format writes the settings and prepares the storage.
func (n *Node) format(ctx context.Context, clusterID string, opts Options) error {
	if err := os.Mkdir(n.dir(), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(n.properties(), n.settings(opts), 0o600); err != nil {
		return err
	}
	args := []string{"format", "--cluster-id", clusterID, "--config", n.properties()}
	for name, level := range opts.Features {
		args = append(args, "--feature", fmt.Sprintf("%s=%d", name, level))
	}
	for name, password := range opts.Users {
		for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
			args = append(args, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", mechanism, name, password))
		}
	}
	cmd, log, err := n.java(ctx, "kafka.tools.StorageTool", args...)
	if err != nil {
		return err
	}
	defer log.Close()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("format the storage of node %d: %w\n%s", n.id, err, n.logTail(20))
	}
	return nil
}

// launch starts the process.
func (n *Node) launch() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	cmd, log, err := n.java(context.Background(), "kafka.Kafka", n.properties())
	if err != nil {
		return err
	}
	defer log.Close()
	n.process, err = n.cluster.leash.Start(cmd)
	if err != nil {
		return fmt.Errorf("start node %d: %w", n.id, err)
	}
	return nil
}

// awaitReady returns when the node knows every node of the cluster.
func (n *Node) awaitReady(ctx context.Context) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(n.Addr()))
	if err != nil {
		return err
	}
	defer client.Close()
	exited := n.current().Exited()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		if err = n.answers(ctx, client); err == nil {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("node %d has ended\n%s", n.id, n.logTail(40))
		case <-ctx.Done():
			return fmt.Errorf("node %d does not answer: %w\n%s", n.id, err, n.logTail(40))
		case <-look.C:
		}
	}
}

func (n *Node) answers(ctx context.Context, client *kgo.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{} // nil would be all of them
	resp, err := req.RequestWith(ctx, client.SeedBrokers()[0])
	if err != nil {
		return err
	}
	if got, want := len(resp.Brokers), len(n.cluster.Nodes); got < want {
		return fmt.Errorf("it knows %d nodes of %d", got, want)
	}
	return nil
}

func (n *Node) logTail(lines int) string {
	text, err := os.ReadFile(n.logFile())
	if err != nil {
		return err.Error()
	}
	return lastLines(bytes.TrimSpace(text), lines)
}
