package flowfabric

import "time"

// Grant permits one worker to claim one execution for a short time
// (spec 01 §6.4).
type Grant struct {
	Worker       WorkerID         `json:"worker_id"`
	Instance     WorkerInstanceID `json:"worker_instance_id"`
	ExpiresAt    time.Time        `json:"grant_expires_at,omitzero"`
	CreatedAt    time.Time        `json:"created_at,omitzero"`
	Capability   string           `json:"capability_hash,omitempty"`
	RouteJSON    string           `json:"route_snapshot_json,omitempty"`
	AdmissionSum string           `json:"admission_summary,omitempty"`
}

// Live reports whether the grant is in force at now.
func (g Grant) Live(now time.Time) bool { return g.Worker != "" && !g.ExpiresAt.Before(now) }

// Claimant is who claims: one process of a worker and what it can do.
type Claimant struct {
	Worker       WorkerID
	Instance     WorkerInstanceID
	Capabilities CapabilitySet
}

// Validate checks the identity.
func (c Claimant) Validate() error {
	if err := c.Worker.Validate(); err != nil {
		return err
	}
	return c.Instance.Validate()
}

// Claim takes up to Max executions, each with its own lease. Within a lane the
// highest priority goes first, then the oldest; lanes are served in the given
// order. It takes fresh executions, retries and replays (a new attempt),
// executions whose lease was lost (a new attempt of type reclaim) and parked
// attempts that are due (the same attempt under a new lease).
type Claim struct {
	Claimant
	Lanes []LaneID
	// Max is 1 to MaxClaim; 0 means 1. Fewer come when their payloads reach
	// MaxClaimBytes.
	Max int
	// LeaseTTL defaults to DefaultLeaseTTL.
	LeaseTTL time.Duration
	// Wait is how long the call may wait for work when there is none, at most
	// MaxClaimWait. It returns as soon as one execution could be claimed.
	Wait time.Duration
}

// Validate checks the command and fills in defaults.
func (c *Claim) Validate() error {
	if err := c.Claimant.Validate(); err != nil {
		return err
	}
	if n := len(c.Lanes); n == 0 || n > MaxClaimLanes {
		return InvalidInput("lanes", "must hold 1 to %d lanes (got %d)", MaxClaimLanes, n)
	}
	for i, l := range c.Lanes {
		if err := l.Validate(); err != nil {
			return AtItem("lanes", i, err)
		}
	}
	if c.Max == 0 {
		c.Max = 1
	}
	if c.Max < 0 || c.Max > MaxClaim {
		return InvalidInput("max", "must be 1 to %d (got %d)", MaxClaim, c.Max)
	}
	if c.Wait < 0 || c.Wait > MaxClaimWait {
		return InvalidInput("wait", "must be 0 to %s (got %s)", MaxClaimWait, c.Wait)
	}
	if c.LeaseTTL == 0 {
		c.LeaseTTL = DefaultLeaseTTL
	}
	return checkLeaseTTL(c.LeaseTTL)
}

// Claimed is one claimed execution: the record right after the claim, its input
// and the lease. Resumed says that a parked attempt goes on.
type Claimed struct {
	Execution Execution
	Payload   []byte
	Resumed   bool
}

// Ref is the reference that every command of the holder carries.
func (c *Claimed) Ref() LeaseRef {
	return LeaseRef{ID: c.Execution.ID, Fence: Fence{
		LeaseID:    c.Execution.Lease.ID,
		LeaseEpoch: c.Execution.LeaseEpoch,
		AttemptID:  c.Execution.CurrentAttemptID,
	}}
}

// ClaimResult has what was claimed; none is not an error. Now is the store's
// clock at the claim, so that a worker can tell how long each lease lasts
// whatever its own clock says.
type ClaimResult struct {
	Claimed []Claimed
	Now     time.Time
}

// GrantNext reserves the next execution of a lane for a worker without starting
// it (spec 08 §3.13). The worker takes it up with ClaimGranted.
type GrantNext struct {
	Claimant
	Lane LaneID
	TTL  time.Duration
}

// Validate checks the command.
func (c *GrantNext) Validate() error {
	if err := c.Claimant.Validate(); err != nil {
		return err
	}
	if err := c.Lane.Validate(); err != nil {
		return err
	}
	return checkGrantTTL(c.TTL)
}

func checkGrantTTL(ttl time.Duration) error {
	if ttl < MinGrantTTL || ttl > MaxGrantTTL {
		return InvalidInput("grant_ttl_ms", "must be in 1..=%d (got %d)", MaxGrantTTL.Milliseconds(), ttl.Milliseconds())
	}
	return nil
}

// GrantResult is a grant. ID is zero when there was nothing to grant.
type GrantResult struct {
	ID        ExecutionID
	Lane      LaneID
	ExpiresAt time.Time
}

// GrantReclaim reserves an execution whose lease expired or was revoked
// (spec 08 §3.12). Errors: execution_not_found, execution_not_reclaimable,
// capability_mismatch, grant_already_exists.
type GrantReclaim struct {
	Claimant
	ID           ExecutionID
	TTL          time.Duration
	Capability   string
	RouteJSON    string
	AdmissionSum string
}

// Validate checks the command.
func (c *GrantReclaim) Validate() error {
	if err := checkID(c.ID); err != nil {
		return err
	}
	if err := c.Claimant.Validate(); err != nil {
		return err
	}
	return checkGrantTTL(c.TTL)
}

// ClaimGranted turns a grant into a lease. Errors: invalid_claim_grant,
// claim_grant_expired, execution_not_found, execution_not_leaseable,
// max_retries_exhausted when the reclaim limit is reached.
type ClaimGranted struct {
	Claimant
	ID       ExecutionID
	LeaseTTL time.Duration
}

// Validate checks the command and fills in defaults.
func (c *ClaimGranted) Validate() error {
	if err := checkID(c.ID); err != nil {
		return err
	}
	if err := c.Claimant.Validate(); err != nil {
		return err
	}
	if c.LeaseTTL == 0 {
		c.LeaseTTL = DefaultLeaseTTL
	}
	return checkLeaseTTL(c.LeaseTTL)
}

// ClaimGrantedResult is the claimed execution.
type ClaimGrantedResult struct {
	Claimed Claimed
	Now     time.Time
}
