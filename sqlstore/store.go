// Package sqlstore implements flowfabric.Backend on SQL databases. It loads
// records, applies the rules of package lifecycle and saves what changed; the
// rules themselves are nowhere in here. What differs between databases is
// behind Driver: package sqlite opens the embedded store.
//
// # Commands
//
// Everything that writes is a command: a closure that runs in the goroutine of
// the writer. Commands that arrive together share one transaction, so that one
// fsync serves them all; each caller gets its answer after the commit. Most
// commands check and apply their rule before their first write and therefore
// need no savepoint of their own. A caller whose context ends before its command
// is begun withdraws it; once begun, the caller waits for the commit.
package sqlstore

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/wake"
)

// Config is what a Store needs besides its driver.
type Config struct {
	Partitions ff.PartitionConfig
	// Clock is the clock of the store.
	Clock func() time.Time
	// Retention is how long terminal executions without a retention of their own
	// are kept.
	Retention time.Duration
	Logger    *slog.Logger
}

// Store holds what all dialects share. It implements flowfabric.Backend except
// for Info and Close.
type Store struct {
	driver     Driver
	partitions ff.PartitionConfig
	clock      func() time.Time
	retention  time.Duration
	log        *slog.Logger

	writer       *writer
	names        *interned
	capabilities *capabilities
	counts       *counts
	claims       wake.Hub[ff.LaneID, ff.CapabilitySet]
	events       wake.Hub[struct{}, struct{}]
	// tails are the readers that wait for frames, by execution.
	tails wake.Hub[ff.ExecutionID, int]
	// lastEvent is the highest id of an event that may be committed.
	lastEvent atomic.Int64
	due       wake.Due[ff.SweepKind]
}

// New reads what the store keeps in memory and starts the writer. Stop ends it.
func New(ctx context.Context, d Driver, cfg Config) (*Store, error) {
	s := &Store{
		driver: d, partitions: cfg.Partitions, clock: cfg.Clock, retention: cfg.Retention, log: cfg.Logger,
		names: newInterned(selectNames), capabilities: newCapabilities(), counts: newCounts(),
	}
	conn, release := d.Writer()
	defer release()
	w, err := newWriter(s, conn)
	if err == nil {
		err = s.warm(conn)
	}
	if err != nil {
		return nil, d.Error(err)
	}
	s.writer = w
	s.lastEvent.Store(w.tx.events.next - 1)
	go w.loop()
	return s, nil
}

// warm loads the small tables that are kept in memory.
func (s *Store) warm(c Conn) error {
	if err := s.names.load(c); err != nil {
		return err
	}
	if err := s.capabilities.load(c); err != nil {
		return err
	}
	return s.counts.load(c)
}

// Stop ends the writer after the commands that it has accepted; later ones get
// unavailable.
func (s *Store) Stop() { s.writer.stop() }

// now is the clock in the precision that is stored.
func (s *Store) now() time.Time { return round(s.clock()) }

// Now is the store's clock.
func (s *Store) Now(context.Context) (time.Time, error) { return s.now(), nil }

// Ping runs a command that does nothing, which shows that the writer answers.
func (s *Store) Ping(ctx context.Context) error {
	_, err := write(ctx, s, func(t *tx) (struct{}, error) {
		return struct{}{}, t.query(selectOne, nil, nil)
	})
	return err
}

var selectOne = statement("select 1")

// read runs fn on a connection for reading.
func read[R any](ctx context.Context, s *Store, fn func(Conn) (R, error)) (R, error) {
	c, release, err := s.driver.Read(ctx)
	if err != nil {
		var none R
		return none, s.driver.Error(err)
	}
	defer release()
	r, err := fn(c)
	return r, s.driver.Error(err)
}

// interned gives numbers to repeated texts. The memory holds every row of its
// table, and may hold rows of a transaction that is not committed yet.
type interned struct {
	all *Statement

	mu    sync.RWMutex
	ids   map[string]int64
	texts map[int64]string
	last  int64
}

var (
	selectNames          = statement("select id, name from names where id > 0")
	insertName           = statement("insert into names (id, name) values ($1, $2)")
	selectCapabilitySets = statement("select id, tokens from capability_sets where id > 0")
	insertCapabilitySet  = statement("insert into capability_sets (id, tokens) values ($1, $2)")
)

func newInterned(all *Statement) *interned {
	return &interned{all: all, ids: map[string]int64{}, texts: map[int64]string{}}
}

func (n *interned) load(c Conn) error {
	return c.Query(n.all, nil, func(r Row) error {
		n.put(r.Int(0), r.Text(1))
		return nil
	})
}

func (n *interned) put(id int64, text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ids[text], n.texts[id] = id, text
	n.last = max(n.last, id)
}

func (n *interned) drop(id int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.ids, n.texts[id])
	delete(n.texts, id)
}

func (n *interned) id(text string) (int64, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	id, ok := n.ids[text]
	return id, ok
}

func (n *interned) name(id int64) string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.texts[id]
}

// capabilities are the interned sets in their parsed form.
type capabilities struct {
	*interned
	mu   sync.RWMutex
	sets map[int64]ff.CapabilitySet
}

func newCapabilities() *capabilities {
	return &capabilities{interned: newInterned(selectCapabilitySets), sets: map[int64]ff.CapabilitySet{}}
}

// set is the parsed form of a set. A text that does not parse was damaged by
// somebody else and reads as the empty set.
func (c *capabilities) set(id int64) ff.CapabilitySet {
	c.mu.RLock()
	set, ok := c.sets[id]
	c.mu.RUnlock()
	if ok {
		return set
	}
	set, _ = ff.ParseCapabilityCSV(c.name(id))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sets[id] = set
	return set
}
