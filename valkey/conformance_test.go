package valkey_test

import (
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
	s, err := valkey.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestConformanceStandalone(t *testing.T) {
	clock := valkeytest.NewClock(t)
	server := valkeytest.Start(t, valkeytest.WithClock(clock))
	backendtest.Exercise(t, func(t *testing.T) backendtest.Store {
		if err := server.Do("FLUSHALL").Error(); err != nil {
			t.Fatal(err)
		}
		open := func(t *testing.T) ff.Backend {
			return openStore(t, server.URL(), valkey.Options{Partitions: fewPartitions})
		}
		first := open(t)
		return backendtest.Store{Backend: first, Advance: func(d time.Duration) { clock.Advance(d) },
			Reopen: func(t *testing.T) ff.Backend {
				if err := first.Close(); err != nil {
					t.Fatal(err)
				}
				return open(t)
			}}
	})
}
