package lifecycle

import (
	"strconv"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// notActive is execution_not_active with the four details by which a holder
// recognises its own earlier command (spec 02 §5).
func notActive(x *ff.Execution) error {
	attempt := ""
	if !x.CurrentAttemptID.IsZero() {
		attempt = x.CurrentAttemptID.String()
	}
	return ff.NotActive(string(x.State.Outcome), strconv.FormatUint(x.LeaseEpoch, 10), string(x.State.Phase), attempt)
}

// checkLease is the lease validation of every write by a worker, in the order of
// spec 01 §7.3. A lease that has lapsed is recorded as such: the Effects hold
// the event then.
func checkLease(x *ff.Execution, f ff.Fence, fx *Effects, now time.Time) error {
	if x.State.Phase != ff.PhaseActive {
		return notActive(x)
	}
	if x.State.Ownership == ff.OwnershipLeaseRevoked {
		return ff.NewError(ff.CodeLeaseRevoked, x.LeaseRevokeReason)
	}
	if !x.Lease.ExpiresAt.After(now) {
		MarkLeaseExpired(x, fx, now)
		return ff.Errorf(ff.CodeLeaseExpired, "the lease ended at %s", x.Lease.ExpiresAt.Format(time.RFC3339Nano))
	}
	if f.LeaseID != x.Lease.ID || f.LeaseEpoch != x.LeaseEpoch || f.AttemptID != x.CurrentAttemptID {
		return ff.Errorf(ff.CodeStaleLease, "the lease in force has epoch %d, the caller's has %d", x.LeaseEpoch, f.LeaseEpoch)
	}
	return nil
}

// checkHolder is checkLease for commands that an operator may send without a
// fence (spec 01 §7.4).
func checkHolder(x *ff.Execution, f ff.Fence, source ff.CancelSource, fx *Effects, now time.Time) error {
	if f.Partial() {
		return ff.NewError(ff.CodePartialFenceTriple, "")
	}
	if f.IsZero() {
		if source != ff.SourceOperatorOverride {
			return ff.NewError(ff.CodeFenceRequired, "")
		}
		f = ff.Fence{LeaseID: x.Lease.ID, LeaseEpoch: x.LeaseEpoch, AttemptID: x.CurrentAttemptID}
	}
	return checkLease(x, f, fx, now)
}

// MarkLeaseExpired records that the lease has lapsed, if it has: the execution
// becomes claimable again (spec 01 §7.5). It reports whether it changed x.
func MarkLeaseExpired(x *ff.Execution, fx *Effects, now time.Time) bool {
	if x.State.Phase != ff.PhaseActive || x.State.Ownership != ff.OwnershipLeased || x.Lease.ExpiresAt.After(now) {
		return false
	}
	fx.Events = append(fx.Events, leaseEvent(x, ff.EventLeaseExpired, "", now))
	x.State.Ownership, x.State.Blocking, x.State.Attempt = ff.OwnershipLeaseExpired, ff.WaitingForWorker, ff.AttemptInterrupted
	x.BlockingDetail = "lease expired, awaiting reclaim"
	x.LeaseExpiredAt, x.LastMutationAt = now, now
	return true
}

// Renew extends the lease (spec 03 §14). A renewal never shortens it (quirk 03
// Q22). Errors: those of the lease validation.
func Renew(x *ff.Execution, f ff.Fence, ttl time.Duration, now time.Time) (Effects, error) {
	var fx Effects
	if err := checkLease(x, f, &fx, now); err != nil {
		return fx, err
	}
	if end := now.Add(ttl); end.After(x.Lease.ExpiresAt) {
		x.Lease.ExpiresAt = end
	}
	x.Lease.RenewedAt, x.Lease.RenewBefore = now, now.Add(ttl*2/3)
	x.LastMutationAt = now
	return fx, nil
}

// Progress stores how far the attempt is (spec 03 §19).
func Progress(x *ff.Execution, c *ff.UpdateProgress, now time.Time) (Effects, error) {
	var fx Effects
	if err := checkLease(x, c.Fence, &fx, now); err != nil {
		return fx, err
	}
	if c.Percent != nil {
		p := *c.Percent
		x.Progress.Percent = &p
	}
	if c.Message != "" {
		x.Progress.Message = c.Message
	}
	x.Progress.UpdatedAt, x.LastMutationAt = now, now
	return fx, nil
}

// Revoke takes the lease away (spec 03 §16). already is not empty when there was
// nothing to take. Errors: stale_lease when another lease is expected.
func Revoke(x *ff.Execution, c *ff.RevokeLease, now time.Time) (already string, fx Effects, err error) {
	switch {
	case x.State.Phase != ff.PhaseActive:
		return "no_active_lease", fx, nil
	case x.State.Ownership == ff.OwnershipLeaseRevoked:
		return "already_revoked", fx, nil
	case x.State.Ownership == ff.OwnershipLeaseExpired:
		return "already_expired", fx, nil
	case c.Instance != "" && c.Instance != x.Lease.Instance:
		return "different_worker_instance_id", fx, nil
	case !c.LeaseID.IsZero() && c.LeaseID != x.Lease.ID:
		return "", fx, ff.Errorf(ff.CodeStaleLease, "expected %s but current is %s", c.LeaseID, x.Lease.ID)
	}
	fx.Events = append(fx.Events, leaseEvent(x, ff.EventRevoked, c.Reason, now))
	x.State.Ownership, x.State.Blocking, x.State.Attempt = ff.OwnershipLeaseRevoked, ff.WaitingForWorker, ff.AttemptInterrupted
	x.BlockingDetail = "lease revoked: " + c.Reason
	x.LeaseRevokedAt, x.LeaseRevokeReason, x.LastMutationAt = now, c.Reason, now
	x.AttemptTimeoutAt = time.Time{}
	return "", fx, nil
}

// park ends the lease but not the attempt.
func park(x *ff.Execution, v ff.StateVector, detail, suspension, reason string, now time.Time) ff.Event {
	e := leaseEvent(x, ff.EventReleased, reason, now)
	setState(x, v, detail, now)
	x.Attempt.State, x.Attempt.SuspendedAt, x.Attempt.Suspension = ff.AttemptSuspended, now, suspension
	endLease(x)
	return e
}

// Delay parks the execution until a time; the same attempt goes on then
// (spec 03 §8). A time that has passed makes it eligible at once.
func Delay(x *ff.Execution, c *ff.DelayExecution, now time.Time) (time.Time, Effects, error) {
	var fx Effects
	if err := checkHolder(x, c.Fence, c.Source, &fx, now); err != nil {
		return time.Time{}, fx, err
	}
	until := c.Until
	if c.For > 0 {
		until = now.Add(c.For)
	}
	v, detail := delayed(ff.WaitingForDelay, ff.AttemptInterrupted), "delayed until "+ms(until)
	if !until.After(now) {
		v, detail = eligible(ff.AttemptInterrupted), ""
	}
	fx.Events = append(fx.Events, park(x, v, detail, "worker_delay", "worker_delay", now))
	if v.Eligibility == ff.NotEligibleUntilTime {
		x.DelayUntil = until
	}
	return until, fx, nil
}

// Release hands the execution back: eligible at once, the same attempt goes on.
func Release(x *ff.Execution, f ff.Fence, reason string, now time.Time) (Effects, error) {
	var fx Effects
	if err := checkLease(x, f, &fx, now); err != nil {
		return fx, err
	}
	if reason == "" {
		reason = "worker_release"
	}
	fx.Events = append(fx.Events, park(x, eligible(ff.AttemptInterrupted), "", "worker_release", reason, now))
	return fx, nil
}
