package valkey

import (
	"sync"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// progress remembers how far sweeps have come on each partition, for the kinds whose
// indexes keep what was looked at: lapsed leases until somebody takes the execution
// over, because peers look for them there (quirk 03 Q14), and what has ended and is
// kept longer than others. Now and then everything is looked at again, and at once
// when the clock has gone back: leases end before the mark then.
type progress struct {
	mu    sync.Mutex
	marks map[progressKey]mark
}

type progressKey struct {
	kind      ff.SweepKind
	partition uint16
}

// mark is how far the sweeps of a kind have come on a partition.
type mark struct {
	// until is the instant, in milliseconds, up to which everything was looked at.
	until int64
	// whole is when everything was looked at from the beginning; zero for never.
	whole time.Time
	// round is the one that is under way, if it has begun.
	round round
}

// round is one way through what is due of a kind on a partition; it may take several
// calls.
type round struct {
	// until is where it begins, in milliseconds; 0 for the beginning of the index.
	until int64
	// began is the instant of its first call, in milliseconds; 0 before that.
	began int64
	// place is the entry that it has come to: its index, score and id.
	place [3]string
}

// from is where the round begins, on the wire.
func (r *round) from() string {
	if r.until == 0 {
		return everything
	}
	return itoa(r.until)
}

// everything is where a sweep begins that looks at everything.
const everything = "-inf"

// markAges are how long a mark lasts. Kinds without one are not remembered: what they
// have looked at leaves the index, but for what is damaged.
var markAges = map[ff.SweepKind]time.Duration{ff.SweepLeaseExpiry: time.Minute, ff.SweepRetention: 10 * time.Minute}

// next is the round to go on with, or a new one.
func (g *progress) next(kind ff.SweepKind, p uint16) round {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.marks[progressKey{kind, p}]
	switch {
	case m.round.began != 0:
		return m.round
	case time.Since(m.whole) > markAges[kind]:
		return round{}
	}
	return round{until: m.until}
}

// paused notes how far a round has come that does not go on for now.
func (g *progress) paused(kind ff.SweepKind, p uint16, r *round) {
	g.change(kind, p, func(m *mark) { m.round = *r })
}

// done notes that a round has looked at everything.
func (g *progress) done(kind ff.SweepKind, p uint16, r *round) {
	g.change(kind, p, func(m *mark) {
		if r.until == 0 {
			m.whole = time.Now()
		}
		// More may become due in the millisecond in which it began.
		m.until, m.round = r.began-1, round{}
	})
}

func (g *progress) change(kind ff.SweepKind, p uint16, f func(*mark)) {
	if markAges[kind] == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.marks == nil {
		g.marks = map[progressKey]mark{}
	}
	m := g.marks[progressKey{kind, p}]
	f(&m)
	g.marks[progressKey{kind, p}] = m
}

// wentBack reports whether the clock of a partition is before a round of it, which it
// then forgets.
func (g *progress) wentBack(kind ff.SweepKind, p uint16, r *round, now int64) bool {
	if now >= r.until && now >= r.began {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.marks, progressKey{kind, p})
	return true
}

// forget forgets a partition whose indexes were repaired: they may have more now that
// was due long ago.
func (g *progress) forget(p uint16) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for kind := range markAges {
		delete(g.marks, progressKey{kind, p})
	}
}
