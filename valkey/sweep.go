package valkey

import (
	"context"
	"slices"
	"sync"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// defaultSweepLimit bounds the executions of one sweep.
const defaultSweepLimit = 500

// noBound is the lower bound of a sweep that looks at everything.
const noBound = "-inf"

// Sweep does what is due of one kind. It first asks all partitions at once whether
// anything is, so an idle sweep costs a look at the head of each index.
func (s *Store) Sweep(ctx context.Context, c ff.Sweep) (ff.SweepResult, error) {
	if err := checkSweep(&c); err != nil {
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
	retention := millis(s.retention)
	r.Next = time.Time{}
	for p, answer := range s.eachPartition(ctx, func(p uint16) call { return callDue(p, kind, retention, s.lapsed.of(kind, p)) }) {
		if answer.err != nil {
			return nil, answer.err
		}
		list, err := answer.m.ToArray()
		if err != nil || len(list) != 3 {
			return nil, ff.NewError(ff.CodeInternal, "ffx_due answered something unexpected")
		}
		a := reply(list)
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
	return places, nil
}

func (s *Store) sweepPartition(ctx context.Context, p uint16, c *ff.Sweep, r *ff.SweepResult) (more bool, err error) {
	bound := s.lapsed.of(c.Kind, p)
	call := callSweep(p, c.Kind, millis(s.retention), bound, c.Limit-r.Processed)
	m, err := s.do(ctx, &call)
	if err != nil {
		return false, err
	}
	list, err := m.ToArray()
	if err != nil || len(list) != 6 {
		return false, ff.NewError(ff.CodeInternal, "ffx_sweep answered something unexpected")
	}
	a := reply(list)
	r.Processed += int(a.number(1))
	if n := int(a.number(2)); n > 0 {
		r.Errors += n
		s.log.Error("executions cannot be swept; they are passed over", "scanner", c.Kind, "partition", p, "count", n, "err", firstLine(a.text(4)))
	}
	more = a.number(3) == 1
	suspended, err := a[5].AsStrSlice()
	if err != nil {
		return more, ff.Errorf(ff.CodeInternal, "ffx_sweep: %w", err)
	}
	for _, id := range suspended {
		if err := s.expireSuspended(ctx, id, c.Kind); err != nil {
			r.Errors++
			s.log.Error("a suspended execution cannot be expired", "execution", id, "err", err)
		} else {
			r.Processed++
		}
	}
	if !more {
		s.lapsed.set(c.Kind, p, a.number(0))
	}
	return more, nil
}

// expireSuspended expires with the compatible function, which closes the
// suspension.
func (s *Store) expireSuspended(ctx context.Context, text string, kind ff.SweepKind) error {
	id, err := ff.ParseExecutionID(text)
	if err != nil {
		return err
	}
	h, err := s.holding(ctx, id)
	if err != nil {
		return err
	}
	call := callExpire(id, h, string(kind))
	_, err = s.answer(ctx, &call)
	return err
}

// lowerBounds remembers up to which instant the lapsed leases of each partition
// were marked. Their entries stay in the index until somebody takes the execution
// over, because peers look for them there (quirk 03 Q14). Now and then everything
// is looked at again.
type lowerBounds struct {
	mu    sync.Mutex
	marks map[uint16]bound
}

type bound struct {
	at    int64
	since time.Time
}

const boundAge = time.Minute

func (b *lowerBounds) of(kind ff.SweepKind, p uint16) string {
	if kind != ff.SweepLeaseExpiry {
		return noBound
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	m, ok := b.marks[p]
	if !ok || time.Since(m.since) > boundAge {
		return noBound
	}
	return itoa(m.at)
}

func (b *lowerBounds) set(kind ff.SweepKind, p uint16, now int64) {
	if kind != ff.SweepLeaseExpiry {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.marks == nil {
		b.marks = map[uint16]bound{}
	}
	m, ok := b.marks[p]
	if !ok || time.Since(m.since) > boundAge {
		m.since = time.Now()
	}
	// The bound is exclusive, and a lease may end in this very millisecond.
	m.at = now - 1
	b.marks[p] = m
}

// WatchDue returns a channel that receives when something of the kind was stored
// that is due before the last SweepResult.Next. Functions publish what they delay
// and grant; leases and timeouts are found by the loops' own interval.
func (s *Store) WatchDue(kind ff.SweepKind) (<-chan struct{}, func()) {
	if kind != ff.SweepDelayed {
		return nil, func() {}
	}
	s.wakeups.start(context.Background())
	return s.due.Watch(kind)
}
