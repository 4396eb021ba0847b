package integration

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"seriatim/internal/testkafka"
)

// holdCluster makes the test binary a process that runs a cluster until it is
// killed.
const holdCluster = "INTEGRATION_HOLD_CLUSTER"

func holdClusterForEver() {
	cluster, err := testkafka.Start(context.Background(), testkafka.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, cluster.Brokers()[0])
	select {}
}

// TestClusterDiesWithItsProcess kills a process that runs a cluster.
func TestClusterDiesWithItsProcess(t *testing.T) {
	temp := t.TempDir()
	holder := exec.Command(os.Args[0])
	holder.Env = append(os.Environ(), holdCluster+"=yes", "TMPDIR="+temp)
	holder.Stderr = os.Stderr
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = holder.Process.Kill() })
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	addr = strings.TrimSpace(addr)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait() // killed
	await(t, 10*time.Second, "the broker to be gone", func() (bool, string) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err != nil, addr + " is open"
	})
	await(t, 10*time.Second, "its files to be gone", func() (bool, string) {
		left, err := os.ReadDir(temp)
		return err == nil && len(left) == 0, fmt.Sprint(left, err)
	})
}

// TestNodesKeepTheirData kills and freezes one of three nodes.
func TestNodesKeepTheirData(t *testing.T) {
	ctx := within(t, 3*time.Minute)
	cluster, err := testkafka.Start(ctx, testkafka.Options{Nodes: 3, Features: map[string]int{"transaction.version": 1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	client, err := cluster.Client(kgo.DefaultProduceTopic("t"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	if _, err := admin.CreateTopic(ctx, 6, -1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	versions, err := kmsg.NewPtrApiVersionsRequest().RequestWith(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(versions.FinalizedFeatures, func(f kmsg.ApiVersionsResponseFinalizedFeature) bool { return f.Name == "transaction.version" })
	if i < 0 || versions.FinalizedFeatures[i].MaxVersionLevel != 1 {
		t.Errorf("the features are %+v, want transaction.version 1", versions.FinalizedFeatures)
	}
	produced := 0
	produce := func(when string) {
		t.Helper()
		for range 100 {
			client.Produce(ctx, kgo.StringRecord(when), func(_ *kgo.Record, err error) {
				if err != nil {
					t.Errorf("%s: %v", when, err)
				}
			})
		}
		if err := client.Flush(ctx); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		produced += 100
	}
	node := cluster.Nodes[1]
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	produce("all nodes run")
	must(node.Kill())
	produce("one is killed")
	must(node.Start(ctx))
	ask := client.Broker(int(node.ID()))
	_, err = ask.RetriableRequest(ctx, kmsg.NewPtrApiVersionsRequest())
	must(err)
	must(node.Freeze())
	await(t, patience, "the frozen node to fall silent", func() (bool, string) {
		short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		_, err := ask.Request(short, kmsg.NewPtrApiVersionsRequest())
		return errors.Is(err, context.DeadlineExceeded), fmt.Sprint(err)
	})
	must(node.Thaw())
	produce("all run again")
	must(cluster.AwaitReady(ctx))

	listed, err := admin.ListEndOffsets(ctx, "t")
	must(err)
	total := int64(0)
	listed.Each(func(o kadm.ListedOffset) { total += o.Offset })
	if total != int64(produced) {
		t.Errorf("%d records are there, want %d", total, produced)
	}
}

// secureClient logs in at the broker's second listener.
func secureClient(t *testing.T, login sasl.Mechanism) *kgo.Client {
	t.Helper()
	ca, err := os.ReadFile(bed.cluster.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bed.cluster.SecureBrokers()...),
		kgo.DialTLSConfig(&tls.Config{RootCAs: roots}),
		kgo.SASL(login),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func TestLogins(t *testing.T) {
	t.Parallel()
	ctx := within(t, patience)
	topic := newTopic(t, "", 1)
	scramAuth := scram.Auth{User: "alice", Pass: users["alice"]}
	logins := map[string]sasl.Mechanism{
		"PLAIN":         plain.Auth{User: "alice", Pass: users["alice"]}.AsMechanism(),
		"SCRAM-SHA-256": scramAuth.AsSha256Mechanism(),
		"SCRAM-SHA-512": scramAuth.AsSha512Mechanism(),
	}
	for name, login := range logins {
		client := secureClient(t, login)
		if err := client.Ping(ctx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := client.ProduceSync(ctx, &kgo.Record{Topic: topic}).FirstErr(); !errors.Is(err, kerr.TopicAuthorizationFailed) {
			t.Errorf("%s: produce without a grant: %v, want %v", name, err, kerr.TopicAuthorizationFailed)
		}
	}
	grant(t, kadm.NewACLs().Allow("User:alice").Topics(topic).Operations(kadm.OpWrite, kadm.OpDescribe))
	client := secureClient(t, logins["SCRAM-SHA-256"])
	if err := client.ProduceSync(ctx, &kgo.Record{Topic: topic}).FirstErr(); err != nil {
		t.Errorf("produce with a grant: %v", err)
	}
	wrong := secureClient(t, scram.Auth{User: "alice", Pass: "wrong"}.AsSha256Mechanism())
	if err := wrong.Ping(ctx); !errors.Is(err, kerr.SaslAuthenticationFailed) {
		t.Errorf("a wrong password: %v, want %v", err, kerr.SaslAuthenticationFailed)
	}
}

// grant creates ACLs for literal names and waits until the broker knows them.
func grant(t *testing.T, acls *kadm.ACLBuilder) {
	t.Helper()
	acls.ResourcePatternType(kadm.ACLPatternLiteral).AllowHosts("*")
	created, err := bed.admin.CreateACLs(within(t, patience), acls)
	if err != nil {
		t.Fatal(err)
	}
	for _, acl := range created {
		if acl.Err != nil {
			t.Fatalf("%+v", acl)
		}
	}
	await(t, patience, "the broker to know what is granted", func() (bool, string) {
		known, err := bed.admin.DescribeACLs(t.Context(), acls)
		missing := slices.ContainsFunc(known, func(k kadm.DescribeACLsResult) bool { return k.Err != nil || len(k.Described) == 0 })
		return err == nil && !missing, fmt.Sprintf("%v, %v", known, err)
	})
}
