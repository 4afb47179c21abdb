package sqlstore

import (
	"context"
	"slices"
	"strconv"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

var (
	insertSignal = statement("insert into signals (seq, n, uuid, waitpoint, record, payload) values ($1, $2, $3, $4, $5, $6)")
	// signalCount is the number of the last signal, which is how many there are.
	signalCount     = statement("select n from signals where seq = $1 order by n desc limit 1")
	selectSignalID  = statement("select 1 from signals where seq = $1 and uuid = $2")
	selectSignals   = statement("select n, record, payload from signals where seq = $1 and n > $2 order by n limit $3")
	selectSignalsAt = statement("select record from signals where seq = $1 and waitpoint = $2 order by n")

	selectSignalKey = statement("select signal, expires_at from signal_keys where waitpoint = $1 and key = $2")
	upsertSignalKey = statement(`insert into signal_keys (waitpoint, key, signal, expires_at) values ($1, $2, $3, $4)
on conflict (waitpoint, key) do update set signal = excluded.signal, expires_at = excluded.expires_at`)
)

// DeliverSignal sends a signal to a waitpoint.
func (s *Store) DeliverSignal(ctx context.Context, c ff.DeliverSignal) (ff.DeliverSignalResult, error) {
	if err := c.Validate(); err != nil {
		return ff.DeliverSignalResult{}, err
	}
	c.CreatedAt = round(c.CreatedAt)
	return write(ctx, s, func(t *tx) (ff.DeliverSignalResult, error) { return t.deliver(&c) })
}

func (t *tx) deliver(c *ff.DeliverSignal) (ff.DeliverSignalResult, error) {
	rec, err := t.load(c.ID)
	if err != nil {
		return ff.DeliverSignalResult{}, err
	}
	in, err := t.signalInput(rec, c)
	if err != nil {
		return ff.DeliverSignalResult{}, err
	}
	var sig *ff.Signal
	err = t.apply(rec, func(x *ff.Execution) (fx lifecycle.Effects, err error) {
		sig, fx, err = lifecycle.Deliver(x, in, c, t.now)
		return fx, err
	})
	switch {
	case err != nil:
		return ff.DeliverSignalResult{}, err
	case sig == nil:
		return ff.DeliverSignalResult{SignalID: in.First, Duplicate: true}, nil
	}
	return ff.DeliverSignalResult{SignalID: sig.ID, Effect: sig.Effect}, t.keepSignal(rec, in, sig, c)
}

func (t *tx) signalInput(rec *record, c *ff.DeliverSignal) (in *lifecycle.SignalInput, err error) {
	in = &lifecycle.SignalInput{}
	if in.Keys, err = t.keyring(); err != nil {
		return nil, err
	}
	if in.Waitpoint, err = t.s.waitpoint(t.c, c.WaitpointID); err != nil || in.Waitpoint == nil {
		return in, err
	}
	if in.Suspension, err = readSuspension(t.c, rec.seq); err != nil {
		return nil, err
	}
	if in.First, err = t.firstSignal(rec, c); err != nil {
		return nil, err
	}
	return in, t.query(signalCount, []Value{integer(rec.seq)}, func(r Row) error {
		in.Accepted = int(r.Int(0))
		return nil
	})
}

// firstSignal finds the signal that a command repeats, by its key or its id.
func (t *tx) firstSignal(rec *record, c *ff.DeliverSignal) (first ff.SignalID, err error) {
	if c.IdempotencyKey != "" {
		err = t.query(selectSignalKey, []Value{blob(c.WaitpointID[:]), text(c.IdempotencyKey)}, func(r Row) error {
			if readInstant(r, 1).After(t.now) {
				first = readUUID(r, 0)
			}
			return nil
		})
	}
	if err != nil || !first.IsZero() {
		return first, err
	}
	return first, t.query(selectSignalID, []Value{integer(rec.seq), blob(c.SignalID[:])}, func(Row) error {
		first = c.SignalID
		return nil
	})
}

// keepSignal saves a signal and what it has changed.
func (t *tx) keepSignal(rec *record, in *lifecycle.SignalInput, sig *ff.Signal, c *ff.DeliverSignal) error {
	record := *sig
	record.Payload = nil
	var payload Value
	if len(sig.Payload) > 0 {
		payload = borrow(sig.Payload)
	}
	err := t.exec(insertSignal, integer(rec.seq), integer(int64(in.Accepted+1)), blob(sig.ID[:]), blob(sig.WaitpointID[:]),
		text(mustJSON(record)), payload)
	if err != nil {
		return err
	}
	if c.IdempotencyKey != "" {
		err := t.exec(upsertSignalKey, blob(c.WaitpointID[:]), text(c.IdempotencyKey), blob(sig.ID[:]), instant(t.now.Add(c.DedupWindow)))
		if err != nil {
			return err
		}
	}
	if sig.Effect == ff.EffectResumed {
		lifecycle.Settle(in.Suspension, in.Waitpoint)
	}
	if err := t.saveWaitpoint(rec.seq, in.Waitpoint); err != nil || sig.Effect == ff.EffectBuffered {
		return err
	}
	return t.settle(rec.seq, in.Suspension)
}

// signalsAt reads the signals of a waitpoint without their payloads.
func (t *tx) signalsAt(seq int64, id ff.WaitpointID) (list []ff.Signal, err error) {
	err = t.query(selectSignalsAt, []Value{integer(seq), blob(id[:])}, func(r Row) error {
		var sig ff.Signal
		if err := readRecord(r, 0, "signal", &sig); err != nil {
			return err
		}
		list = append(list, sig)
		return nil
	})
	return list, err
}

// ListSignals lists the signals of an execution in the order in which they were
// accepted.
func (s *Store) ListSignals(ctx context.Context, c ff.ListSignals) (ff.ListSignalsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ListSignalsResult{}, err
	}
	after, err := parseSignalCursor(c.Cursor)
	if err != nil {
		return ff.ListSignalsResult{}, err
	}
	return read(ctx, s, func(conn Conn) (ff.ListSignalsResult, error) {
		rec, err := s.existing(conn, c.ID)
		if err != nil {
			return ff.ListSignalsResult{}, err
		}
		var resumed []ff.SignalID
		if c.Resumed {
			latest, err := readSuspension(conn, rec.seq)
			if err != nil || latest == nil || len(latest.ResumedBy) == 0 || latest.Open() {
				return ff.ListSignalsResult{}, err
			}
			resumed = latest.ResumedBy
		}
		return signalPage(conn, rec.seq, after, &c, resumed)
	})
}

// signalPage reads on after a number until the page is full.
func signalPage(conn Conn, seq, after int64, c *ff.ListSignals, resumed []ff.SignalID) (r ff.ListSignalsResult, err error) {
	limit, size, full := ff.PageLimit(c.Limit), 0, false
	for more := true; more && !full; {
		n := 0
		err = conn.Query(selectSignals, []Value{integer(seq), integer(after), integer(int64(limit))}, func(row Row) error {
			n++
			if full = full || len(r.Signals) == limit || size >= ff.MaxSignalBytes; full {
				return nil
			}
			after = row.Int(0)
			var sig ff.Signal
			if err := readRecord(row, 1, "signal", &sig); err != nil {
				return err
			}
			if !c.WaitpointID.IsZero() && sig.WaitpointID != c.WaitpointID || c.Resumed && !slices.Contains(resumed, sig.ID) {
				return nil
			}
			sig.Payload = row.Blob(2)
			size += len(sig.Payload)
			r.Signals = append(r.Signals, sig)
			return nil
		})
		if err != nil {
			return ff.ListSignalsResult{}, err
		}
		more = n == limit
	}
	if full {
		r.Next = strconv.FormatInt(after, 10)
	}
	return r, nil
}

func parseSignalCursor(cursor string) (int64, error) {
	if cursor == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(cursor, 10, 64)
	if err != nil || n < 0 {
		return 0, ff.BadCursor(cursor)
	}
	return n, nil
}
