package client_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/goleak"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/server"
	"github.com/flowfabric/flowfabric/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what should take milliseconds.
const patience = 20 * time.Second

// api is the server's handler over a store.
func api(t testing.TB, store ff.Backend, o server.Options) http.Handler {
	t.Helper()
	s, err := server.New(store, o)
	if err != nil {
		t.Fatal(err)
	}
	return s.Handler()
}

// listen serves a handler until the end of the test.
func listen(t testing.TB, h http.Handler) string {
	t.Helper()
	hs := httptest.NewServer(h)
	t.Cleanup(hs.Close)
	return hs.URL
}

// dial makes a client that the test closes.
func dial(t testing.TB, url string, options ...client.Option) *client.Client {
	t.Helper()
	c, err := client.New(url, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// connected is a client of a server over a fresh store.
func connected(t testing.TB, options ...client.Option) *client.Client {
	t.Helper()
	return dial(t, listen(t, api(t, storetest.OpenWithEngine(t), server.Options{})), options...)
}

// work runs a worker over HTTP until the end of the test.
func work(t testing.TB, c *client.Client, register func(*worker.Worker)) {
	t.Helper()
	w, err := worker.Connect(t.Context(), c.Backend(), worker.Config{Worker: "w", Lanes: []ff.LaneID{"l"}, PollInterval: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	register(w)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("worker: %v", err)
		}
	})
}

// within is a context that ends a test which hangs.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// someone is a claimant.
func someone(instance ff.WorkerInstanceID) ff.Claimant {
	return ff.Claimant{Worker: "w", Instance: instance}
}
