package client_test

import (
	"flag"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flowfabric/flowfabric/backendtest"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/server"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

// TestConformance runs the suite of all stores over a server on a real store: a
// worker cannot tell a remote store from one in its own process. The model test
// does fewer steps than on the store itself unless -rapid.checks asks for more.
func TestConformance(t *testing.T) {
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		defer flag.Set("rapid.checks", checks.DefValue)
		if err := flag.Set("rapid.checks", "15"); err != nil {
			t.Fatal(err)
		}
	}
	backendtest.Exercise(t, func(t *testing.T) backendtest.Store {
		var moved atomic.Int64
		start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		store := storetest.Open(t, sqlite.Options{Clock: func() time.Time { return start.Add(time.Duration(moved.Load())) }})
		c := dial(t, listen(t, api(t, store, server.Options{})))
		return backendtest.Store{Backend: c.Backend(), Advance: func(d time.Duration) { moved.Add(int64(d)) }}
	})
}
