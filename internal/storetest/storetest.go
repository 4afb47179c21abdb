// Package storetest opens stores for the tests of the packages above them.
package storetest

import (
	"context"
	"testing"

	"github.com/flowfabric/flowfabric/engine"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

// Open opens an empty store in memory that the test closes at its end.
func Open(t testing.TB, o sqlite.Options) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), ":memory:", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	return s
}

// OpenWithEngine opens an empty store in memory and runs an engine on it; the
// test stops both at its end.
func OpenWithEngine(t testing.TB) *sqlite.Store {
	t.Helper()
	s := Open(t, sqlite.Options{})
	e, err := engine.New(s, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the engine: %v", err)
		}
	})
	return s
}
