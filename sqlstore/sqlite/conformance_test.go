package sqlite_test

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/backendtest"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

// manualClock is a clock that stands still until it is moved.
type manualClock struct{ ms atomic.Int64 }

func newManualClock() *manualClock {
	c := &manualClock{}
	c.ms.Store(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixMilli())
	return c
}

func (c *manualClock) now() time.Time          { return time.UnixMilli(c.ms.Load()).UTC() }
func (c *manualClock) advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

func TestConformanceInMemory(t *testing.T) {
	backendtest.Exercise(t, func(t *testing.T) backendtest.Store {
		clock := newManualClock()
		return backendtest.Store{Backend: open(t, ":memory:", sqlite.Options{Clock: clock.now}), Advance: clock.advance}
	})
}

func TestConformanceOnAFile(t *testing.T) {
	backendtest.Exercise(t, func(t *testing.T) backendtest.Store {
		clock, path := newManualClock(), filepath.Join(t.TempDir(), "f.db")
		opts := sqlite.Options{Clock: clock.now, Synchronous: sqlite.Normal}
		first := open(t, path, opts)
		return backendtest.Store{Backend: first, Advance: clock.advance, Reopen: func(t *testing.T) ff.Backend {
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			again, err := sqlite.Open(context.Background(), path, opts)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = again.Close() })
			return again
		}}
	})
}
