package valkey

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// signalArgs are the arguments of ff_deliver_signal (spec 04b §2), which the extension
// has too. The list of signals of a waitpoint is as long as there may be signals.
func signalArgs(c *ff.DeliverSignal) []string {
	// A key lives through the millisecond in which it expires.
	window := max(c.DedupWindow-time.Millisecond, time.Millisecond)
	return []string{c.SignalID.String(), c.ID.String(), c.WaitpointID.String(), c.Name, c.Category, c.SourceType, c.SourceIdentity,
		valkey.BinaryString(c.Payload), c.PayloadEncoding, c.IdempotencyKey, c.CorrelationID, c.TargetScope, ms(c.CreatedAt), millis(window),
		millis(c.ResumeDelay), strconv.Itoa(ff.DefaultMaxSignals), strconv.Itoa(c.MaxSignals), c.Token.Reveal()}
}

// DeliverSignal sends a signal to a waitpoint.
func (s *Store) DeliverSignal(ctx context.Context, c ff.DeliverSignal) (ff.DeliverSignalResult, error) {
	if err := c.Validate(); err != nil {
		return ff.DeliverSignalResult{}, err
	}
	call := call{function: "ffx_deliver_signal", keys: []string{keysOf(c.ID).core()}, args: signalArgs(&c)}
	r, err := s.answer(ctx, &call)
	if err != nil {
		return ff.DeliverSignalResult{}, err
	}
	return deliverResult(r.text(0), ff.SignalEffect(r.text(1)))
}

func deliverResult(id string, effect ff.SignalEffect) (r ff.DeliverSignalResult, err error) {
	r.Effect, r.Duplicate = effect, effect == ""
	if r.SignalID, err = ff.ParseSignalID(id); err != nil {
		return r, ff.Errorf(ff.CodeCorruption, "the first signal with this key is %.60q, which is no id", id)
	}
	return r, nil
}

// signalCursor is the signal that a listing goes on after: its place among those of the
// execution, and its id.
type signalCursor struct{ score, id string }

func (c signalCursor) String() string {
	if c.id == "" {
		return ""
	}
	return c.score + ":" + c.id
}

func parseSignalCursor(text string) (c signalCursor, err error) {
	if text == "" {
		return c, nil
	}
	score, id, ok := strings.Cut(text, ":")
	_, err1 := strconv.ParseFloat(score, 64)
	_, err2 := ff.ParseSignalID(id)
	if !ok || err1 != nil || err2 != nil {
		return c, ff.BadCursor(text)
	}
	return signalCursor{score, id}, nil
}

// ListSignals lists the signals of an execution in the order in which they were
// accepted.
func (s *Store) ListSignals(ctx context.Context, c ff.ListSignals) (out ff.ListSignalsResult, err error) {
	if err := c.Validate(); err != nil {
		return out, err
	}
	at, err := parseSignalCursor(c.Cursor)
	if err != nil {
		return out, err
	}
	waitpoint, resumed := "", ""
	if !c.WaitpointID.IsZero() {
		waitpoint = c.WaitpointID.String()
	}
	if c.Resumed {
		resumed = "1"
	}
	limit, size := ff.PageLimit(c.Limit), 0
	for {
		call := call{function: "ffx_signals", keys: []string{keysOf(c.ID).core()}, args: []string{c.ID.String(), waitpoint, resumed, at.score, at.id,
			strconv.Itoa(limit - len(out.Signals)), strconv.Itoa(ff.MaxSignalBytes - size)}}
		r, err := s.answer(ctx, &call)
		if err != nil {
			return ff.ListSignalsResult{}, err
		}
		page, err := s.signalsOf(ctx, c.ID, r)
		if err != nil {
			return ff.ListSignalsResult{}, err
		}
		for i := range page {
			size += len(page[i].Payload)
		}
		out.Signals, at = append(out.Signals, page...), signalCursor{r.text(0), r.text(1)}
		// The function stops early where it would look at too many.
		if at.id == "" || len(out.Signals) >= limit || size >= ff.MaxSignalBytes {
			out.Next = at.String()
			return out, nil
		}
	}
}

// signalsOf reads what ffx_signals answers.
func (s *Store) signalsOf(ctx context.Context, id ff.ExecutionID, r reply) (list []ff.Signal, err error) {
	if len(r) != 3 {
		return nil, unexpected("ffx_signals")
	}
	rows, err := r[2].ToArray()
	if err != nil && !valkey.IsValkeyNil(err) {
		return nil, unexpected("ffx_signals")
	}
	for _, row := range rows {
		parts, err := row.ToArray()
		if err != nil || len(parts) != 2 {
			return nil, unexpected("ffx_signals")
		}
		hash, err := pairsOf(&parts[0])
		if err != nil {
			return nil, damage(id, s.lift(ctx, err))
		}
		payload, err := parts[1].ToString()
		if err != nil {
			return nil, damage(id, s.lift(ctx, err))
		}
		signal, err := signalOf(id, hash, []byte(payload))
		if err != nil {
			return nil, err
		}
		list = append(list, signal)
	}
	return list, nil
}

// signalOf makes the record of a signal. Errors: corruption.
func signalOf(id ff.ExecutionID, hash map[string]string, payload []byte) (ff.Signal, error) {
	f := &fields{hash: "signal " + hash["signal_id"] + " of execution " + id.String(), m: hash}
	sig := ff.Signal{
		ID: parsed(f, "signal_id", ff.ParseSignalID), ExecutionID: id, WaitpointID: parsed(f, "target_waitpoint_id", ff.ParseWaitpointID),
		Name: hash["signal_name"], Category: hash["signal_category"], SourceType: hash["source_type"], SourceIdentity: hash["source_identity"],
		PayloadEncoding: hash["payload_encoding"], CorrelationID: hash["correlation_id"], IdempotencyKey: hash["idempotency_key"],
		TargetScope: hash["target_scope"], CreatedAt: f.instant("created_at"), AcceptedAt: f.instant("accepted_at"),
		Effect: ff.SignalEffect(hash["observed_effect"]),
	}
	if len(payload) > 0 {
		sig.Payload = payload
	}
	return sig, f.err
}
