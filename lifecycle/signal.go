package lifecycle

import (
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// SignalInput is what Deliver needs besides the execution.
type SignalInput struct {
	// Waitpoint is the target, nil when there is none of that id.
	Waitpoint *Waitpoint
	// Suspension is the latest of the execution, nil when there was none.
	Suspension *Suspended
	// First is the signal that the command repeats, by its id or idempotency key; zero
	// when it is new.
	First ff.SignalID
	// Accepted is how many signals the execution has taken in its life.
	Accepted int
	Keys     *Keyring
}

// Deliver gives a signal to its waitpoint (spec 04b §3), or keeps it when the waitpoint
// is pending (spec 04b §6). The returned signal is for the store to save; it is nil for
// a duplicate. When it resumes the execution the suspension is closed and the store
// settles its waitpoints. Errors: invalid_token for an unknown waitpoint and one of
// another execution, those of Keyring.Verify, target_not_signalable, waitpoint_closed,
// signal_limit_exceeded.
func Deliver(x *ff.Execution, in *SignalInput, c *ff.DeliverSignal, now time.Time) (*ff.Signal, Effects, error) {
	var fx Effects
	w := in.Waitpoint
	if w == nil || w.ExecutionID != x.ID {
		return nil, fx, ff.NewError(ff.CodeInvalidToken, "")
	}
	if err := in.Keys.Verify(c.Token, w.ID, w.Key, w.CreatedAt, now); err != nil {
		return nil, fx, err
	}
	// The repetition of a signal is one also when the first has ended the wait: whoever has
	// lost the answer repeats just that one.
	if !in.First.IsZero() {
		return nil, fx, nil
	}
	if err := signalable(x, w, in.Suspension); err != nil {
		return nil, fx, err
	}
	if in.Accepted >= maxSignals(x, c) {
		return nil, fx, ff.Errorf(ff.CodeSignalLimitExceeded, "the execution has taken %d signals, the limit is %d", in.Accepted, maxSignals(x, c))
	}
	sig := newSignal(c, now)
	w.Signals++
	w.LastSignalAt = now
	if w.State == ff.WaitpointPending {
		sig.Effect = ff.EffectBuffered
	} else {
		sig.Effect = feed(in.Suspension, w, sig)
		in.Suspension.LastSignalAt = now
	}
	if sig.Effect.Matched() {
		w.MatchedSignals++
	}
	fx.Events = append(fx.Events, signalEvent(x, sig, now))
	if sig.Effect == ff.EffectResumed {
		in.Suspension.SatisfiedAt = now
		in.Suspension.close(ff.ClosedResumed, now)
		delay := c.ResumeDelay
		if delay == 0 {
			delay = in.Suspension.ResumeDelay
		}
		fx.Events = append(fx.Events, wake(x, delay, " after signal "+sig.Name, "signal", now))
	}
	return sig, fx, nil
}

// signalable refuses signals that come too late.
func signalable(x *ff.Execution, w *Waitpoint, s *Suspended) error {
	switch {
	case w.State == ff.WaitpointPending && x.State.Phase != ff.PhaseTerminal:
		return nil
	case x.State.Phase != ff.PhaseSuspended:
		return ff.Errorf(ff.CodeTargetNotSignalable, "the execution is %s and the waitpoint %s", x.PublicState(), w.State)
	case w.State != ff.WaitpointActive || w.SuspensionID != x.SuspensionID || s == nil || !s.Open():
		return ff.Errorf(ff.CodeWaitpointClosed, "waitpoint %s is %s", w.ID, w.State)
	}
	return nil
}

func maxSignals(x *ff.Execution, c *ff.DeliverSignal) int {
	if x.Policy != nil && x.Policy.MaxSignals > 0 {
		return min(c.MaxSignals, x.Policy.MaxSignals)
	}
	return c.MaxSignals
}

func newSignal(c *ff.DeliverSignal, now time.Time) *ff.Signal {
	created := c.CreatedAt
	if created.IsZero() {
		created = now
	}
	return &ff.Signal{
		ID: c.SignalID, ExecutionID: c.ID, WaitpointID: c.WaitpointID, Name: c.Name, Category: c.Category,
		SourceType: c.SourceType, SourceIdentity: c.SourceIdentity, Payload: c.Payload, PayloadEncoding: c.PayloadEncoding,
		CorrelationID: c.CorrelationID, IdempotencyKey: c.IdempotencyKey, TargetScope: c.TargetScope,
		CreatedAt: created, AcceptedAt: now,
	}
}

func signalEvent(x *ff.Execution, sig *ff.Signal, now time.Time) ff.Event {
	e := event(x, ff.FamilySignal, ff.EventSignal, now)
	e.AttemptID, e.AttemptIndex = x.CurrentAttemptID, x.Attempt.Index
	e.SignalID, e.WaitpointID, e.Reason = sig.ID, sig.WaitpointID, string(sig.Effect)
	if sig.SourceType != "" || sig.SourceIdentity != "" {
		e.Source = sig.SourceType + tokenSeparator + sig.SourceIdentity
	}
	return e
}
