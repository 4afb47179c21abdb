package sqlstore

import (
	"context"
	"fmt"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

const (
	// defaultSweepLimit bounds the executions of one sweep.
	defaultSweepLimit = 500
	// sweepBatch bounds the executions of one command, so that others get their
	// turn.
	sweepBatch = 100
)

var (
	selectDue  = statement("select seq from executions where due_kind = $1 and due_at <= $2 order by due_at limit $3")
	selectNext = statement("select due_at from executions where due_kind = $1 order by due_at limit 1")
)

// Sweep does what is due of one kind. It looks on a reading connection first:
// an idle sweep costs the writer nothing.
func (s *Store) Sweep(ctx context.Context, c ff.Sweep) (ff.SweepResult, error) {
	if c.Kind == ff.SweepIndex {
		return ff.SweepResult{Now: s.now()}, nil
	}
	kind := sweepKinds.code(c.Kind)
	if kind <= 0 {
		return ff.SweepResult{}, ff.InvalidInput("kind", "unknown sweep %q", string(c.Kind))
	}
	if c.Limit < 0 {
		return ff.SweepResult{}, ff.InvalidInput("limit", "must not be negative (got %d)", c.Limit)
	}
	if c.Limit == 0 {
		c.Limit = defaultSweepLimit
	}
	if c.Kind == ff.SweepPendingWaitpoints {
		return s.sweepPending(ctx, c.Limit)
	}
	s.due.Looking(c.Kind)
	due, err := s.dueNow(ctx, kind, c.Limit)
	if err != nil {
		return ff.SweepResult{}, err
	}
	var r ff.SweepResult
	for len(due) > 0 {
		n := min(sweepBatch, len(due))
		done, failed, err := s.advance(ctx, c.Kind, due[:n])
		if err != nil {
			return r, err
		}
		r.Processed, r.Errors, due = r.Processed+done, r.Errors+failed, due[n:]
	}
	if c.Kind == ff.SweepRetention {
		if err := s.trim(ctx); err != nil {
			return r, err
		}
	}
	if r.Next, err = s.nextDue(ctx, kind); err != nil {
		return r, err
	}
	r.Now = s.now()
	r.More = r.Processed > 0 && !r.Next.IsZero() && !r.Next.After(r.Now)
	s.due.Known(c.Kind, r.Next)
	return r, nil
}

func (s *Store) dueNow(ctx context.Context, kind int64, limit int) ([]int64, error) {
	return read(ctx, s, func(c Conn) (due []int64, err error) {
		err = c.Query(selectDue, []Value{integer(kind), instant(s.now()), integer(int64(limit))}, func(r Row) error {
			due = append(due, r.Int(0))
			return nil
		})
		return due, err
	})
}

func (s *Store) nextDue(ctx context.Context, kind int64) (time.Time, error) {
	return s.firstOf(ctx, selectNext, integer(kind))
}

// firstOf reads an instant; zero when there is none.
func (s *Store) firstOf(ctx context.Context, q *Statement, args ...Value) (time.Time, error) {
	return read(ctx, s, func(c Conn) (at time.Time, err error) {
		err = c.Query(q, args, func(r Row) error {
			at = readInstant(r, 0)
			return nil
		})
		return at, err
	})
}

// advance does what is due of some executions in one command. When that breaks,
// each gets a command of its own, so that one bad row does not stop the others.
func (s *Store) advance(ctx context.Context, kind ff.SweepKind, due []int64) (done, failed int, err error) {
	done, err = write(ctx, s, func(t *tx) (n int, err error) {
		frames := int64(trimBatch)
		for _, seq := range due {
			changed, err := t.advance(kind, seq, &frames)
			if err != nil {
				return 0, err
			}
			if changed {
				n++
			}
		}
		return n, nil
	})
	if err == nil || ctx.Err() != nil || ff.CodeOf(err) == ff.CodeUnavailable {
		return done, 0, err
	}
	if len(due) == 1 {
		s.log.Error("a sweep failed", "kind", kind, "execution", due[0], "error", err)
		return 0, 1, nil
	}
	for i := range due {
		n, f, err := s.advance(ctx, kind, due[i:i+1])
		if err != nil {
			return done, failed, err
		}
		done, failed = done+n, failed+f
	}
	return done, failed, nil
}

// advance does what is due of one execution. One that is to be deleted with more than
// so many frames is only begun with, and frames tells how many more may be deleted.
func (t *tx) advance(kind ff.SweepKind, seq int64, frames *int64) (changed bool, err error) {
	rec, err := t.bySeq(seq)
	if err != nil || rec == nil {
		return false, err
	}
	// A command since the look may have made something else due.
	if due, ok := lifecycle.NextDue(&rec.x, t.s.retention); !ok || due.Kind != kind {
		return false, t.refreshDue(rec)
	}
	if kind == ff.SweepSuspensionTimeout {
		return t.timeOutSuspension(rec)
	}
	purge, before := false, rec.x.State.Phase
	err = t.apply(rec, func(x *ff.Execution) (fx lifecycle.Effects, err error) {
		changed, purge, fx = lifecycle.Advance(x, t.s.retention, t.now)
		return fx, nil
	})
	switch {
	case err != nil:
		return false, err
	case purge:
		return t.purge(rec, frames)
	case !changed:
		return false, t.refreshDue(rec)
	case before == ff.PhaseSuspended:
		return true, t.abandon(rec)
	}
	return true, nil
}

// refreshDue writes what is due next, which differs from what is stored when
// the store was opened with another retention.
func (t *tx) refreshDue(rec *record) error {
	var m mask
	for i, c := range derivedColumns {
		if c.name == "due_kind" || c.name == "due_at" {
			m.set(len(stateColumns) + i)
		}
	}
	return t.update(rec, m)
}

var (
	selectStale = statement(`select 1 from idempotency where expires_at <= $1
union all select 1 from signal_keys where expires_at <= $1
union all select 1 from suspend_keys where expires_at <= $1
union all select 1 from workers where expires_at <= $1
union all select 1 from streams where expires_at < $1
union all select 1 from (select at from events where id > 0 order by id limit 1) as first where first.at <= $2
limit 1`)
	deleteStaleKeys = statement(`delete from idempotency where (namespace, partition, key) in
(select namespace, partition, key from idempotency where expires_at <= $1 order by expires_at limit $2)`)
	deleteStaleSignalKeys = statement(`delete from signal_keys where (waitpoint, key) in
(select waitpoint, key from signal_keys where expires_at <= $1 order by expires_at limit $2)`)
	deleteStaleSuspendKeys = statement(`delete from suspend_keys where (seq, key) in
(select seq, key from suspend_keys where expires_at <= $1 order by expires_at limit $2)`)
	deleteStaleWorkers = statement(`delete from workers where (namespace, instance) in
(select namespace, instance from workers where expires_at <= $1 order by expires_at limit $2)`)
	selectOldEvents = statement("select id, at from events where id > $1 order by id limit $2")
	deleteEvents    = statement("delete from events where id > 0 and id <= $1")
)

// trimBatch bounds the rows of one kind that one command trims.
const trimBatch = 5000

// trim deletes what is kept for a time only: idempotency keys, registrations of
// workers, best-effort frames and old events.
func (s *Store) trim(ctx context.Context) error {
	now := instant(s.now())
	before := instant(s.now().Add(-s.retention))
	for {
		stale, err := read(ctx, s, func(c Conn) (stale bool, err error) {
			err = c.Query(selectStale, []Value{now, before}, func(Row) error {
				stale = true
				return nil
			})
			return stale, err
		})
		if err != nil || !stale {
			return err
		}
		_, err = write(ctx, s, func(t *tx) (struct{}, error) {
			for _, stale := range []*Statement{deleteStaleKeys, deleteStaleSignalKeys, deleteStaleSuspendKeys, deleteStaleWorkers} {
				if err := t.exec(stale, now, integer(trimBatch)); err != nil {
					return struct{}{}, err
				}
			}
			if err := t.trimStreams(now); err != nil {
				return struct{}{}, err
			}
			return struct{}{}, t.trimEvents(before.N)
		})
		if err != nil {
			return err
		}
	}
}

// trimEvents deletes the first events of the log, as many as are older than an
// instant, but not more than one command should.
func (t *tx) trimEvents(before int64) error {
	var last int64
	old := true
	err := t.query(selectOldEvents, []Value{integer(0), integer(trimBatch)}, func(r Row) error {
		if old = old && r.Int(1) <= before; old {
			last = r.Int(0)
		}
		return nil
	})
	if err != nil || last == 0 {
		return err
	}
	return t.exec(deleteEvents, integer(last))
}

// WatchDue returns a channel that receives when something of the kind was stored
// that is due before the last SweepResult.Next.
func (s *Store) WatchDue(kind ff.SweepKind) (<-chan struct{}, func()) { return s.due.Watch(kind) }

func errRefused(rec *record, err error) error {
	return fmt.Errorf("execution %s is in the index of claimable ones but cannot be claimed: %s", rec.x.ID, err.Error())
}
