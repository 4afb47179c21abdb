package lifecycle

import (
	"fmt"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// Suspended is a suspension as a store keeps it: with what signals have met so far.
type Suspended struct {
	ff.Suspension
	// Tokens is the satisfied set of a composite condition (spec 04a §4).
	Tokens []string `json:"tokens,omitempty"`
}

// SuspendInput is what Suspend needs besides the execution.
type SuspendInput struct {
	// Last is the latest suspension of the execution, nil when there was none.
	Last *Suspended
	// Known are the waitpoints that exist of the ids that the command gives.
	Known []*Waitpoint
	// Buffered are the signals to a pending waitpoint of the command, in order.
	Buffered []ff.Signal
	Keys     *Keyring
}

func (in *SuspendInput) known(id ff.WaitpointID) *Waitpoint {
	for _, w := range in.Known {
		if w.ID == id {
			return w
		}
	}
	return nil
}

// SuspendOutput is what Suspend has made, for the store to save.
type SuspendOutput struct {
	Result     ff.SuspendExecutionResult
	Suspension *Suspended
	Waitpoints []*Waitpoint
	// Repeated says that nothing was changed: the same holder has sent the command
	// before.
	Repeated bool
}

var blockingReasons = map[ff.SuspensionReason]ff.BlockingReason{
	ff.SuspendedForSignal: ff.WaitingForSignal, ff.SuspendedAtStep: ff.WaitingForSignal,
	ff.SuspendedForApproval: ff.WaitingForApproval, ff.SuspendedForCallback: ff.WaitingForCallback,
	ff.SuspendedForToolResult: ff.WaitingForToolResult, ff.SuspendedForOperatorReview: ff.PausedByOperator,
	ff.SuspendedManually: ff.PausedByOperator, ff.SuspendedByPolicy: ff.PausedByPolicy, ff.SuspendedByBudget: ff.WaitingForBudget,
}

// Suspend parks the attempt until its condition is met (spec 04a §6). Signals that came
// to a pending waitpoint may meet the condition at once: the lease goes on then. The
// command has been validated. Errors: those of the lease validation,
// already_suspended, waitpoint_already_exists, hmac_secret_not_initialized, and those of
// pending waitpoints (spec 04a §6.4).
func Suspend(x *ff.Execution, in *SuspendInput, c *ff.SuspendExecution, now time.Time) (SuspendOutput, Effects, error) {
	var fx Effects
	if out, ok := repeatedSuspend(x, in, c); ok {
		return out, fx, nil
	}
	if err := checkLease(x, c.Fence, &fx, now); err != nil {
		return SuspendOutput{}, fx, err
	}
	if in.Last != nil && in.Last.Open() {
		return SuspendOutput{}, fx, ff.Errorf(ff.CodeAlreadySuspended, "suspension %s is open", in.Last.ID)
	}
	list, err := bindWaitpoints(x, in, c, now)
	if err != nil {
		return SuspendOutput{}, fx, err
	}
	s := newSuspended(x, c, list, now)
	for i := range in.Buffered {
		if feed(s, list[0], &in.Buffered[i]) == ff.EffectResumed {
			s.SatisfiedAt = now
		}
	}
	for _, w := range list {
		w.State, w.SuspensionID, w.ActivatedAt, w.ExpiresAt = ff.WaitpointActive, s.ID, now, s.TimeoutAt
		w.SignalNames = signalNames(&s.Condition)
	}
	if !s.SatisfiedAt.IsZero() {
		s.ClosedAt, s.CloseReason = now, ff.ClosedResumed
		Settle(s, list[0])
		return suspendOutput(s, list), fx, nil
	}
	fx.Events = append(fx.Events, park(x, suspendedVector(s.Reason),
		fmt.Sprintf("suspended: waitpoint %s awaiting %s", list[0].ID, s.Reason), s.ID.String(), "suspend", now))
	x.SuspensionID, x.WaitpointID, x.SuspensionTimeoutAt = s.ID, list[0].ID, s.TimeoutAt
	return suspendOutput(s, list), fx, nil
}

// repeatedSuspend recognises the command of the holder that has suspended the
// execution.
func repeatedSuspend(x *ff.Execution, in *SuspendInput, c *ff.SuspendExecution) (SuspendOutput, bool) {
	if in.Last == nil || in.Last.ID != c.SuspensionID || !ownEarlier(x, c.Fence) {
		return SuspendOutput{}, false
	}
	list := make([]*Waitpoint, 0, len(in.Last.Waitpoints))
	for _, id := range in.Last.Waitpoints {
		if w := in.known(id); w != nil {
			list = append(list, w)
		}
	}
	out := suspendOutput(in.Last, list)
	// A suspension that is over by now was one all the same, unless the lease went on.
	out.Repeated, out.Result.Satisfied = true, x.State.Phase == ff.PhaseActive
	return out, true
}

func suspendOutput(s *Suspended, list []*Waitpoint) SuspendOutput {
	r := ff.SuspendExecutionResult{SuspensionID: s.ID, Satisfied: !s.Open(), TimeoutAt: s.TimeoutAt}
	for _, w := range list {
		r.Waitpoints = append(r.Waitpoints, w.issued())
	}
	return SuspendOutput{Result: r, Suspension: s, Waitpoints: list}
}

// bindWaitpoints makes the waitpoints of the command, or finds the one created ahead.
func bindWaitpoints(x *ff.Execution, in *SuspendInput, c *ff.SuspendExecution, now time.Time) ([]*Waitpoint, error) {
	list := make([]*Waitpoint, len(c.Waitpoints))
	for i, b := range c.Waitpoints {
		known := in.known(b.ID)
		if b.Pending {
			if err := takeUp(x, known, &c.Condition, now); err != nil {
				return nil, err
			}
			list[i] = known
			continue
		}
		if known != nil {
			return nil, ff.Errorf(ff.CodeWaitpointAlreadyExists, "waitpoint %s is %s", b.ID, known.State)
		}
		w, err := newWaitpoint(x, b.ID, b.Key, in.Keys, now)
		if err != nil {
			return nil, err
		}
		list[i] = w
	}
	return list, nil
}

func newSuspended(x *ff.Execution, c *ff.SuspendExecution, list []*Waitpoint, now time.Time) *Suspended {
	s := &Suspended{Suspension: ff.Suspension{
		ID: c.SuspensionID, ExecutionID: x.ID, AttemptIndex: x.Attempt.Index, Reason: c.Reason, RequestedBy: c.RequestedBy,
		Condition: c.Condition, ResumeDelay: c.ResumeDelay, Continuation: c.Continuation,
		CreatedAt: now, TimeoutAt: c.Timeout(now), OnTimeout: c.OnTimeout,
	}}
	if c.Waitpoints[0].Pending {
		s.Condition = c.Condition.Bind(list[0].Key)
	}
	for _, w := range list {
		s.Waitpoints = append(s.Waitpoints, w.ID)
	}
	return s
}

// signalNames are the names that a waitpoint shows to people: of a tree none.
func signalNames(c *ff.ResumeCondition) []string {
	if c.Composite() {
		return nil
	}
	return c.SignalNames()
}

func suspendedVector(reason ff.SuspensionReason) ff.StateVector {
	return ff.StateVector{Phase: ff.PhaseSuspended, Ownership: ff.OwnershipUnowned, Eligibility: ff.EligibilityNotApplicable,
		Blocking: blockingReasons[reason], Outcome: ff.OutcomeNone, Attempt: ff.AttemptInterrupted}
}

// Resume ends a suspension for an operator (spec 04a §7). Errors:
// execution_not_suspended.
func Resume(x *ff.Execution, s *Suspended, c *ff.ResumeExecution, now time.Time) (Effects, error) {
	if x.State.Phase != ff.PhaseSuspended || s == nil || !s.Open() {
		return Effects{}, ff.Errorf(ff.CodeExecutionNotSuspended, "the execution is %s", x.PublicState())
	}
	s.SatisfiedAt = now
	s.close(ff.ClosedResumed, now)
	return Effects{Events: []ff.Event{wake(x, c.Delay, "", "operator", now)}}, nil
}

func (s *Suspended) close(reason string, now time.Time) {
	s.ClosedAt, s.CloseReason, s.Tokens = now, reason, nil
}

// wake makes a suspended execution runnable, at once or after a delay.
func wake(x *ff.Execution, delay time.Duration, cause, by string, now time.Time) ff.Event {
	v, detail := eligible(ff.AttemptInterrupted), ""
	if delay > 0 {
		v = delayed(ff.WaitingForResumeDelay, ff.AttemptInterrupted)
		detail = fmt.Sprintf("resume delay %dms%s", delay.Milliseconds(), cause)
		x.DelayUntil = now.Add(delay)
	}
	setState(x, v, detail, now)
	endSuspension(x)
	e := event(x, ff.FamilySignal, ff.EventResumed, now)
	e.AttemptID, e.AttemptIndex, e.Reason = x.CurrentAttemptID, x.Attempt.Index, by
	return e
}

// endSuspension clears what says that the execution is suspended.
func endSuspension(x *ff.Execution) {
	x.SuspensionID, x.WaitpointID, x.SuspensionTimeoutAt = ff.SuspensionID{}, ff.WaitpointID{}, time.Time{}
}

// timeouts says how a suspension ends by its timeout: the reason and the outcome, which
// is none when the attempt goes on.
var timeouts = map[ff.TimeoutBehavior]struct {
	reason  string
	outcome ff.TerminalOutcome
}{
	ff.TimeoutResume: {ff.ClosedTimedOutResume, ff.OutcomeNone},
	ff.TimeoutCancel: {ff.ClosedTimedOutCancel, ff.OutcomeCancelled},
	ff.TimeoutExpire: {ff.ClosedTimedOutExpire, ff.OutcomeExpired},
	ff.TimeoutFail:   {ff.ClosedTimedOutFail, ff.OutcomeFailed},
}

// TimeOutSuspension does what a suspension does when its time is over (spec 04a §9). It
// reports whether it was.
func TimeOutSuspension(x *ff.Execution, s *Suspended, now time.Time) (changed bool, fx Effects) {
	if x.State.Phase != ff.PhaseSuspended || s == nil || !s.Open() || s.TimeoutAt.IsZero() || s.TimeoutAt.After(now) {
		return false, fx
	}
	if s.OnTimeout == ff.TimeoutEscalate {
		fx.Events = append(fx.Events, escalate(x, s, now))
		return true, fx
	}
	t, ok := timeouts[s.OnTimeout]
	if !ok {
		t = timeouts[ff.TimeoutFail]
	}
	s.close(t.reason, now)
	if t.outcome == ff.OutcomeNone {
		fx.Events = append(fx.Events, wake(x, 0, "", "timeout", now))
		return true, fx
	}
	reason, state := suspensionTimedOut+string(s.OnTimeout), ff.AttemptEndedFailure
	if t.outcome == ff.OutcomeCancelled {
		state = ff.AttemptEndedCancelled
	}
	endAttempt(x, state, reason, "", now)
	x.Attempt.SuspendedAt, x.Attempt.Suspension = time.Time{}, ""
	x.FailureReason = reason
	fx.Events = append(fx.Events, finish(x, t.outcome, reason, now))
	return true, fx
}

// suspensionTimedOut begins the failure reason of what the time of a suspension has
// ended; what it was to do then follows (spec 04a).
const suspensionTimedOut = "suspension_timeout:"

// escalate leaves the suspension to an operator.
func escalate(x *ff.Execution, s *Suspended, now time.Time) ff.Event {
	x.State.Blocking = ff.PausedByOperator
	x.BlockingDetail = "suspension escalated: timeout at " + ms(s.TimeoutAt)
	x.SuspensionTimeoutAt, x.LastMutationAt = time.Time{}, now
	s.Reason, s.TimeoutAt, s.OnTimeout = ff.SuspendedForOperatorReview, time.Time{}, ""
	e := event(x, ff.FamilySignal, ff.EventEscalated, now)
	e.AttemptID, e.AttemptIndex = x.CurrentAttemptID, x.Attempt.Index
	return e
}

// CloseAbandoned closes the suspension of an execution that has ended in another way
// than through it. It reports whether it did.
func CloseAbandoned(x *ff.Execution, s *Suspended, now time.Time) bool {
	if x.State.Phase != ff.PhaseTerminal || s == nil || !s.Open() {
		return false
	}
	reason := ff.ClosedCancelled
	if x.State.Outcome == ff.OutcomeExpired {
		reason = ff.ClosedExpiredPrefix + x.FailureReason
	}
	s.close(reason, now)
	return true
}
