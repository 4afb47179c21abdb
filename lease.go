package flowfabric

import "time"

// Lease is the exclusive, time-limited ownership of an active execution
// (spec 01 §6.2).
type Lease struct {
	ID          LeaseID          `json:"lease_id"`
	Worker      WorkerID         `json:"worker_id"`
	Instance    WorkerInstanceID `json:"worker_instance_id"`
	AcquiredAt  time.Time        `json:"acquired_at,omitzero"`
	ExpiresAt   time.Time        `json:"expires_at,omitzero"`
	RenewedAt   time.Time        `json:"last_renewed_at,omitzero"`
	RenewBefore time.Time        `json:"renewal_deadline,omitzero"`
}

// Fence proves that a command comes from the holder of the lease in force. A
// command with another fence is refused with stale_lease (spec 01 §7.4).
type Fence struct {
	LeaseID    LeaseID   `json:"lease_id"`
	LeaseEpoch uint64    `json:"lease_epoch"`
	AttemptID  AttemptID `json:"attempt_id"`
}

// IsZero reports whether no fence was given.
func (f Fence) IsZero() bool { return f == Fence{} }

// Partial reports whether some but not all three parts were given.
func (f Fence) Partial() bool {
	return !f.IsZero() && (f.LeaseID.IsZero() || f.LeaseEpoch == 0 || f.AttemptID.IsZero())
}

func (f Fence) validateOptional() error {
	if f.Partial() {
		return NewError(CodePartialFenceTriple, "")
	}
	return nil
}

// LeaseRef names one execution and the lease under which the caller works.
type LeaseRef struct {
	ID    ExecutionID `json:"execution_id"`
	Fence Fence       `json:"fence"`
}

// Validate checks that the reference is complete. Errors: invalid_input,
// fence_required, partial_fence_triple.
func (r LeaseRef) Validate() error {
	if err := checkID(r.ID); err != nil {
		return err
	}
	if r.Fence.IsZero() {
		return NewError(CodeFenceRequired, "")
	}
	return r.Fence.validateOptional()
}

// validateSource is Validate for commands that an operator may send without a
// fence.
func (r LeaseRef) validateSource(source CancelSource) error {
	if r.Fence.IsZero() && source == SourceOperatorOverride {
		return checkID(r.ID)
	}
	return r.Validate()
}

// RenewLeases extends many leases in one call.
type RenewLeases struct {
	Leases []LeaseRef
	// TTL is the new length of each lease, counted from the store's now.
	TTL time.Duration
}

// Validate checks the command.
func (c *RenewLeases) Validate() error {
	if n := len(c.Leases); n == 0 || n > MaxBatch {
		return InvalidInput("leases", "must hold 1 to %d items (got %d)", MaxBatch, n)
	}
	for i, l := range c.Leases {
		if err := l.Validate(); err != nil {
			return AtItem("leases", i, err)
		}
	}
	return checkLeaseTTL(c.TTL)
}

func checkLeaseTTL(ttl time.Duration) error {
	if ttl < MinLeaseTTL || ttl > MaxLeaseTTL {
		return InvalidInput("lease_ttl_ms", "must be %s to %s (got %s)", MinLeaseTTL, MaxLeaseTTL, ttl)
	}
	return nil
}

// Renewal is the fate of one lease. Err is nil, or stale_lease, lease_expired,
// lease_revoked, execution_not_active or execution_not_found: the lease is lost
// and the work must stop.
type Renewal struct {
	ID        ExecutionID
	ExpiresAt time.Time
	Err       error
}

// RenewLeasesResult has one renewal per lease, in order.
type RenewLeasesResult struct{ Renewals []Renewal }

// UpdateProgress stores how far an attempt is. It does not renew the lease.
type UpdateProgress struct {
	LeaseRef
	// Percent is 0 to 100; nil leaves the stored value.
	Percent *int
	// Message, when empty, leaves the stored value.
	Message string
}

// Validate checks the command.
func (c *UpdateProgress) Validate() error {
	if err := c.LeaseRef.Validate(); err != nil {
		return err
	}
	if c.Percent != nil && (*c.Percent < 0 || *c.Percent > 100) {
		return InvalidInput("percent", "must be 0 to 100 (got %d)", *c.Percent)
	}
	return checkText("message", c.Message, MaxProgressMessageBytes)
}

// CompleteExecution ends an execution with success.
type CompleteExecution struct {
	LeaseRef
	// Result is kept when not empty, at most MaxResultBytes.
	Result []byte
	// Source is needed only without a fence: operator_override.
	Source CancelSource
	// Next, when set, claims in the same call after the completion, so that a
	// worker goes on without asking again. Its Wait must be 0. A completion that
	// is refused claims nothing; one that is repeated claims again, because what
	// a lost answer had claimed is not known to its caller.
	Next *Claim
}

// Validate checks the command and fills in the defaults of a copy of Next. Fields
// of Next are named next.max and so on.
func (c *CompleteExecution) Validate() error {
	if n := len(c.Result); n > MaxResultBytes {
		return tooLarge("result", n, MaxResultBytes)
	}
	if err := c.validateSource(c.Source); err != nil || c.Next == nil {
		return err
	}
	next := *c.Next
	if next.Wait != 0 {
		return InvalidInput("next.wait", "must be 0: a completion does not wait for work (got %s)", next.Wait)
	}
	if err := next.Validate(); err != nil {
		return InField("next", err)
	}
	c.Next = &next
	return nil
}

// CompleteExecutionResult is the state after the completion. Repeated says that
// the same caller had completed it before; nothing was written again.
type CompleteExecutionResult struct {
	State    PublicState
	Repeated bool
	// Next is what was claimed, if that was asked for. It is what was at hand:
	// none does not prove that there is nothing. Whatever keeps the claim from
	// being made leaves the completion as it is; Next.Now is zero then.
	Next ClaimResult
}

// FailExecution ends an attempt with a failure. The retry policy of the
// execution decides whether another attempt follows.
type FailExecution struct {
	LeaseRef
	Reason   string
	Category string
	// NoRetry makes the failure final whatever the policy says.
	NoRetry bool
	// RetryAfter, when positive, replaces the backoff of the policy; it does not
	// add retries.
	RetryAfter time.Duration
	Source     CancelSource
}

// Validate checks the command.
func (c *FailExecution) Validate() error {
	if err := c.validateSource(c.Source); err != nil {
		return err
	}
	if err := checkText("category", c.Category, MaxCategoryBytes); err != nil {
		return err
	}
	if c.RetryAfter < 0 || c.RetryAfter > MaxDelay {
		return InvalidInput("retry_after", "must be 0 to %s (got %s)", MaxDelay, c.RetryAfter)
	}
	return checkText("reason", c.Reason, MaxReasonBytes)
}

// FailExecutionResult says what follows the failure.
type FailExecutionResult struct {
	State PublicState
	// RetryAt is when the next attempt becomes due; zero when the failure is
	// final, and when the same caller repeats a failure that was retried.
	RetryAt time.Time
	// Retried says that another attempt follows.
	Retried  bool
	Repeated bool
}

// DelayExecution parks an execution until a time. The attempt goes on later
// under a new lease. Give Until or For.
type DelayExecution struct {
	LeaseRef
	Until  time.Time
	For    time.Duration
	Source CancelSource
}

// Validate checks the command.
func (c *DelayExecution) Validate() error {
	if err := c.validateSource(c.Source); err != nil {
		return err
	}
	if c.For != 0 && !c.Until.IsZero() {
		return InvalidInput("for", "give either for or until, not both")
	}
	if c.For == 0 && c.Until.IsZero() {
		return InvalidInput("until", "must be set")
	}
	if c.For < 0 || c.For > MaxDelay {
		return InvalidInput("for", "must be 0 to %s (got %s)", MaxDelay, c.For)
	}
	return checkInstant("until", c.Until)
}

// DelayExecutionResult has the instant at which the execution becomes due.
type DelayExecutionResult struct{ Until time.Time }

// ReleaseExecutions hands leased executions back: they are eligible at once and
// the same attempts go on with whichever worker claims them. A worker that
// shuts down sends it for what it could not finish.
type ReleaseExecutions struct {
	Leases []LeaseRef
	Reason string
}

// Validate checks the command.
func (c *ReleaseExecutions) Validate() error {
	if n := len(c.Leases); n == 0 || n > MaxBatch {
		return InvalidInput("leases", "must hold 1 to %d items (got %d)", MaxBatch, n)
	}
	for i, l := range c.Leases {
		if err := l.Validate(); err != nil {
			return AtItem("leases", i, err)
		}
	}
	return checkText("reason", c.Reason, MaxReasonBytes)
}

// ReleaseExecutionsResult has one error per lease, nil for those released.
type ReleaseExecutionsResult struct{ Errs []error }

// RevokeLease takes a lease away from its worker. The execution is claimable
// again at once, as a new attempt.
type RevokeLease struct {
	ID ExecutionID
	// LeaseID, when set, must be the lease in force.
	LeaseID LeaseID
	// Instance, when set, must be the holder; another holder is left alone.
	Instance WorkerInstanceID
	Reason   string
}

// Validate checks the command.
func (c *RevokeLease) Validate() error {
	if err := checkID(c.ID); err != nil {
		return err
	}
	return checkText("reason", c.Reason, MaxReasonBytes)
}

// RevokeLeaseResult says whether a lease was taken. When not, Already is
// no_active_lease, already_revoked, already_expired or
// different_worker_instance_id.
type RevokeLeaseResult struct {
	LeaseID    LeaseID
	LeaseEpoch uint64
	Already    string
}

// ExpiredLease is a lease whose time has passed and that nobody took over.
type ExpiredLease struct {
	ID           ExecutionID      `json:"execution_id"`
	LeaseID      LeaseID          `json:"lease_id"`
	LeaseEpoch   uint64           `json:"lease_epoch"`
	Instance     WorkerInstanceID `json:"worker_instance_id"`
	ExpiresAt    time.Time        `json:"expires_at"`
	AttemptIndex int              `json:"attempt_index"`
}

// ListExpiredLeases asks for expired leases in order of expiry.
type ListExpiredLeases struct {
	// AsOf defaults to the store's now.
	AsOf   time.Time
	Cursor string
	Limit  int
}

// Validate checks the query.
func (c *ListExpiredLeases) Validate() error { return checkLimit(c.Limit) }

// ListExpiredLeasesResult is a page; Next is empty on the last one.
type ListExpiredLeasesResult struct {
	Leases []ExpiredLease
	Next   string
}
