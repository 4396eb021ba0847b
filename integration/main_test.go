// Package integration runs the built binary on a real Kafka and reads what it
// wrote with a client of its own.
//
// One broker serves all tests, each of which has topics and groups of its own.
// Tests that need the machine or the broker for themselves run one after another;
// the others are parallel, and Go runs those when the first are done.
package integration

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"seriatim/internal/testkafka"
)

// bed is what the tests share.
var bed struct {
	cluster *testkafka.Cluster
	client  *kgo.Client // of the first listener
	admin   *kadm.Client
	leash   *testkafka.Leash // holds the instances
	dir     string
	binary  string
}

// users may log in at the broker's second listener.
var users = map[string]string{"alice": "in wonderland", "bob": "builder", "carol": "a christmas"}

// results is where the broker's log is kept when a test fails.
const results = "../.cache/test"

var seed = flag.Uint64("seed", rand.Uint64(), "seed of what the tests leave to chance")

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(holdCluster) != "" {
		holdClusterForEver()
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	fmt.Fprintf(os.Stderr, "seed %d\n", *seed)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	defer tearDown()
	if err := setUp(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if code != 0 {
		fmt.Fprintf(os.Stderr, "the end of the broker's log; all of it is in %s\n%s", results, bed.cluster.LogTail(30))
		if err := bed.cluster.KeepLogs(results); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	return code
}

func setUp(ctx context.Context) (err error) {
	if bed.dir, err = os.MkdirTemp("", "seriatim-integration-"); err != nil {
		return err
	}
	if bed.leash, err = testkafka.NewLeash(bed.dir); err != nil {
		return err
	}
	bed.binary = filepath.Join(bed.dir, "seriatim")
	var g errgroup.Group
	g.Go(func() error {
		build := exec.CommandContext(ctx, "go", "build", "-o", bed.binary, "seriatim/cmd/seriatim")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, out)
		}
		return nil
	})
	g.Go(func() (err error) {
		bed.cluster, err = testkafka.Start(ctx, testkafka.Options{Users: users})
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	if bed.client, err = bed.cluster.Client(); err != nil {
		return err
	}
	bed.admin = kadm.NewClient(bed.client)
	return nil
}

// tearDown ends instances before the broker.
func tearDown() {
	if bed.client != nil {
		bed.client.Close()
	}
	var err error
	if bed.leash != nil {
		err = bed.leash.Close()
	}
	if bed.cluster != nil {
		err = errors.Join(err, bed.cluster.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// random returns a source that depends on the seed and the test alone.
func random(t *testing.T) *rand.Rand {
	var h uint64 = 14695981039346656037 // FNV-1a
	for _, b := range []byte(t.Name()) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return rand.New(rand.NewPCG(*seed, h))
}
