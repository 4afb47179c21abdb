package lifecycle

import (
	"crypto/sha1" //nolint:gosec // see Backoff
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// ownEarlier reports whether the fence is that of the lease under which the
// execution was last worked on.
func ownEarlier(x *ff.Execution, f ff.Fence) bool {
	return !f.IsZero() && f.LeaseEpoch == x.LeaseEpoch && f.AttemptID == x.CurrentAttemptID
}

// Complete ends the execution with success (spec 03 §6). repeated says that the
// same holder had completed it before: success again, nothing changed
// (spec 02 §5).
func Complete(x *ff.Execution, c *ff.CompleteExecution, now time.Time) (repeated bool, fx Effects, err error) {
	if x.State.Phase == ff.PhaseTerminal && x.State.Outcome == ff.OutcomeSuccess && ownEarlier(x, c.Fence) {
		return true, fx, nil
	}
	if err := checkHolder(x, c.Fence, c.Source, &fx, now); err != nil {
		return false, fx, err
	}
	endAttempt(x, ff.AttemptEndedSuccess, "", "", now)
	fx.Events = append(fx.Events, finish(x, ff.OutcomeSuccess, "completed", now))
	clearLeaseMarks(x)
	x.FailureReason, x.FailureCategory = "", ""
	return false, fx, nil
}

// Fail ends the attempt (spec 03 §10). While the retry policy allows it the
// execution waits for its backoff and a new attempt follows, else it is
// terminal. A repeated failure by the same holder succeeds without a change.
func Fail(x *ff.Execution, c *ff.FailExecution, now time.Time) (ff.FailExecutionResult, Effects, error) {
	var fx Effects
	if r, ok := repeatedFailure(x, c.Fence); ok {
		return r, fx, nil
	}
	if err := checkHolder(x, c.Fence, c.Source, &fx, now); err != nil {
		return ff.FailExecutionResult{}, fx, err
	}
	endAttempt(x, ff.AttemptEndedFailure, c.Reason, c.Category, now)
	x.FailureReason, x.FailureCategory = c.Reason, c.Category
	if c.NoRetry || !mayRetry(x, c.Category) {
		fx.Events = append(fx.Events, finish(x, ff.OutcomeFailed, c.Reason, now))
		return ff.FailExecutionResult{State: x.PublicState()}, fx, nil
	}
	backoff := c.RetryAfter
	if backoff <= 0 {
		backoff = Backoff(x)
	}
	fx.Events = append(fx.Events, scheduleRetry(x, c.Reason, backoff, now))
	return ff.FailExecutionResult{State: x.PublicState(), RetryAt: now.Add(backoff), Retried: true}, fx, nil
}

func repeatedFailure(x *ff.Execution, f ff.Fence) (ff.FailExecutionResult, bool) {
	switch {
	case x.State.Phase == ff.PhaseTerminal && x.State.Outcome == ff.OutcomeFailed && ownEarlier(x, f):
		return ff.FailExecutionResult{State: x.PublicState(), Repeated: true}, true
	case x.State.Attempt == ff.AttemptPendingRetry && !f.IsZero() && f.LeaseEpoch == x.LeaseEpoch && f.AttemptID == x.Attempt.ID:
		return ff.FailExecutionResult{State: x.PublicState(), Retried: true, Repeated: true, RetryAt: x.DelayUntil}, true
	}
	return ff.FailExecutionResult{}, false
}

// mayRetry reports whether the policy has a retry left for a failure of this
// category. An empty list of retryable categories means all.
func mayRetry(x *ff.Execution, category string) bool {
	if x.Policy == nil || x.Policy.Retry == nil || x.RetryCount >= x.Policy.Retry.MaxRetries {
		return false
	}
	only := x.Policy.Retry.RetryableCategories
	return len(only) == 0 || slices.Contains(only, category)
}

// Backoff is the wait before the next attempt. Jitter takes up to half of it
// off, by a hash of the execution and its retry, so that the rule stays pure. The
// hash is one that the functions of the Valkey store have too.
func Backoff(x *ff.Execution) time.Duration {
	r := x.Policy.Retry
	wait := r.Delay(x.RetryCount).Milliseconds()
	if r.Backoff.Jitter && wait > 0 {
		h := sha1.Sum([]byte(x.ID.String() + "/" + strconv.Itoa(x.RetryCount))) //nolint:gosec // it spreads retries, it keeps no secret
		wait -= (int64(binary.BigEndian.Uint64(h[:]) >> 16)) % (wait/2 + 1)
	}
	return time.Duration(wait) * time.Millisecond
}

func scheduleRetry(x *ff.Execution, reason string, backoff time.Duration, now time.Time) ff.Event {
	due := now.Add(backoff)
	e := leaseEvent(x, ff.EventReleased, "failed_retry_scheduled", now)
	v := delayed(ff.WaitingForRetryBackoff, ff.AttemptPendingRetry)
	detail := fmt.Sprintf("retry backoff until %s (attempt %d failed: %s)", ms(due), x.Attempt.Index, reason)
	if backoff <= 0 {
		v, detail = eligible(ff.AttemptPendingRetry), ""
	} else {
		x.DelayUntil = due
	}
	setState(x, v, detail, now)
	x.PendingRetryReason, x.PendingPreviousAttempt = reason, x.Attempt.Index
	x.RetryCount++
	x.CurrentAttemptID = ff.AttemptID{}
	endLease(x)
	return e
}

// Cancel ends an execution that is not terminal (spec 03 §7). A fence must match
// the lease in force; an operator gives none. repeated says that the same holder
// had cancelled it before.
func Cancel(x *ff.Execution, c *ff.CancelExecution, now time.Time) (previous ff.LifecyclePhase, repeated bool, fx Effects, err error) {
	if x.Terminal() {
		if x.State.Outcome == ff.OutcomeCancelled && ownEarlier(x, c.Fence) {
			return ff.PhaseTerminal, true, fx, nil
		}
		return "", false, fx, notActive(x)
	}
	source := c.Source
	if source == "" {
		source = ff.SourceOperatorOverride
	}
	if !c.Fence.IsZero() {
		if err := checkLease(x, c.Fence, &fx, now); err != nil {
			return "", false, fx, err
		}
		if c.Source == "" {
			source = ff.SourceWorker
		}
	}
	previous = x.State.Phase
	endAttempt(x, ff.AttemptEndedCancelled, "cancelled: "+c.Reason, "", now)
	fx.Events = append(fx.Events, finish(x, ff.OutcomeCancelled, c.Reason, now))
	x.CancellationReason, x.CancelledBy = c.Reason, source
	return previous, false, fx, nil
}

// Replay starts a terminal execution again as a new attempt. Errors:
// execution_not_terminal, max_replays_exhausted.
func Replay(x *ff.Execution, c *ff.ReplayExecution, now time.Time) (Effects, error) {
	var fx Effects
	if !x.Terminal() {
		return fx, ff.Errorf(ff.CodeExecutionNotTerminal, "the execution is %s", x.PublicState())
	}
	if limit := maxReplays(x); x.ReplayCount >= limit {
		return fx, ff.Errorf(ff.CodeMaxReplaysExhausted, "%d of %d replays are used", x.ReplayCount, limit)
	}
	x.ReplayCount++
	x.PendingReplayReason, x.PendingReplayBy, x.PendingPreviousAttempt = c.Reason, c.RequestedBy, x.TotalAttempts-1
	x.CompletedAt, x.DelayUntil, x.Deadline = time.Time{}, time.Time{}, time.Time{}
	if x.Policy != nil && x.Policy.Timeout != nil && x.Policy.Timeout.Deadline > 0 {
		x.Deadline = now.Add(x.Policy.Timeout.Deadline)
	}
	x.CancellationReason, x.CancelledBy = "", ""
	clearLeaseMarks(x)
	setState(x, eligible(ff.AttemptPendingReplay), "", now)
	e := event(x, ff.FamilyLease, ff.EventReplayInitiated, now)
	e.Reason, e.AttemptIndex = "normal", x.Attempt.Index
	fx.Events = append(fx.Events, e)
	return fx, nil
}

func maxReplays(x *ff.Execution) int {
	if x.Policy == nil {
		return ff.DefaultMaxReplays
	}
	return x.Policy.MaxReplays
}
