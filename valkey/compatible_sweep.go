package valkey

import (
	"context"
	"sync"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// placesPerSweep bounds the pairs of a lane and a partition that one sweep looks at:
// those where the executions outside of flows are each time, the others in turns.
const placesPerSweep = 2048

// rounds remembers where the turns of each kind are, which partitions were scanned in
// vain, and how many of the lapsed leases of each claims have looked at.
type rounds struct {
	mu     sync.Mutex
	at     map[ff.SweepKind]int
	rests  map[uint16]time.Time
	lapsed map[uint16]int64
}

// lapsedFrom is the rank from which claims look at the lapsed leases of a partition.
func (r *rounds) lapsedFrom(p uint16) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lapsed[p]
}

// lapsedSeen says how many they have seen of a page; fewer than all are the last.
func (r *rounds) lapsedSeen(p uint16, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lapsed == nil {
		r.lapsed = map[uint16]int64{}
	}
	if n < lostPage {
		delete(r.lapsed, p)
	} else {
		r.lapsed[p] += lostPage
	}
}

// scanRest is how long a partition is left alone whose scan found nothing to repair
// although its counts disagree: some states have no index.
const scanRest = 10 * time.Minute

func (r *rounds) resting(p uint16) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.rests[p]) < scanRest
}

func (r *rounds) rest(p uint16, inVain bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rests == nil {
		r.rests = map[uint16]time.Time{}
	}
	if delete(r.rests, p); inVain {
		r.rests[p] = time.Now()
	}
}

// turn gives the start of the next n of all.
func (r *rounds) turn(kind ff.SweepKind, n, all int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at == nil {
		r.at = map[ff.SweepKind]int{}
	}
	start := r.at[kind] % all
	r.at[kind] = (start + n) % all
	return start
}

// dueIndex is one index by time.
type dueIndex struct {
	p    uint16
	key  string
	lane ff.LaneID
	// shift is added to a score to have the instant at which something is due.
	shift time.Duration
	// after bounds the scores that are looked at; offset is how many behind it stay.
	after  string
	offset int64
}

// dueEntry is what one index has.
type dueEntry struct {
	index *dueIndex
	text  string
	id    ff.ExecutionID
	score int64
}

// fate is what became of an entry: whether something was done, and whether it stays
// in its index.
type fate struct {
	done, left bool
	err        error
}

// Sweep does what is due of one kind: it reads the heads of the indexes of all
// partitions together, and calls a function for each entry.
func (s *compatible) Sweep(ctx context.Context, c ff.Sweep) (r ff.SweepResult, err error) {
	if err := checkSweep(&c); err != nil {
		return r, err
	}
	if leads, err := s.leads(ctx, &c); err != nil || !leads {
		return r, err
	}
	if r.Now, err = s.Now(ctx); err != nil {
		return r, err
	}
	if c.Kind == ff.SweepIndex {
		return r, s.repairIndexes(ctx, &r)
	}
	rounds := make([]round, s.partitions.Flow)
	for p := range s.partitions.Flow {
		rounds[p] = s.progress.next(c.Kind, p)
		if s.progress.wentBack(c.Kind, p, &rounds[p], r.Now.UnixMilli()) {
			rounds[p] = round{}
		}
		rounds[p].began = r.Now.UnixMilli()
	}
	s.due.Looking(c.Kind)
	indexes, err := s.dueIndexes(ctx, c.Kind, rounds)
	if err != nil {
		return r, err
	}
	for pending := indexes; len(pending) > 0 && r.Processed < c.Limit; {
		if pending, err = s.sweepRound(ctx, pending, &c, &r); err != nil {
			return r, err
		}
		r.More = len(pending) > 0
	}
	if c.Kind == ff.SweepRetention {
		s.pruneWorkers(ctx)
	}
	if c.Kind == ff.SweepLeaseExpiry && !r.More {
		for p := range s.partitions.Flow {
			s.progress.done(c.Kind, p, &rounds[p])
		}
	}
	if r.Next, err = s.nextOf(ctx, indexes, r.Now); err != nil {
		return r, err
	}
	s.due.Known(c.Kind, r.Next)
	return r, nil
}

// dueIndexes are the indexes that have what is due of a kind, from where the rounds
// begin.
func (s *compatible) dueIndexes(ctx context.Context, kind ff.SweepKind, rounds []round) (list []*dueIndex, err error) {
	var places []place
	if kind == ff.SweepDelayed || kind == ff.SweepRetention {
		if places, err = s.sweepPlaces(ctx, kind); err != nil {
			return nil, err
		}
	}
	for p := range s.partitions.Flow {
		t := tagOf(p)
		key := map[ff.SweepKind]string{ff.SweepLeaseExpiry: t.leaseExpiry(), ff.SweepAttemptTimeout: t.attemptTimeout(),
			ff.SweepExecutionDeadline: t.executionDeadline(), ff.SweepDelayed: t.grants(), ff.SweepRetention: t.retention(),
			ff.SweepSuspensionTimeout: t.suspensionTimeout(), ff.SweepPendingWaitpoints: t.pendingWaitpoints()}[kind]
		list = append(list, &dueIndex{p: p, key: key, after: rounds[p].from()})
	}
	for _, at := range places {
		if kind == ff.SweepDelayed {
			list = append(list, &dueIndex{p: at.partition, lane: at.lane, key: tagOf(at.partition).lane(at.lane, laneDelayed), after: everything})
		} else {
			list = append(list, &dueIndex{p: at.partition, lane: at.lane, key: tagOf(at.partition).lane(at.lane, laneTerminal), shift: s.retention, after: everything})
		}
	}
	return list, nil
}

// sweepPlaces are those that a sweep looks at.
func (s *compatible) sweepPlaces(ctx context.Context, kind ff.SweepKind) (list []place, err error) {
	lanes, err := s.readLanes(ctx)
	if err != nil || len(lanes) == 0 {
		return nil, err
	}
	n := int(s.partitions.Flow)
	all := len(lanes) * n
	if all <= placesPerSweep {
		for i := range all {
			list = append(list, place{lanes[i/n], uint16(i % n)})
		}
		return list, nil
	}
	for _, lane := range lanes {
		list = append(list, place{lane, s.partitions.LanePartition(lane)})
	}
	start := s.rounds.turn(kind, placesPerSweep, all)
	for i := start; i < start+placesPerSweep; i++ {
		at := place{lanes[i%all/n], uint16(i % n)}
		if at.partition != s.partitions.LanePartition(at.lane) {
			list = append(list, at)
		}
	}
	return list, nil
}

// sweepPage bounds what is read of one index at once.
const sweepPage = 200

// sweepRound reads a page of each index and does what is due. Pending are the indexes
// that may have more.
func (s *compatible) sweepRound(ctx context.Context, indexes []*dueIndex, c *ff.Sweep, r *ff.SweepResult) (pending []*dueIndex, err error) {
	room := c.Limit - r.Processed
	page := min(room+1, sweepPage)
	commands := make([]valkey.Completed, len(indexes))
	for i, x := range indexes {
		after := x.after
		if after != everything {
			after = "(" + after
		}
		commands[i] = s.client.B().Zrangebyscore().Key(x.key).Min(after).Max(ms(r.Now.Add(-x.shift))).Withscores().Limit(x.offset, int64(page)).Build()
	}
	var batch []dueEntry
	for i, answer := range s.send(ctx, commands...) {
		list, err := answer.AsZScores()
		if err != nil {
			return nil, s.lift(ctx, err)
		}
		take := min(len(list), room-len(batch))
		if take < len(list) || len(list) == page {
			pending = append(pending, indexes[i])
		}
		for _, z := range list[:take] {
			batch = append(batch, dueEntry{index: indexes[i], text: z.Member, score: int64(z.Score)})
		}
	}
	for i, f := range s.sweepEntries(ctx, c.Kind, batch, r.Now) {
		if f.err != nil && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if f.err != nil {
			r.Errors++
			f.left = true
			s.log.Error("an execution cannot be swept; it is passed over", "scanner", c.Kind, "execution", batch[i].text, "err", f.err)
		}
		if f.done {
			r.Processed++
		}
		if f.left {
			batch[i].index.offset++
		}
	}
	return pending, nil
}

// sweepEntries does what is due. What is no execution is taken out.
func (s *compatible) sweepEntries(ctx context.Context, kind ff.SweepKind, batch []dueEntry, now time.Time) []fate {
	if kind == ff.SweepPendingWaitpoints {
		return s.expireWaitpoints(ctx, batch)
	}
	fates := make([]fate, len(batch))
	var good []*dueEntry
	var at []int
	for i := range batch {
		id, err := ff.ParseExecutionID(batch[i].text)
		if err != nil {
			s.log.Error("an index has something that is no execution", "key", batch[i].index.key, "value", batch[i].text)
			s.follow(ctx, s.client.B().Zrem().Key(batch[i].index.key).Member(batch[i].text).Build())
			continue
		}
		batch[i].id = id
		good, at = append(good, &batch[i]), append(at, i)
	}
	if len(good) == 0 {
		return fates
	}
	for i, f := range s.sweepKind(ctx, kind, good, now) {
		fates[at[i]] = f
	}
	return fates
}

func (s *compatible) sweepKind(ctx context.Context, kind ff.SweepKind, batch []*dueEntry, now time.Time) []fate {
	switch kind {
	case ff.SweepLeaseExpiry:
		return s.markLapsed(ctx, batch)
	case ff.SweepDelayed:
		return s.promoteDue(ctx, batch, now)
	}
	fates := make([]fate, len(batch))
	for i, e := range batch {
		f := &fates[i]
		switch kind {
		case ff.SweepRetention:
			f.done, f.left, f.err = s.purge(ctx, e, now)
		case ff.SweepSuspensionTimeout:
			f.done, f.left, f.err = s.timeOutSuspension(ctx, e)
		default:
			f.done, f.left, f.err = s.timeOut(ctx, e, kind)
		}
	}
	return fates
}

// nextOf is when the next thing becomes due; zero when nothing is.
func (s *compatible) nextOf(ctx context.Context, indexes []*dueIndex, now time.Time) (next time.Time, err error) {
	commands := make([]valkey.Completed, len(indexes))
	for i, x := range indexes {
		commands[i] = s.client.B().Zrangebyscore().Key(x.key).Min("("+ms(now.Add(-x.shift))).Max("+inf").Withscores().Limit(0, 1).Build()
	}
	for i, answer := range s.send(ctx, commands...) {
		list, err := answer.AsZScores()
		if err != nil {
			return next, s.lift(ctx, err)
		}
		for _, z := range list {
			if at := time.UnixMilli(int64(z.Score)).Add(indexes[i].shift); next.IsZero() || at.Before(next) {
				next = at
			}
		}
	}
	return next, nil
}
