// Package valkey implements flowfabric.Backend on Valkey, standalone, with
// Sentinel or as a cluster. It shares keys and functions with FlowFabric in Rust:
// workers and servers of both may use one deployment.
//
// # Two libraries
//
// Every transition runs inside the server, in functions. The library `flowfabric`
// is the compatible one: the functions of the reference with the same arguments,
// replies and writes. The library `flowfabric_go` has the extensions, functions
// that do in one call what takes several with the compatible ones: create many,
// claim up to N, renew many. The rules of both are those of package lifecycle,
// which the model test holds against them.
//
// # Wake-ups
//
// A claim that waits leaves a mark on each partition that has executions of its lane
// (lane waiting). A function that makes an execution claimable removes the mark and
// publishes, so nothing is published to workers while all are busy, but for the first
// execution that a lane has on a partition. Readers of events do the same. What makes
// something due later, a delay, a retry or a grant, publishes when, for the loops of
// engines; a batch of submits the earliest alone.
package valkey

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/wake"
)

// Options are the settings of a store. The zero value is good.
type Options struct {
	// Partitions seeds the partition configuration of an empty store and must
	// equal that of another; zero counts take what is stored, or the defaults.
	Partitions ff.PartitionConfig
	// Lanes are added to the lanes that the store knows.
	Lanes []ff.LaneID
	// Retention is how long terminal executions without a retention of their own
	// are kept; zero means ff.DefaultRetention.
	Retention time.Duration
	// Connect bounds the time that opening may take while the server cannot be
	// reached or is too old; zero means DefaultConnect.
	Connect time.Duration
	// Extensions says whether the extension library is used; ExtensionsAuto takes what
	// the URL says.
	Extensions ExtensionUse
	// MustExist refuses a database that no store has been made in, and writes nothing
	// there.
	MustExist bool
	// WaitpointSecret is the first secret that signs waitpoints, in hex digits; the one of
	// FF_WAITPOINT_HMAC_SECRET when empty. A store that has one keeps it; one that gets
	// none makes a random one when it first needs it.
	WaitpointSecret string
	// ForceReload loads the libraries even when they are there.
	ForceReload bool
	Logger      *slog.Logger
}

// DefaultConnect is how long opening tries to reach a server.
const DefaultConnect = 10 * time.Second

// Store is a store on Valkey.
type Store struct {
	client     valkey.Client
	location   string
	user       string
	timeout    time.Duration // of one command
	cluster    bool
	partitions ff.PartitionConfig
	retention  time.Duration
	log        *slog.Logger
	version    string
	durability string

	extensions ExtensionUse
	ways       ways

	loading  sync.Mutex
	lanes    laneSet
	wakeups  *wakeups
	due      wake.Due[ff.SweepKind]
	progress progress
	repairs  reconciliation
	trimming interval
	lead     lead

	closing  sync.Once
	starting sync.RWMutex
	quit     chan struct{}
	loops    sync.WaitGroup
	// life is the context of work in the background, which end ends.
	life context.Context
	end  context.CancelFunc
}

var _ ff.Backend = (*Store)(nil)

// Open connects to a Valkey by its URL (see [ParseURL]) and prepares it: it
// checks the server, seeds or compares the partition configuration, loads the
// function libraries and adds the lanes (spec 06 §10). It gives a *Store, or where the
// extensions are not to be used a store that does without. Errors: invalid_input for
// the URL, unsupported_store for a server that cannot be used, transport and
// unavailable when it cannot be reached in time.
func Open(ctx context.Context, url string, o Options) (ff.Backend, error) {
	target, err := ParseURL(url)
	if err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Retention == 0 {
		o.Retention = ff.DefaultRetention
	}
	if o.Connect == 0 {
		o.Connect = DefaultConnect
	}
	if o.Extensions == ExtensionsAuto {
		o.Extensions = target.extensions
	}
	s := &Store{lead: newLead(), location: target.location, user: target.option.Username, timeout: target.option.ConnWriteTimeout, cluster: target.Cluster,
		retention: o.Retention, log: o.Logger, extensions: o.Extensions, quit: make(chan struct{})}
	s.live()
	if err := s.boot(ctx, target, &o); err != nil {
		s.end()
		if s.client != nil {
			s.client.Close()
		}
		return nil, err
	}
	s.wakeups = newWakeups(s)
	return s.begun(), nil
}

// Close ends the waiting calls and the connections. Later commands get
// unavailable.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.starting.Lock()
		close(s.quit)
		s.starting.Unlock()
		s.wakeups.stop()
		patience := time.AfterFunc(handBackTimeout, s.end)
		s.loops.Wait()
		patience.Stop()
		s.end()
		s.resign()
		s.client.Close()
	})
	return nil
}

// Ping asks the server.
func (s *Store) Ping(ctx context.Context) error {
	_, err := s.plain(ctx, s.client.B().Ping().Build())
	return err
}

// Now is the server's clock.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	m, err := s.plain(ctx, s.client.B().Time().Build())
	if err != nil {
		return time.Time{}, err
	}
	parts, err := m.AsStrSlice()
	if err != nil || len(parts) < 2 {
		return time.Time{}, ff.NewError(ff.CodeTransport, "TIME returned fewer than 2 elements")
	}
	seconds, err1 := strconv.ParseInt(parts[0], 10, 64)
	micros, err2 := strconv.ParseInt(parts[1], 10, 64)
	if err1 != nil || err2 != nil {
		return time.Time{}, ff.NewError(ff.CodeTransport, "TIME: invalid seconds or microseconds")
	}
	return time.UnixMilli(seconds*1000 + micros/1000), nil
}

// Info describes the store.
func (s *Store) Info(context.Context) (ff.Info, error) {
	return ff.Info{Store: "valkey", Version: s.version, Location: s.location, Durability: s.durability, Partitions: s.partitions}, nil
}

// laneSet remembers what the store has in its indexes of lanes: the names, and on
// which partitions they have executions.
type laneSet struct {
	mu     sync.RWMutex
	names  map[ff.LaneID]bool
	places map[place]bool
}

// mostKnown bounds what is remembered: names come from callers, and what is forgotten
// is only written again.
const mostKnown = 1 << 16

func (l *laneSet) has(lane ff.LaneID) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.names[lane]
}

func (l *laneSet) add(lanes ...ff.LaneID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.names == nil {
		l.names = map[ff.LaneID]bool{}
	}
	if len(l.names) > mostKnown {
		clear(l.names)
	}
	for _, lane := range lanes {
		l.names[lane] = true
	}
}

func (l *laneSet) isAt(p place) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.places[p]
}

func (l *laneSet) put(p place) {
	if l.isAt(p) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.places == nil {
		l.places = map[place]bool{}
	}
	if len(l.places) > mostKnown {
		clear(l.places)
	}
	l.places[p] = true
}

// announce adds lanes to the index of the store (quirk 06 E17).
func (s *Store) announce(ctx context.Context, lanes ...ff.LaneID) error {
	var news []string
	for _, lane := range lanes {
		if !s.lanes.has(lane) {
			news = append(news, string(lane))
		}
	}
	if len(news) == 0 {
		return nil
	}
	if _, err := s.plain(ctx, s.client.B().Sadd().Key(lanesKey).Member(news...).Build()); err != nil {
		return err
	}
	s.lanes.add(lanes...)
	return nil
}

// readLanes are the lanes of the index, in no order. Names that cannot be lanes
// are left out.
func (s *Store) readLanes(ctx context.Context) ([]ff.LaneID, error) {
	m, err := s.plain(ctx, s.client.B().Smembers().Key(lanesKey).Build())
	if err != nil {
		return nil, err
	}
	names, err := m.AsStrSlice()
	if err != nil {
		return nil, ff.Errorf(ff.CodeCorruption, "%s: %w", lanesKey, err)
	}
	lanes := make([]ff.LaneID, 0, len(names))
	for _, name := range names {
		lane, err := ff.ParseLaneID(name)
		if err != nil {
			s.log.Warn("a name in the index of lanes is no lane", "key", lanesKey, "name", name)
			continue
		}
		lanes = append(lanes, lane)
	}
	s.lanes.add(lanes...)
	return lanes, nil
}

// eachPartition calls a function of every partition, in one pipeline per node.
func (s *Store) eachPartition(ctx context.Context, build func(uint16) call) []result {
	calls := make([]call, s.partitions.Flow)
	for p := range s.partitions.Flow {
		calls[p] = build(p)
	}
	return s.doMulti(ctx, calls)
}

// partitionsInTurn is how many partitions a loop asks at once.
const partitionsInTurn = 32

// inTurns is eachPartition for loops: nobody waits for their answers, so they let
// others in between.
func (s *Store) inTurns(ctx context.Context, build func(uint16) call) []result {
	results := make([]result, 0, s.partitions.Flow)
	for first := 0; first < int(s.partitions.Flow); first += partitionsInTurn {
		calls := make([]call, min(partitionsInTurn, int(s.partitions.Flow)-first))
		for i := range calls {
			calls[i] = build(uint16(first + i))
		}
		results = append(results, s.doMulti(ctx, calls)...)
	}
	return results
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// ms is an instant on the wire; the zero time is empty.
func ms(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return itoa(t.UnixMilli())
}

// millis is a duration on the wire.
func millis(d time.Duration) string { return itoa(d.Milliseconds()) }
