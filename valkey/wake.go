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
// partition with a new event; of dueChannel a kind of sweep and an instant.
const (
	wakeChannel  = "ffx:wake"
	eventChannel = "ffx:event"
	dueChannel   = "ffx:due"
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
)

// wakeups receives wake-ups, on a connection of its own, while anybody waits. The
// first who waits starts it; it then stays for the life of the store.
type wakeups struct {
	s      *Store
	claims wake.Hub[ff.LaneID, struct{}]
	events wake.Hub[struct{}, struct{}]

	once   sync.Once
	ready  chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	ended  chan struct{}

	mu     sync.Mutex
	marked map[string]time.Time
	hinted map[ff.LaneID]map[uint16]bool
	looked map[ff.LaneID]time.Time
}

func newWakeups(s *Store) *wakeups {
	ctx, cancel := context.WithCancel(context.Background())
	return &wakeups{s: s, ctx: ctx, cancel: cancel, ready: make(chan struct{}), ended: make(chan struct{}),
		marked: map[string]time.Time{}, hinted: map[ff.LaneID]map[uint16]bool{}, looked: map[ff.LaneID]time.Time{}}
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
		command := w.s.client.B().Subscribe().Channel(wakeChannel, eventChannel, dueChannel).Build()
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

// forget wakes everybody and forgets all marks.
func (w *wakeups) forget() {
	w.mu.Lock()
	clear(w.marked)
	w.mu.Unlock()
	w.claims.WakeEverybody()
	w.events.WakeAll(struct{}{}, struct{}{})
}

func (w *wakeups) unmark(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.marked, key)
}

// mark leaves the marks that are not there yet and reports whether there were any:
// whoever left one has to look again before waiting.
func (w *wakeups) mark(ctx context.Context, keys []string) (any bool, err error) {
	now := time.Now()
	var commands []valkey.Completed
	w.mu.Lock()
	for _, key := range keys {
		if now.Sub(w.marked[key]) > markFresh {
			w.marked[key] = now
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

// hint remembers that a partition has work in a lane.
func (w *wakeups) hint(lane ff.LaneID, p uint16) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hinted[lane] == nil {
		w.hinted[lane] = map[uint16]bool{}
	}
	w.hinted[lane][p] = true
}

func (w *wakeups) unhint(lane ff.LaneID, p uint16) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.hinted[lane], p)
}

// lookedLately reports whether all partitions were looked at for the lanes just
// now; if not, the caller is about to.
func (w *wakeups) lookedLately(lanes []ff.LaneID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now, lately := time.Now(), true
	for _, lane := range lanes {
		if now.Sub(w.looked[lane]) > briefLook {
			lately = false
			w.looked[lane] = now
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
	for p := range w.hinted[lane] {
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
