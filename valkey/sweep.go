package valkey

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// defaultSweepLimit bounds the executions of one sweep.
const defaultSweepLimit = 500

// Sweep does what is due of one kind. It first asks all partitions at once whether
// anything is, so an idle sweep costs a look at the head of each index.
func (s *Store) Sweep(ctx context.Context, c ff.Sweep) (ff.SweepResult, error) {
	if err := checkSweep(&c); err != nil {
		return ff.SweepResult{}, err
	}
	if leads, err := s.leads(ctx, &c); err != nil || !leads {
		return ff.SweepResult{}, err
	}
	if c.Kind == ff.SweepIndex {
		return s.reconcile(ctx)
	}
	if err := s.nameLanes(ctx); err != nil {
		return ff.SweepResult{}, err
	}
	s.due.Looking(c.Kind)
	var r ff.SweepResult
	places, err := s.lookForDue(ctx, c.Kind, &r)
	if err != nil {
		return r, err
	}
	for i, p := range places {
		if r.Processed >= c.Limit {
			r.More = i < len(places)
			break
		}
		more, err := s.sweepPartition(ctx, p, &c, &r)
		if err != nil {
			return r, err
		}
		r.More = r.More || more
	}
	if c.Kind == ff.SweepRetention {
		s.pruneWorkers(ctx)
		s.trimEvents(ctx, r.Now)
	}
	if len(places) > 0 {
		// What was done may have made something else due.
		errors, processed, more := r.Errors, r.Processed, r.More
		if _, err := s.lookForDue(ctx, c.Kind, &r); err != nil {
			return r, err
		}
		r.Errors, r.Processed, r.More = errors, processed, more
	}
	s.due.Known(c.Kind, r.Next)
	return r, nil
}

// trimInterval is how often the logs of all partitions are trimmed.
const trimInterval = time.Minute

// trimEvents deletes the events that retention no longer keeps, of all partitions. A
// partition that cannot be reached is trimmed another time.
func (s *Store) trimEvents(ctx context.Context, now time.Time) {
	if !s.trimming.due(now) {
		return
	}
	before := strconv.FormatInt(now.Add(-s.retention).UnixMilli(), 10)
	commands := make([]valkey.Completed, s.partitions.Flow)
	for p := range commands {
		commands[p] = s.client.B().Xtrim().Key(tagOf(uint16(p)).events()).Minid().Almost().Threshold(before).Build()
	}
	for p, r := range s.client.DoMulti(ctx, commands...) {
		if err := r.Error(); err != nil {
			s.log.Warn("the events of a partition could not be trimmed", "partition", p, "err", s.lift(ctx, err))
		}
	}
}

// interval tells when something is to be done again.
type interval struct {
	mu   sync.Mutex
	last time.Time
}

// due reports whether it is time, and notes that it was done. A clock that has gone
// back makes it time.
func (i *interval) due(now time.Time) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if since := now.Sub(i.last); since >= 0 && since < trimInterval {
		return false
	}
	i.last = now
	return true
}

// checkSweep checks the command and fills in its limit.
func checkSweep(c *ff.Sweep) error {
	switch {
	case !slices.Contains(ff.SweepKinds, c.Kind):
		return ff.InvalidInput("kind", "unknown sweep %q", string(c.Kind))
	case c.Limit < 0:
		return ff.InvalidInput("limit", "must not be negative (got %d)", c.Limit)
	case c.Limit == 0:
		c.Limit = defaultSweepLimit
	}
	return nil
}

// lookForDue finds the partitions where something is due, and when the next thing
// is.
func (s *Store) lookForDue(ctx context.Context, kind ff.SweepKind, r *ff.SweepResult) (places []uint16, err error) {
	places, wentBack, err := s.askForDue(ctx, kind, r)
	if err == nil && wentBack {
		s.log.Warn("the clock of Valkey has gone back; everything is looked at again", "scanner", kind)
		places, _, err = s.askForDue(ctx, kind, r)
	}
	return places, err
}

func (s *Store) askForDue(ctx context.Context, kind ff.SweepKind, r *ff.SweepResult) (places []uint16, wentBack bool, err error) {
	retention, rounds := millis(s.retention), make([]round, s.partitions.Flow)
	r.Next = time.Time{}
	for p, answer := range s.inTurns(ctx, func(p uint16) call {
		rounds[p] = s.progress.next(kind, p)
		return callDue(p, kind, retention, rounds[p].from())
	}) {
		if answer.err != nil {
			return nil, false, answer.err
		}
		list, err := answer.m.ToArray()
		if err != nil || len(list) != 3 {
			return nil, false, ff.NewError(ff.CodeInternal, "ffx_due answered something unexpected")
		}
		a := reply(list)
		wentBack = s.progress.wentBack(kind, uint16(p), &rounds[p], a.number(0)) || wentBack
		if now := time.UnixMilli(a.number(0)); now.After(r.Now) {
			r.Now = now
		}
		if a.number(1) == 1 {
			places = append(places, uint16(p))
		}
		if n := a.number(2); n > 0 {
			if at := time.UnixMilli(n); r.Next.IsZero() || at.Before(r.Next) {
				r.Next = at
			}
		}
	}
	return places, wentBack, nil
}

// sweepPartition goes through what is due on a partition until the limit is reached;
// more says that it was.
func (s *Store) sweepPartition(ctx context.Context, p uint16, c *ff.Sweep, r *ff.SweepResult) (more bool, err error) {
	round := s.progress.next(c.Kind, p)
	for r.Processed < c.Limit {
		over, err := s.sweepOn(ctx, p, c, &round, r)
		if err != nil {
			return false, err
		}
		if over {
			s.progress.done(c.Kind, p, &round)
			return false, nil
		}
	}
	s.progress.paused(c.Kind, p, &round)
	return true, nil
}

// sweepOn makes one call of a round, and reports whether that was the last.
func (s *Store) sweepOn(ctx context.Context, p uint16, c *ff.Sweep, at *round, r *ff.SweepResult) (over bool, err error) {
	call := callSweep(p, c.Kind, millis(s.retention), at, c.Limit-r.Processed)
	m, err := s.do(ctx, &call)
	if err != nil {
		return false, err
	}
	list, err := m.ToArray()
	if err != nil || len(list) != 5 {
		return false, errSweepAnswer
	}
	a := reply(list)
	if at.began == 0 {
		at.began = a.number(0)
	}
	r.Processed += int(a.number(1))
	if n := int(a.number(2)); n > 0 {
		r.Errors += n
		s.log.Error("executions cannot be swept; they are passed over", "scanner", c.Kind, "partition", p, "count", n, "err", firstLine(a.text(4)))
	}
	place, err := a[3].AsStrSlice()
	if err != nil || len(place) != 0 && copy(at.place[:], place) < len(at.place) {
		return false, errSweepAnswer
	}
	return len(place) == 0, nil
}

var errSweepAnswer = ff.NewError(ff.CodeInternal, "ffx_sweep answered something unexpected")

// WatchDue returns a channel that receives when something of the kind was stored
// that is due before the last SweepResult.Next. Functions publish what they delay
// and grant, and when suspensions time out; leases and other timeouts are found by the
// loops' own interval.
func (s *Store) WatchDue(kind ff.SweepKind) (<-chan struct{}, func()) {
	if kind != ff.SweepDelayed && kind != ff.SweepSuspensionTimeout {
		return nil, func() {}
	}
	s.wakeups.start(context.Background())
	return s.due.Watch(kind)
}
