package valkey

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/wake"
)

// The channels of wake-ups. A message of wakeChannel is the tag of the partition
// and the lane where something became claimable; of eventChannel the tag of the
// partition with a new event; of dueChannel a kind of sweep and an instant; of
// streamChannel an execution that has new frames or whose streams may be closed.
const (
	wakeChannel  = "ffx:wake"
	eventChannel = "ffx:event"
	dueChannel   = "ffx:due"

	streamChannel = "ffx:stream"
)

const (
	// markTTL is how long a mark of a waiting claim or reader lasts, and markFresh
	// how long this process relies on having left it.
	markTTL   = 2 * time.Minute
	markFresh = time.Minute
	// safetyPoll is how often who waits looks without having been woken: work of
	// peers that do not publish is found by it.
	safetyPoll = time.Second
	// fullLook is how often a waiting claim looks at all partitions, and briefLook
	// how often claims that do not wait do, all of a lane together.
	fullLook  = 2 * time.Second
	briefLook = 250 * time.Millisecond
	// hintFresh is how long a hint at a partition with work is kept, and spreadFresh
	// what partitions have executions of a lane. How far a claim has looked is kept
	// for farFresh.
	hintFresh   = time.Minute
	spreadFresh = time.Minute
	farFresh    = time.Minute
)

// wakeups receives wake-ups, on a connection of its own, while anybody waits. The
// first who waits starts it; it then stays for the life of the store.
type wakeups struct {
	s      *Store
	claims wake.Hub[ff.LaneID, struct{}]
	events wake.Hub[struct{}, struct{}]
	tails  wake.Hub[ff.ExecutionID, struct{}]

	once   sync.Once
	ready  chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	ended  chan struct{}

	mu     sync.Mutex
	marked memory[string, struct{}]
	hinted memory[ff.LaneID, partitionSet]
	looked memory[ff.LaneID, struct{}]
	spread memory[ff.LaneID, *spread]
	far    memory[view, [2]int64]
}

type partitionSet map[uint16]bool

// spread is which partitions have executions of a lane. While it is being read it is
// not whole, and takes what is published meanwhile.
type spread struct {
	places partitionSet
	whole  bool
}

// view is what a claimant sees of a place.
type view struct {
	at           place
	capabilities string
}

func newWakeups(s *Store) *wakeups {
	ctx, cancel := context.WithCancel(context.Background())
	return &wakeups{s: s, ctx: ctx, cancel: cancel, ready: make(chan struct{}), ended: make(chan struct{}),
		marked: newMemory[string, struct{}](markFresh), hinted: newMemory[ff.LaneID, partitionSet](hintFresh),
		looked: newMemory[ff.LaneID, struct{}](briefLook), spread: newMemory[ff.LaneID, *spread](spreadFresh), far: newMemory[view, [2]int64](farFresh)}
}

// start begins to receive and returns when the subscription is there, or when it
// cannot be had soon: then polling does.
func (w *wakeups) start(ctx context.Context) {
	w.once.Do(func() { go w.receive() })
	soon := time.NewTimer(time.Second)
	defer soon.Stop()
	select {
	case <-w.ready:
	case <-soon.C:
	case <-ctx.Done():
	case <-w.s.quit:
	}
}

func (w *wakeups) stop() {
	w.cancel()
	w.once.Do(func() { close(w.ended) })
	<-w.ended
}

// receive subscribes again whenever the connection is lost. What was published in
// between is lost with it: everybody who waits looks.
func (w *wakeups) receive() {
	defer close(w.ended)
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 50*time.Millisecond, 5*time.Second
	var subscribed sync.Once
	for w.ctx.Err() == nil {
		ctx := valkey.WithOnSubscriptionHook(w.ctx, func(valkey.PubSubSubscription) {
			subscribed.Do(func() { close(w.ready) })
			pause.Reset()
			w.forget()
		})
		command := w.s.client.B().Subscribe().Channel(wakeChannel, eventChannel, dueChannel, streamChannel).Build()
		err := w.s.client.Receive(ctx, command, w.message)
		if w.ctx.Err() != nil {
			return
		}
		w.s.log.Warn("the subscription to wake-ups broke; subscribing again", "store", w.s.location, "err", err)
		w.forget()
		select {
		case <-time.After(pause.NextBackOff()):
		case <-w.ctx.Done():
		}
	}
}

func (w *wakeups) message(m valkey.PubSubMessage) {
	switch m.Channel {
	case wakeChannel:
		if p, lane, ok := parseWake(m.Message); ok {
			w.unmark(tagOf(p).waiting(lane))
			w.hint(lane, p)
			w.claims.Wake(lane, struct{}{}, 1)
		}
	case eventChannel:
		if p, _, ok := parseWake(m.Message); ok {
			w.unmark(tagOf(p).eventsWaiting())
			w.events.WakeAll(struct{}{}, struct{}{})
		}
	case streamChannel:
		if id, err := ff.ParseExecutionID(m.Message); err == nil {
			w.tails.WakeAll(id, struct{}{})
		}
	case dueChannel:
		kind, at, _ := strings.Cut(m.Message, " ")
		if n, err := strconv.ParseInt(at, 10, 64); err == nil {
			w.s.due.Stored(ff.SweepKind(kind), time.UnixMilli(n))
		}
	}
}

// parseWake reads a tag and what follows it.
func parseWake(text string) (partition uint16, rest ff.LaneID, ok bool) {
	end := strings.IndexByte(text, '}') + 1
	p, err := ff.ParsePartitionKey(text[:end])
	return p.Index, ff.LaneID(text[end:]), err == nil
}

// forget wakes everybody and forgets all marks, and where they are needed.
func (w *wakeups) forget() {
	w.mu.Lock()
	w.marked.clear()
	w.spread.clear()
	w.mu.Unlock()
	w.claims.WakeEverybody()
	w.events.WakeAll(struct{}{}, struct{}{})
	w.tails.WakeEverybody()
}

func (w *wakeups) unmark(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.marked.drop(key)
}

// mark leaves the marks that are not there yet and reports whether there were any:
// whoever left one has to look again before waiting.
func (w *wakeups) mark(ctx context.Context, keys []string) (any bool, err error) {
	var commands []valkey.Completed
	w.mu.Lock()
	for _, key := range keys {
		if _, fresh := w.marked.get(key); !fresh {
			w.marked.put(key, struct{}{})
			commands = append(commands, w.s.client.B().Set().Key(key).Value("1").Px(markTTL).Build())
		}
	}
	w.mu.Unlock()
	if len(commands) == 0 {
		return false, nil
	}
	for i, r := range w.s.client.DoMulti(ctx, commands...) {
		if e := r.Error(); e != nil {
			err = w.s.lift(ctx, e)
			w.unmark(commands[i].Commands()[1])
		}
	}
	return true, err
}

// markPlaces are the partitions on which a claim leaves marks: that of the lane's
// executions outside of flows, and those that have executions of the lane. Whoever
// brings the first one to another partition publishes that without a mark.
func (s *Store) markPlaces(ctx context.Context, lanes []ff.LaneID) (list []place, err error) {
	unknown := s.wakeups.begin(lanes)
	if len(unknown) > 0 {
		if err := s.readSpread(ctx, unknown); err != nil {
			return nil, err
		}
	}
	w := s.wakeups
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, lane := range lanes {
		home := s.partitions.LanePartition(lane)
		list = append(list, place{lane, home})
		if known, ok := w.spread.get(lane); ok {
			for p := range known.places {
				if p != home {
					list = append(list, place{lane, p})
				}
			}
		}
	}
	return list, nil
}

// begin are the lanes of which it is not known which partitions have executions.
func (w *wakeups) begin(lanes []ff.LaneID) (unknown []ff.LaneID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, lane := range lanes {
		known, ok := w.spread.get(lane)
		if !ok {
			w.spread.put(lane, &spread{places: partitionSet{}})
		}
		if !ok || !known.whole {
			unknown = append(unknown, lane)
		}
	}
	return unknown
}

// readSpread asks all partitions which of the lanes they have. One that cannot tell
// may have all.
func (s *Store) readSpread(ctx context.Context, lanes []ff.LaneID) error {
	names := make([]string, len(lanes))
	for i, lane := range lanes {
		names[i] = string(lane)
	}
	commands := make([]valkey.Completed, s.partitions.Flow)
	for p := range s.partitions.Flow {
		commands[p] = s.client.B().Smismember().Key(tagOf(p).lanes()).Member(names...).Build()
	}
	results := s.client.DoMulti(ctx, commands...)
	w := s.wakeups
	w.mu.Lock()
	defer w.mu.Unlock()
	for p, r := range results {
		there, err := r.AsIntSlice()
		if _, refused := valkey.IsValkeyErr(err); err != nil && !refused {
			return s.lift(ctx, err)
		}
		for i, lane := range lanes {
			known, ok := w.spread.get(lane)
			if ok && (i >= len(there) || there[i] == 1) {
				known.places[uint16(p)] = true
			}
		}
	}
	for _, lane := range lanes {
		if known, ok := w.spread.get(lane); ok {
			known.whole = true
		}
	}
	return nil
}

// hint remembers that a partition has work in a lane.
func (w *wakeups) hint(lane ff.LaneID, p uint16) {
	w.mu.Lock()
	defer w.mu.Unlock()
	places, ok := w.hinted.get(lane)
	if !ok {
		places = partitionSet{}
	}
	places[p] = true
	w.hinted.put(lane, places)
	if known, ok := w.spread.get(lane); ok {
		known.places[p] = true
	}
}

func (w *wakeups) unhint(lane ff.LaneID, p uint16) {
	w.mu.Lock()
	defer w.mu.Unlock()
	places, _ := w.hinted.get(lane)
	if delete(places, p); len(places) == 0 {
		w.hinted.drop(lane)
	}
}

// lookedLately reports whether all partitions were looked at for the lanes just
// now; if not, the caller is about to.
func (w *wakeups) lookedLately(lanes []ff.LaneID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	lately := true
	for _, lane := range lanes {
		if _, ok := w.looked.get(lane); !ok {
			lately = false
			w.looked.put(lane, struct{}{})
		}
	}
	return lately
}

// likely are the partitions that may have work in a lane: that of the lane's
// executions outside of flows, and those hinted at.
func (w *wakeups) likely(lane ff.LaneID, cfg ff.PartitionConfig) []uint16 {
	home := cfg.LanePartition(lane)
	list := []uint16{home}
	w.mu.Lock()
	defer w.mu.Unlock()
	places, _ := w.hinted.get(lane)
	for p := range places {
		if p != home {
			list = append(list, p)
		}
	}
	return list
}

// passOn lets one more claim look at lanes in which another found work.
func (w *wakeups) passOn(lanes []ff.LaneID) {
	for _, lane := range lanes {
		w.claims.Wake(lane, struct{}{}, 1)
	}
}

// lookedTo is how far claims have looked at what a claimant may not have.
func (w *wakeups) lookedTo(v view) [2]int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	far, _ := w.far.get(v)
	return far
}

// lookOn remembers how far a claim has looked; nothing when it has seen all.
func (w *wakeups) lookOn(v view, far [2]int64, all bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if all {
		w.far.drop(v)
		return
	}
	w.far.put(v, far)
}
