// Package lifecycle holds the transition rules of executions, once for all
// stores: given the stored record and a command, a rule either refuses with an
// error or changes the record and says what else follows.
//
// The rules are pure. They do no I/O, have no clock (now is given) and no
// randomness (ids are given). SQL stores load a record, apply a rule and save
// the record with the events, in one transaction. The Valkey store runs its own
// functions and is compared with these rules.
//
// # Errors
//
// A rule that returns an error has left the record as it was, with one
// exception: when the Effects hold events, the record was changed in spite of
// the error and must be saved. That happens when a command arrives after its
// lease lapsed (the lapse is recorded) and when a takeover exceeds the reclaim
// limit (the execution fails).
package lifecycle

import (
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// Effects is what follows from a transition besides the changed record.
type Effects struct {
	// Events belong to the change and are stored with it, in order.
	Events []ff.Event
	// Superseded is the attempt that a new attempt has replaced as
	// Execution.Attempt; the store keeps it in the list of attempts.
	Superseded *ff.Attempt
}

// setState writes a whole state vector with its detail, as every transition
// does (spec 01 §4.2).
func setState(x *ff.Execution, v ff.StateVector, detail string, now time.Time) {
	x.State, x.BlockingDetail = v, detail
	x.LastTransitionAt, x.LastMutationAt = now, now
}

// eligible is the vector of an execution that may be claimed, apart from the
// attempt phase, which every caller chooses.
func eligible(attempt ff.AttemptPhase) ff.StateVector {
	return ff.StateVector{Phase: ff.PhaseRunnable, Ownership: ff.OwnershipUnowned, Eligibility: ff.EligibleNow,
		Blocking: ff.WaitingForWorker, Outcome: ff.OutcomeNone, Attempt: attempt}
}

// delayed is the vector of an execution that waits for a time.
func delayed(why ff.BlockingReason, attempt ff.AttemptPhase) ff.StateVector {
	return ff.StateVector{Phase: ff.PhaseRunnable, Ownership: ff.OwnershipUnowned, Eligibility: ff.NotEligibleUntilTime,
		Blocking: why, Outcome: ff.OutcomeNone, Attempt: attempt}
}

// terminal is the vector of an execution that has ended.
func terminal(outcome ff.TerminalOutcome, attempt ff.AttemptPhase) ff.StateVector {
	return ff.StateVector{Phase: ff.PhaseTerminal, Ownership: ff.OwnershipUnowned, Eligibility: ff.EligibilityNotApplicable,
		Blocking: ff.BlockingNone, Outcome: outcome, Attempt: attempt}
}

// leased is the vector of an execution that a worker runs.
var leased = ff.StateVector{Phase: ff.PhaseActive, Ownership: ff.OwnershipLeased, Eligibility: ff.EligibilityNotApplicable,
	Blocking: ff.BlockingNone, Outcome: ff.OutcomeNone, Attempt: ff.AttemptRunning}

// event starts an event with what every event has.
func event(x *ff.Execution, family ff.EventFamily, typ ff.EventType, now time.Time) ff.Event {
	return ff.Event{Family: family, Type: typ, ID: x.ID, At: now, FlowID: x.FlowID}
}

// leaseEvent is an event about the lease in force and its attempt.
func leaseEvent(x *ff.Execution, typ ff.EventType, reason string, now time.Time) ff.Event {
	e := event(x, ff.FamilyLease, typ, now)
	e.LeaseID, e.LeaseEpoch = x.Lease.ID, x.LeaseEpoch
	e.AttemptID, e.AttemptIndex = x.CurrentAttemptID, x.Attempt.Index
	e.Worker, e.Instance, e.Reason = x.Lease.Worker, x.Lease.Instance, reason
	return e
}

// endLease clears the lease and what depends on it. The epoch stays: it only
// grows.
func endLease(x *ff.Execution) {
	x.Lease = ff.Lease{}
	x.AttemptTimeoutAt = time.Time{}
	x.Grant = ff.Grant{}
}

// clearLeaseMarks forgets how an earlier lease was lost.
func clearLeaseMarks(x *ff.Execution) {
	x.LeaseExpiredAt, x.LeaseRevokedAt, x.LeaseRevokeReason = time.Time{}, time.Time{}, ""
}

// finish makes an execution terminal and returns its completion event.
func finish(x *ff.Execution, outcome ff.TerminalOutcome, reason string, now time.Time) ff.Event {
	e := event(x, ff.FamilyCompletion, ff.EventCompletion, now)
	e.LeaseID, e.LeaseEpoch = x.Lease.ID, x.LeaseEpoch
	e.Worker, e.Instance = x.Lease.Worker, x.Lease.Instance
	e.Outcome, e.Reason = outcome, reason
	attempt := x.State.Attempt
	if x.TotalAttempts > 0 {
		attempt = ff.AttemptTerminal
		e.AttemptID, e.AttemptIndex = x.CurrentAttemptID, x.Attempt.Index
	}
	setState(x, terminal(outcome, attempt), "", now)
	x.CompletedAt = now
	x.DelayUntil = time.Time{}
	endLease(x)
	endSuspension(x)
	return e
}

// endAttempt records how the latest attempt ended. An attempt that has ended
// before is left alone.
func endAttempt(x *ff.Execution, state ff.AttemptState, reason, category string, now time.Time) {
	if x.TotalAttempts == 0 || !x.Attempt.EndedAt.IsZero() {
		return
	}
	x.Attempt.State, x.Attempt.EndedAt = state, now
	x.Attempt.FailureReason, x.Attempt.FailureCategory = reason, category
}
