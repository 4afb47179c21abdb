package lifecycle

import (
	"strings"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// Claimable reports whether Claim may take the execution: it waits for a
// worker, or its lease was lost. A granted execution is kept for the grantee.
func Claimable(x *ff.Execution) bool {
	if x.Grant.Worker != "" {
		return false
	}
	return waiting(x) || reclaimable(x)
}

func waiting(x *ff.Execution) bool {
	s := &x.State
	return s.Phase == ff.PhaseRunnable && s.Ownership == ff.OwnershipUnowned && s.Eligibility == ff.EligibleNow
}

func reclaimable(x *ff.Execution) bool {
	s := &x.State
	return s.Phase == ff.PhaseActive && (s.Ownership == ff.OwnershipLeaseExpired || s.Ownership == ff.OwnershipLeaseRevoked)
}

// ClaimArgs are the parts of a claim that belong to one execution.
type ClaimArgs struct {
	ff.Claimant
	// LeaseID and AttemptID are fresh ids; the attempt id goes unused when a
	// parked attempt goes on.
	LeaseID   ff.LeaseID
	AttemptID ff.AttemptID
	LeaseTTL  time.Duration
}

// Claim gives the execution to a worker (spec 03 §5, §11, 04b). It starts a new
// attempt, or goes on with a parked one (resumed is true then). Errors:
// capability_mismatch; execution_not_leaseable and lease_conflict when the
// execution is not claimable; grant_already_exists while another claimant's
// grant is live; max_retries_exhausted when the reclaim limit is reached, which
// has made the execution terminal.
func Claim(x *ff.Execution, c *ClaimArgs, now time.Time) (resumed bool, fx Effects, err error) {
	if err := checkClaimable(x); err != nil {
		return false, fx, err
	}
	if x.Grant.Live(now) && (x.Grant.Worker != c.Worker || x.Grant.Instance != c.Instance) {
		return false, fx, ff.Errorf(ff.CodeGrantAlreadyExists, "granted to worker %q until %s", x.Grant.Worker, x.Grant.ExpiresAt.Format(time.RFC3339Nano))
	}
	if err := matchCapabilities(x, c.Capabilities, now); err != nil {
		return false, fx, err
	}
	switch {
	case reclaimable(x):
		return false, fx, reclaim(x, c, &fx, now)
	case x.State.Attempt == ff.AttemptInterrupted:
		resume(x, c, &fx, now)
		return true, fx, nil
	}
	startAttempt(x, c, attemptType(x), &fx, now)
	fx.Events = append(fx.Events, leaseEvent(x, ff.EventAcquired, "", now))
	return false, fx, nil
}

func checkClaimable(x *ff.Execution) error {
	switch s := &x.State; {
	case reclaimable(x), waiting(x):
		return nil
	case s.Phase == ff.PhaseActive && s.Ownership == ff.OwnershipLeased:
		return ff.Errorf(ff.CodeLeaseConflict, "leased to worker %q until %s", x.Lease.Worker, x.Lease.ExpiresAt.Format(time.RFC3339Nano))
	}
	return ff.Errorf(ff.CodeExecutionNotLeaseable, "the execution is %s", x.PublicState())
}

// matchCapabilities stamps the record on a mismatch; the stamp is for people
// and need not be saved.
func matchCapabilities(x *ff.Execution, offered ff.CapabilitySet, now time.Time) error {
	missing := offered.Missing(x.Required)
	if len(missing) == 0 {
		return nil
	}
	x.CapabilityMismatchAt = now
	return ff.NewError(ff.CodeCapabilityMismatch, strings.Join(missing, ","))
}

func attemptType(x *ff.Execution) ff.AttemptType {
	switch x.State.Attempt {
	case ff.AttemptPendingRetry:
		return ff.AttemptRetry
	case ff.AttemptPendingReplay:
		return ff.AttemptReplay
	}
	return ff.AttemptInitial
}

// maxReclaims is the limit of takeovers of an execution.
func maxReclaims(x *ff.Execution) int {
	if x.Policy == nil {
		return ff.DefaultMaxReclaims
	}
	return x.Policy.MaxReclaims
}

func reclaim(x *ff.Execution, c *ClaimArgs, fx *Effects, now time.Time) error {
	if limit := maxReclaims(x); x.ReclaimCount >= limit {
		endAttempt(x, ff.AttemptEndedFailure, "max_reclaims_exceeded", "", now)
		x.FailureReason = "max_reclaims_exceeded"
		fx.Events = append(fx.Events, finish(x, ff.OutcomeFailed, "max_reclaims_exceeded", now))
		e := ff.Errorf(ff.CodeMaxRetriesExhausted, "%d", limit)
		e.Details = []string{e.Detail}
		return e
	}
	endAttempt(x, ff.AttemptInterruptedReclaimed, "lease_"+string(x.State.Ownership), "", now)
	x.ReclaimCount++
	startAttempt(x, c, ff.AttemptReclaim, fx, now)
	fx.Events = append(fx.Events, leaseEvent(x, ff.EventReclaimed, "", now))
	return nil
}

// startAttempt replaces the latest attempt with a new one under a new lease.
func startAttempt(x *ff.Execution, c *ClaimArgs, typ ff.AttemptType, fx *Effects, now time.Time) {
	a := ff.Attempt{
		ID: c.AttemptID, Index: x.TotalAttempts, Type: typ, State: ff.AttemptStarted,
		CreatedAt: now, StartedAt: now, Previous: -1,
	}
	switch typ {
	case ff.AttemptRetry:
		a.Cause, a.Previous = x.PendingRetryReason, x.PendingPreviousAttempt
	case ff.AttemptReplay:
		a.Cause, a.RequestedBy, a.Previous = x.PendingReplayReason, x.PendingReplayBy, x.PendingPreviousAttempt
	case ff.AttemptReclaim:
		a.Cause, a.Previous = x.Attempt.FailureReason, x.Attempt.Index
	}
	if x.TotalAttempts > 0 {
		old := x.Attempt
		fx.Superseded = &old
	}
	x.Attempt, x.CurrentAttemptID = a, a.ID
	x.TotalAttempts++
	x.PendingRetryReason, x.PendingReplayReason, x.PendingReplayBy, x.PendingPreviousAttempt = "", "", "", 0
	if x.StartedAt.IsZero() {
		x.StartedAt = now
	}
	acquire(x, c, now)
}

// resume goes on with the parked attempt under a new lease.
func resume(x *ff.Execution, c *ClaimArgs, fx *Effects, now time.Time) {
	x.Attempt.State, x.Attempt.ResumedAt = ff.AttemptStarted, now
	x.Attempt.SuspendedAt, x.Attempt.Suspension = time.Time{}, ""
	acquire(x, c, now)
	fx.Events = append(fx.Events, leaseEvent(x, ff.EventAcquired, "claim_resumed", now))
}

// acquire starts a lease. Marks of earlier leases are cleared, so that a lease
// after a replay can be renewed (quirk 03 Q15). The attempt timeout starts anew
// with every lease that a claim gives (quirk 03 Q9).
func acquire(x *ff.Execution, c *ClaimArgs, now time.Time) {
	x.Grant = ff.Grant{}
	x.LeaseEpoch++
	x.Lease = ff.Lease{
		ID: c.LeaseID, Worker: c.Worker, Instance: c.Instance, AcquiredAt: now,
		ExpiresAt: now.Add(c.LeaseTTL), RenewedAt: now, RenewBefore: now.Add(c.LeaseTTL * 2 / 3),
	}
	x.Attempt.LeaseID, x.Attempt.LeaseEpoch = x.Lease.ID, x.LeaseEpoch
	x.Attempt.Worker, x.Attempt.Instance = c.Worker, c.Instance
	clearLeaseMarks(x)
	x.DelayUntil, x.AttemptTimeoutAt = time.Time{}, time.Time{}
	if x.Policy != nil && x.Policy.Timeout != nil && x.Policy.Timeout.Attempt > 0 {
		x.AttemptTimeoutAt = now.Add(x.Policy.Timeout.Attempt)
	}
	setState(x, leased, "", now)
}

// GrantArgs describe a grant.
type GrantArgs struct {
	ff.Claimant
	TTL                                 time.Duration
	Capability, RouteJSON, AdmissionSum string
}

// GrantClaim reserves a waiting execution for a worker (spec 03 §17). Errors:
// execution_not_eligible, grant_already_exists, capability_mismatch.
func GrantClaim(x *ff.Execution, g *GrantArgs, now time.Time) error {
	if !waiting(x) {
		return notEligible(x)
	}
	return grant(x, g, now)
}

// GrantReclaim reserves an execution whose lease was lost (spec 03 §21). Errors:
// execution_not_reclaimable, grant_already_exists, capability_mismatch.
func GrantReclaim(x *ff.Execution, g *GrantArgs, now time.Time) error {
	if !reclaimable(x) {
		return ff.Errorf(ff.CodeExecutionNotReclaimable, "the execution is %s and its lease is %s", x.PublicState(), x.State.Ownership)
	}
	return grant(x, g, now)
}

func grant(x *ff.Execution, g *GrantArgs, now time.Time) error {
	if x.Grant.Live(now) {
		return ff.Errorf(ff.CodeGrantAlreadyExists, "granted to worker %q until %s", x.Grant.Worker, x.Grant.ExpiresAt.Format(time.RFC3339Nano))
	}
	if err := matchCapabilities(x, g.Capabilities, now); err != nil {
		return err
	}
	x.Grant = ff.Grant{
		Worker: g.Worker, Instance: g.Instance, CreatedAt: now, ExpiresAt: now.Add(g.TTL),
		Capability: g.Capability, RouteJSON: g.RouteJSON, AdmissionSum: g.AdmissionSum,
	}
	return nil
}

// ClaimGranted turns a grant into a lease. Any instance of the worker that was
// granted may use it (spec 01 §6.4). Errors: invalid_claim_grant,
// claim_grant_expired, and those of Claim.
func ClaimGranted(x *ff.Execution, c *ClaimArgs, now time.Time) (resumed bool, fx Effects, err error) {
	if err := checkClaimable(x); err != nil {
		return false, fx, err
	}
	switch {
	case x.Grant.Worker == "":
		return false, fx, ff.NewError(ff.CodeInvalidClaimGrant, "there is no grant; it was used or has lapsed")
	case x.Grant.Worker != c.Worker:
		return false, fx, ff.Errorf(ff.CodeInvalidClaimGrant, "granted to worker %q", x.Grant.Worker)
	case !x.Grant.Live(now):
		return false, fx, ff.Errorf(ff.CodeClaimGrantExpired, "the grant ended at %s", x.Grant.ExpiresAt.Format(time.RFC3339Nano))
	}
	kept := x.Grant
	x.Grant.Instance = c.Instance
	resumed, fx, err = Claim(x, c, now)
	if err != nil && len(fx.Events) == 0 {
		x.Grant = kept
	}
	return resumed, fx, err
}
