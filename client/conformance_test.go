package client_test

import (
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/backendtest"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/server"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

// TestConformance runs the suite of all stores over a server on a real store: a
// worker cannot tell a remote store from one in its own process.
func TestConformance(t *testing.T) {
	backendtest.Exercise(t, func(t *testing.T) backendtest.Store {
		var offset atomic.Int64
		start := time.Now().Truncate(time.Millisecond)
		clock := func() time.Time { return start.Add(time.Duration(offset.Load())) }
		path := filepath.Join(t.TempDir(), "flowfabric.db")
		s := backendtest.Store{
			Backend: remote(t, path, clock),
			Advance: func(d time.Duration) { offset.Add(int64(d)) },
		}
		return s
	})
}

// remote is a store behind a server.
func remote(t *testing.T, path string, clock func() time.Time) ff.Backend {
	store, err := sqlite.Open(t.Context(), path, sqlite.Options{Clock: clock, Synchronous: sqlite.Off})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := server.New(store, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewServer(srv.Handler())
	c, err := client.New(hs.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		hs.Close()
		store.Close()
	})
	return c.Backend()
}
