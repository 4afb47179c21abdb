package valkey_test

import (
	"testing"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

// withoutExtensions is what a store without the extensions lacks.
var withoutExtensions = map[string]string{
	"a lapsed grant is refused and the execution is open again": grantsEnd,
	"every change of a lease and every end is an event":         noLog,
	"events are read in order, each once, by pages":             noLog,
	"families are apart and the cursor moves past the others":   noLog,
	"a reader that waits hears of an event within milliseconds": noLog,
	"readers see every event of concurrent commands":            noLog,
	"signals, resumptions and escalations are events":           noSignals,
	"summary frames push out no others":                         trims,
}

const (
	trims     = "the compatible function trims a stream to 64 frames for a summary"
	noLog     = "the compatible functions write no log of all events"
	noSignals = "the compatible functions leave no entry in the lease history about signals and resumptions"
	grantsEnd = "the key of a grant ends with it: a claim that comes late is told that there is none, and the execution is open at once"
)

func openBackend(t *testing.T, url string, o valkey.Options) ff.Backend {
	t.Helper()
	b, err := valkey.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// without opens a store that does without the extensions.
func without(url string) func(*testing.T) ff.Backend {
	return func(t *testing.T) ff.Backend {
		return openBackend(t, url, valkey.Options{Partitions: fewPartitions, Extensions: valkey.ExtensionsOff})
	}
}

func TestConformanceWithoutExtensions(t *testing.T) {
	clock := valkeytest.NewClock(t)
	server := valkeytest.Start(t, valkeytest.WithClock(clock))
	modelRuns(t, 100)
	exercise(t, clock, without(server.URL()), withoutExtensions, server)
	if functions, err := server.Do("FUNCTION", "LIST", "LIBRARYNAME", valkey.ExtensionsName).ToArray(); err != nil || len(functions) > 0 {
		t.Errorf("the extensions were loaded (%v)", err)
	}
}

func TestConformanceWithoutExtensionsCluster(t *testing.T) {
	clock := valkeytest.NewClock(t)
	cluster := valkeytest.StartCluster(t, valkeytest.WithClock(clock))
	modelRuns(t, 15)
	exercise(t, clock, without(cluster.URL()), withoutExtensions, cluster.Nodes...)
}
