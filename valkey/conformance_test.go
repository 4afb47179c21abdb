package valkey_test

import (
	"flag"
	"strconv"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/backendtest"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

// fewPartitions keep the suite fast: every listing and sweep asks all of them.
var fewPartitions = ff.PartitionConfig{Flow: 4, Budget: 2, Quota: 2}

func openStore(t *testing.T, url string, o valkey.Options) *valkey.Store {
	t.Helper()
	b, err := valkey.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	s, ok := b.(*valkey.Store)
	if !ok {
		t.Fatalf("the store is a %T", b)
	}
	return s
}

func TestConformanceStandalone(t *testing.T) {
	clock := valkeytest.NewClock(t)
	server := valkeytest.Start(t, valkeytest.WithClock(clock))
	modelRuns(t, 700)
	exercise(t, clock, func(t *testing.T) ff.Backend {
		return openStore(t, server.URL(), valkey.Options{Partitions: fewPartitions})
	}, nil, server)
}

func TestConformanceCluster(t *testing.T) {
	clock := valkeytest.NewClock(t)
	cluster := valkeytest.StartCluster(t, valkeytest.WithClock(clock))
	modelRuns(t, 60)
	exercise(t, clock, func(t *testing.T) ff.Backend {
		return openStore(t, cluster.URL(), valkey.Options{Partitions: fewPartitions})
	}, nil, cluster.Nodes...)
}

// modelRuns says how often the model test runs, some 33 commands each time, unless
// -rapid.checks does.
func modelRuns(t *testing.T, n int) {
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if given {
		return
	}
	checks := flag.Lookup("rapid.checks")
	before := checks.Value.String()
	if err := checks.Value.Set(strconv.Itoa(n)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = checks.Value.Set(before) })
}

// exercise runs the conformance suite on servers that are emptied each time.
func exercise(t *testing.T, clock *valkeytest.Clock, open func(*testing.T) ff.Backend, lacks map[string]string, servers ...*valkeytest.Server) {
	backendtest.Exercise(t, func(t *testing.T) backendtest.Store {
		for _, server := range servers {
			if err := server.Do("FLUSHALL").Error(); err != nil {
				t.Fatal(err)
			}
		}
		first := open(t)
		return backendtest.Store{Backend: first, Advance: func(d time.Duration) { clock.Advance(d) }, Lacks: lacks,
			Reopen: func(t *testing.T) ff.Backend {
				if err := first.Close(); err != nil {
					t.Fatal(err)
				}
				return open(t)
			}}
	})
}
