package valkey_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(heldWorkerURL); url != "" {
		os.Exit(heldWorker(url))
	}
	goleak.VerifyTestMain(m,
		// The client of a cluster closes connections to nodes that left seconds later.
		goleak.IgnoreAnyFunction("github.com/valkey-io/valkey-go.(*clusterClient)._refresh.func2"),
		// It looks at the topology again up to a second after the last time.
		goleak.IgnoreAnyFunction("github.com/valkey-io/valkey-go.(*call).DelayDo.func1"),
		// A proxy forgets both ends of a link to which a toxic is added while it ends.
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*NoopToxic).Pipe"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/stream.(*ChanWriter).Write"))
}
