package sqlstore

import (
	"context"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

var (
	selectSuspension = statement("select record from suspensions where seq = $1")
	upsertSuspension = statement("insert into suspensions (seq, record) values ($1, $2) on conflict (seq) do update set record = excluded.record")

	selectSuspendKey = statement("select outcome, expires_at from suspend_keys where seq = $1 and key = $2")
	upsertSuspendKey = statement(`insert into suspend_keys (seq, key, outcome, expires_at) values ($1, $2, $3, $4)
on conflict (seq, key) do update set outcome = excluded.outcome, expires_at = excluded.expires_at`)
)

// readSuspension reads the latest suspension; nil when there was none.
func readSuspension(c Conn, seq int64) (s *lifecycle.Suspended, err error) {
	err = c.Query(selectSuspension, []Value{integer(seq)}, func(r Row) error {
		s = &lifecycle.Suspended{}
		return readRecord(r, 0, "suspension", s)
	})
	return s, err
}

func (t *tx) saveSuspension(seq int64, s *lifecycle.Suspended) error {
	return t.exec(upsertSuspension, integer(seq), text(mustJSON(s)))
}

// Suspension reads the latest suspension.
func (s *Store) Suspension(ctx context.Context, id ff.ExecutionID) (ff.Suspension, error) {
	return read(ctx, s, func(c Conn) (ff.Suspension, error) {
		rec, err := s.existing(c, id)
		if err != nil {
			return ff.Suspension{}, err
		}
		latest, err := readSuspension(c, rec.seq)
		if err != nil || latest == nil {
			return ff.Suspension{}, err
		}
		return latest.Suspension, nil
	})
}

// SuspendExecution suspends.
func (s *Store) SuspendExecution(ctx context.Context, c ff.SuspendExecution) (ff.SuspendExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.SuspendExecutionResult{}, err
	}
	c.TimeoutAt = round(c.TimeoutAt)
	return write(ctx, s, func(t *tx) (ff.SuspendExecutionResult, error) { return t.suspend(&c) })
}

func (t *tx) suspend(c *ff.SuspendExecution) (ff.SuspendExecutionResult, error) {
	rec, err := t.load(c.ID)
	if err != nil {
		return ff.SuspendExecutionResult{}, err
	}
	if known, err := t.earlierSuspend(rec, c); known != nil || err != nil {
		return deref(known), err
	}
	in, err := t.suspendInput(rec, c)
	if err != nil {
		return ff.SuspendExecutionResult{}, err
	}
	var out lifecycle.SuspendOutput
	err = t.apply(rec, func(x *ff.Execution) (fx lifecycle.Effects, err error) {
		out, fx, err = lifecycle.Suspend(x, in, c, t.now)
		return fx, err
	})
	if err != nil || out.Repeated {
		return out.Result, err
	}
	if err := t.saveSuspension(rec.seq, out.Suspension); err != nil {
		return ff.SuspendExecutionResult{}, err
	}
	for _, w := range out.Waitpoints {
		if err := t.saveWaitpoint(rec.seq, w); err != nil {
			return ff.SuspendExecutionResult{}, err
		}
	}
	return out.Result, t.keepSuspend(rec, c, &out.Result)
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// earlierSuspend finds what the idempotency key of a command has answered before.
func (t *tx) earlierSuspend(rec *record, c *ff.SuspendExecution) (known *ff.SuspendExecutionResult, err error) {
	if c.IdempotencyKey == "" {
		return nil, nil
	}
	err = t.query(selectSuspendKey, []Value{integer(rec.seq), text(c.IdempotencyKey)}, func(r Row) error {
		if !readInstant(r, 1).After(t.now) {
			return nil
		}
		known = &ff.SuspendExecutionResult{}
		return readRecord(r, 0, "suspend key", known)
	})
	return known, err
}

func (t *tx) keepSuspend(rec *record, c *ff.SuspendExecution, r *ff.SuspendExecutionResult) error {
	if c.IdempotencyKey == "" {
		return nil
	}
	return t.exec(upsertSuspendKey, integer(rec.seq), text(c.IdempotencyKey), text(mustJSON(r)), instant(t.now.Add(c.IdempotencyWindow(t.now))))
}

func (t *tx) suspendInput(rec *record, c *ff.SuspendExecution) (in *lifecycle.SuspendInput, err error) {
	in = &lifecycle.SuspendInput{}
	if in.Keys, err = t.keyring(); err != nil {
		return nil, err
	}
	if in.Last, err = readSuspension(t.c, rec.seq); err != nil {
		return nil, err
	}
	var ids []ff.WaitpointID
	for _, b := range c.Waitpoints {
		ids = append(ids, b.ID)
	}
	if in.Last != nil && in.Last.ID == c.SuspensionID {
		ids = in.Last.Waitpoints
	}
	for _, id := range ids {
		w, err := t.s.waitpoint(t.c, id)
		if err != nil {
			return nil, err
		}
		if w == nil {
			continue
		}
		in.Known = append(in.Known, w)
		if w.State == ff.WaitpointPending && w.Signals > 0 {
			if in.Buffered, err = t.signalsAt(rec.seq, id); err != nil {
				return nil, err
			}
		}
	}
	return in, nil
}

// ResumeExecution ends a suspension for an operator.
func (s *Store) ResumeExecution(ctx context.Context, c ff.ResumeExecution) (ff.ResumeExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ResumeExecutionResult{}, err
	}
	return write(ctx, s, func(t *tx) (ff.ResumeExecutionResult, error) {
		rec, err := t.load(c.ID)
		if err != nil {
			return ff.ResumeExecutionResult{}, err
		}
		_, err = t.applySuspended(rec, func(x *ff.Execution, s *lifecycle.Suspended) (bool, lifecycle.Effects, error) {
			fx, err := lifecycle.Resume(x, s, &c, t.now)
			return err == nil, fx, err
		})
		return ff.ResumeExecutionResult{State: rec.x.PublicState()}, err
	})
}

// applySuspended applies a rule to an execution and its suspension, and saves both and
// the waitpoints when it has changed them.
func (t *tx) applySuspended(rec *record, rule func(*ff.Execution, *lifecycle.Suspended) (bool, lifecycle.Effects, error)) (changed bool, err error) {
	s, err := readSuspension(t.c, rec.seq)
	if err != nil {
		return false, err
	}
	err = t.apply(rec, func(x *ff.Execution) (fx lifecycle.Effects, err error) {
		changed, fx, err = rule(x, s)
		return fx, err
	})
	if err != nil || !changed {
		return false, err
	}
	return true, t.settle(rec.seq, s)
}

// settle saves a suspension and, when it is over, closes its waitpoints.
func (t *tx) settle(seq int64, s *lifecycle.Suspended) error {
	if err := t.saveSuspension(seq, s); err != nil || s.Open() {
		return err
	}
	for _, id := range s.Waitpoints {
		w, err := t.s.waitpoint(t.c, id)
		if err != nil {
			return err
		}
		if w == nil || !w.Open() {
			continue
		}
		lifecycle.Settle(s, w)
		if err := t.saveWaitpoint(seq, w); err != nil {
			return err
		}
	}
	return nil
}

// abandon closes the suspension of an execution that has ended while suspended.
func (t *tx) abandon(rec *record) error {
	s, err := readSuspension(t.c, rec.seq)
	if err != nil || !lifecycle.CloseAbandoned(&rec.x, s, t.now) {
		return err
	}
	return t.settle(rec.seq, s)
}

// timeOutSuspension does what a suspension does when its time is over.
func (t *tx) timeOutSuspension(rec *record) (changed bool, err error) {
	changed, err = t.applySuspended(rec, func(x *ff.Execution, s *lifecycle.Suspended) (bool, lifecycle.Effects, error) {
		changed, fx := lifecycle.TimeOutSuspension(x, s, t.now)
		return changed, fx, nil
	})
	if err != nil || changed {
		return changed, err
	}
	return false, t.refreshDue(rec)
}
