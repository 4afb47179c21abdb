package lifecycle

import (
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// Due is the next thing that time will do to an execution.
type Due struct {
	Kind ff.SweepKind
	At   time.Time
}

// NextDue is the earliest thing that time will do to an execution, false when
// nothing. Stores keep it in one index by kind and instant, so that every loop
// reads only what is due. The retention is that of executions without their own.
func NextDue(x *ff.Execution, retention time.Duration) (Due, bool) {
	var next Due
	earlier := func(kind ff.SweepKind, at time.Time) {
		if !at.IsZero() && (next.At.IsZero() || at.Before(next.At)) {
			next = Due{kind, at}
		}
	}
	switch x.State.Phase {
	case ff.PhaseTerminal:
		earlier(ff.SweepRetention, x.RetentionUntil(retention))
		return next, !next.At.IsZero()
	case ff.PhaseActive:
		if x.State.Ownership == ff.OwnershipLeased {
			earlier(ff.SweepLeaseExpiry, x.Lease.ExpiresAt)
			earlier(ff.SweepAttemptTimeout, x.AttemptTimeoutAt)
		}
	case ff.PhaseRunnable:
		if x.State.Eligibility == ff.NotEligibleUntilTime {
			earlier(ff.SweepDelayed, x.DelayUntil)
		}
	case ff.PhaseSuspended:
		earlier(ff.SweepSuspensionTimeout, x.SuspensionTimeoutAt)
	}
	// A lapsed grant is taken back by the promoter, so that the execution is
	// claimable again.
	earlier(ff.SweepDelayed, x.Grant.ExpiresAt)
	earlier(ff.SweepExecutionDeadline, x.Deadline)
	return next, !next.At.IsZero()
}

// Advance does what is due of an execution at now. It reports whether anything
// was (a caller may come late or early, and twice), and whether retention is
// over, in which case the store deletes the execution and x is unchanged. The
// timeout of a suspension is not done here, see TimeOutSuspension.
func Advance(x *ff.Execution, retention time.Duration, now time.Time) (changed, purge bool, fx Effects) {
	due, ok := NextDue(x, retention)
	if !ok || due.At.After(now) {
		return false, false, fx
	}
	switch due.Kind {
	case ff.SweepRetention:
		return false, true, fx
	case ff.SweepSuspensionTimeout:
		return false, false, fx
	case ff.SweepLeaseExpiry:
		return MarkLeaseExpired(x, &fx, now), false, fx
	case ff.SweepDelayed:
		promote(x, now)
	case ff.SweepAttemptTimeout:
		timeOutAttempt(x, &fx, now)
	case ff.SweepExecutionDeadline:
		expire(x, deadlineTime, &fx, now)
	}
	return true, false, fx
}

// promote makes a delayed execution eligible (spec 03 §20), or takes back a
// grant that has lapsed.
func promote(x *ff.Execution, now time.Time) {
	if !x.Grant.ExpiresAt.IsZero() && !x.Grant.ExpiresAt.After(now) {
		x.Grant, x.LastMutationAt = ff.Grant{}, now
	}
	if x.State.Eligibility == ff.NotEligibleUntilTime && !x.DelayUntil.After(now) {
		setState(x, eligible(x.State.Attempt), "", now)
		x.DelayUntil = time.Time{}
	}
}

// How time ends attempts.
const (
	timedOut     = "timeout"
	attemptTime  = "attempt_timeout"
	deadlineTime = "execution_deadline"
)

// endedByTime reports whether an attempt took too long, or its execution.
func endedByTime(a *ff.Attempt) bool {
	return a.FailureCategory == timedOut && (a.FailureReason == attemptTime || a.FailureReason == deadlineTime)
}

// timeOutAttempt ends an attempt that took too long. While the retry policy
// allows it another attempt follows (quirk 03 Q17), else the execution expires.
func timeOutAttempt(x *ff.Execution, fx *Effects, now time.Time) {
	if !mayRetry(x, timedOut) {
		expire(x, attemptTime, fx, now)
		return
	}
	endAttempt(x, ff.AttemptEndedFailure, attemptTime, timedOut, now)
	x.FailureReason, x.FailureCategory = attemptTime, timedOut
	fx.Events = append(fx.Events, scheduleRetry(x, attemptTime, Backoff(x), now))
}

// expire is the terminal transition by time (spec 03 §12).
func expire(x *ff.Execution, reason string, fx *Effects, now time.Time) {
	endAttempt(x, ff.AttemptEndedFailure, reason, timedOut, now)
	x.FailureReason, x.FailureCategory = reason, timedOut
	fx.Events = append(fx.Events, finish(x, ff.OutcomeExpired, reason, now))
}
