package httpapi

import (
	"encoding/json"

	ff "github.com/flowfabric/flowfabric"
)

// Submit is the body of POST /v1/lanes/{lane}/executions. Only Kind is required.
type Submit struct {
	Kind string `json:"kind" doc:"Kind of the execution; workers choose their handler by it" minLength:"1" maxLength:"256" example:"send-mail"`
	// Payload is any JSON value; PayloadBase64 raw bytes. At most one is given.
	Payload         json.RawMessage `json:"payload,omitempty" doc:"Input, any JSON value"`
	PayloadBase64   []byte          `json:"payload_base64,omitempty" doc:"Input as raw bytes in base64, instead of payload"`
	PayloadEncoding string          `json:"payload_encoding,omitempty" maxLength:"64"`
	ExecutionID     ff.ExecutionID  `json:"execution_id,omitzero" doc:"Chosen by the client for repeatable submits; minted by the server when absent"`
	Namespace       ff.Namespace    `json:"namespace,omitempty" maxLength:"256"`
	Priority        int             `json:"priority,omitempty" doc:"0 to 9000, the highest is claimed first" minimum:"0" maximum:"9000"`
	Creator         string          `json:"creator,omitempty" maxLength:"256"`
	IdempotencyKey  string          `json:"idempotency_key,omitempty" doc:"A repeated submit with the same key within 24 hours returns the first execution" maxLength:"512"`
	Tags            Tags            `json:"tags,omitempty"`
	DelayMS         Millis          `json:"delay_ms,omitempty" doc:"Hold the execution back for so long" minimum:"0"`
	DelayUntil      Time            `json:"delay_until,omitzero" doc:"Hold the execution back until this instant, in milliseconds since 1970"`
	DeadlineAt      Time            `json:"deadline_at,omitzero" doc:"Expire the execution at this instant, whatever it is doing"`
	MaxRetries      *int            `json:"max_retries,omitempty" doc:"Short form of the policy: retries with exponential backoff" minimum:"0" maximum:"1000000"`
	TimeoutMS       Millis          `json:"timeout_ms,omitempty" doc:"Short form of the policy: longest time of one attempt" minimum:"0"`
	Requires        []string        `json:"requires,omitempty" doc:"Short form of the policy: capabilities that a worker needs"`
	Policy          *Policy         `json:"policy,omitempty"`
}

// Command is the command for a lane.
func (s *Submit) Command(lane ff.LaneID) (ff.CreateExecution, error) {
	c := ff.CreateExecution{
		ID: s.ExecutionID, Namespace: s.Namespace, Lane: lane, Kind: s.Kind, Payload: s.PayloadBase64, PayloadEncoding: s.PayloadEncoding,
		Priority: s.Priority, Creator: s.Creator, IdempotencyKey: s.IdempotencyKey, Tags: s.Tags,
		DelayUntil: s.DelayUntil.Time, Deadline: s.DeadlineAt.Time,
	}
	if s.Payload != nil {
		if s.PayloadBase64 != nil {
			return c, ff.InvalidInput("payload", "give either payload or payload_base64, not both")
		}
		c.Payload = s.Payload
		if c.PayloadEncoding == "" {
			c.PayloadEncoding = "json"
		}
	}
	if s.Priority < 0 || s.Priority > ff.MaxPriority {
		return c, ff.InvalidInput("priority", "must be 0 to %d (got %d)", ff.MaxPriority, s.Priority)
	}
	var err error
	if c.Delay, err = s.DelayMS.Duration("delay_ms"); err != nil {
		return c, err
	}
	c.Policy, err = s.policy()
	return c, err
}

// policy is the policy with the short forms applied to it.
func (s *Submit) policy() (*ff.ExecutionPolicy, error) {
	if s.MaxRetries == nil && s.TimeoutMS == 0 && s.Requires == nil {
		return (*ff.ExecutionPolicy)(s.Policy), nil
	}
	p := ff.DefaultExecutionPolicy()
	if s.Policy != nil {
		*p = ff.ExecutionPolicy(*s.Policy)
	}
	if n := s.MaxRetries; n != nil {
		if *n < 0 || *n > ff.MaxRetries {
			return nil, ff.InvalidInput("max_retries", "must be 0 to %d (got %d)", ff.MaxRetries, *n)
		}
		p.Retry = copyOr(p.Retry, *ff.ExponentialRetry(*n, ff.DefaultRetryInitial, ff.DefaultRetryMax))
		p.Retry.MaxRetries = *n
	}
	if s.TimeoutMS != 0 {
		d, err := s.TimeoutMS.Duration("timeout_ms")
		if err != nil {
			return nil, err
		}
		p.Timeout = copyOr(p.Timeout, ff.TimeoutPolicy{MaxReclaims: ff.DefaultMaxReclaims})
		p.Timeout.Attempt = d
	}
	if s.Requires != nil {
		set, err := ff.NewCapabilitySet(s.Requires...)
		if err != nil {
			return nil, err
		}
		p.Routing = copyOr(p.Routing, ff.RoutingRequirements{})
		p.Routing.RequiredCapabilities = set
	}
	return p, nil
}

// copyOr is a copy of what p points to, or of the default.
func copyOr[T any](p *T, def T) *T {
	if p != nil {
		def = *p
	}
	return &def
}

// SubmitOf is the body of a command.
func SubmitOf(c *ff.CreateExecution) Submit {
	return Submit{
		Kind: c.Kind, PayloadBase64: c.Payload, PayloadEncoding: c.PayloadEncoding, ExecutionID: c.ID, Namespace: c.Namespace,
		Priority: min(max(c.Priority, 0), ff.MaxPriority), Creator: c.Creator, IdempotencyKey: c.IdempotencyKey, Tags: c.Tags,
		DelayMS: MillisOf(c.Delay), DelayUntil: At(c.DelayUntil), DeadlineAt: At(c.Deadline), Policy: (*Policy)(c.Policy),
	}
}

// Submitted is the answer to a submit.
type Submitted struct {
	ExecutionID ff.ExecutionID `json:"execution_id"`
	State       ff.PublicState `json:"state"`
	// Duplicate says that the execution was there before.
	Duplicate bool `json:"duplicate"`
}

// SubmitBatch submits many executions to one lane, all or none.
type SubmitBatch struct {
	Executions []Submit `json:"executions" minItems:"1" maxItems:"1000"`
}

// SubmittedBatch has one answer per item, in order.
type SubmittedBatch struct {
	Results []Submitted `json:"results"`
}

// CreateMany submits executions to any lanes, all or none. It is the remote
// store's call; people use the lane's endpoint.
type CreateMany struct {
	Executions []CreateItem `json:"executions" minItems:"1" maxItems:"1000"`
}

// CreateItem is a submit with its lane.
type CreateItem struct {
	LaneID ff.LaneID `json:"lane_id"`
	Submit
}

// Lanes is the answer of GET /v1/lanes.
type Lanes struct {
	Lanes []Lane `json:"lanes"`
}

// Lane counts the executions of a lane by state.
type Lane struct {
	LaneID   ff.LaneID              `json:"lane_id"`
	Counts   map[ff.PublicState]int `json:"counts"`
	OldestAt Time                   `json:"oldest_waiting_at,omitzero"`
}

// ExecutionPage is the answer of GET /v1/query/executions.
type ExecutionPage struct {
	Executions []Record `json:"executions"`
	NextCursor string   `json:"next_cursor,omitempty"`
}

// Attempts is the answer of GET /v1/executions/{id}/attempts.
type Attempts struct {
	Attempts []Attempt `json:"attempts"`
}

// EventPage is the answer of GET /v1/events.
type EventPage struct {
	Events     []Event        `json:"events"`
	NextCursor ff.EventCursor `json:"next_cursor"`
}

// ReplayWith is the body of POST /v1/executions/{id}/replay-with.
type ReplayWith struct {
	Reason      string `json:"reason,omitempty" maxLength:"4096"`
	RequestedBy string `json:"requested_by,omitempty" maxLength:"256"`
	// Payload or PayloadBase64, when given, replaces the input; an empty
	// PayloadBase64 by nothing.
	Payload       json.RawMessage `json:"payload,omitempty"`
	PayloadBase64 []byte          `json:"payload_base64,omitzero"`
}

// StateAnswer is the state after a command.
type StateAnswer struct {
	State ff.PublicState `json:"state"`
}

// PriorityAnswer has the priorities before and after.
type PriorityAnswer struct {
	Old int `json:"old_priority"`
	New int `json:"new_priority"`
}

// SetTags is the body of POST /v1/executions/{id}/tags.
type SetTags struct {
	Tags Tags `json:"tags"`
}

// Cancel is the body of POST /v1/executions/{id}/cancel-with: a cancel by its
// holder or an operator.
type Cancel struct {
	Reason string          `json:"reason,omitempty" maxLength:"4096"`
	Source ff.CancelSource `json:"source,omitempty" maxLength:"256"`
	Fence  ff.Fence        `json:"fence,omitzero"`
}

// CancelAnswer is what a cancel did.
type CancelAnswer struct {
	State    ff.PublicState    `json:"state"`
	Previous ff.LifecyclePhase `json:"previous_phase"`
}

// Revoke is the body of POST /v1/executions/{id}/revoke-with.
type Revoke struct {
	LeaseID    ff.LeaseID          `json:"lease_id,omitzero"`
	InstanceID ff.WorkerInstanceID `json:"worker_instance_id,omitempty" maxLength:"256"`
	Reason     string              `json:"reason,omitempty" maxLength:"4096"`
}

// RevokeAnswer is what a revocation did.
type RevokeAnswer struct {
	LeaseID    ff.LeaseID `json:"lease_id,omitzero"`
	LeaseEpoch uint64     `json:"lease_epoch,omitempty"`
	Already    string     `json:"already,omitempty"`
}

// Claimant is who claims.
type Claimant struct {
	WorkerID     ff.WorkerID         `json:"worker_id" maxLength:"256"`
	InstanceID   ff.WorkerInstanceID `json:"worker_instance_id" maxLength:"256"`
	Capabilities []string            `json:"capabilities,omitempty" maxItems:"256"`
}

// ClaimantOf makes a claimant.
func ClaimantOf(c ff.Claimant) Claimant {
	return Claimant{c.Worker, c.Instance, c.Capabilities.Tokens()}
}

// Claimant is the claimant that it was made of.
func (c Claimant) Claimant() (ff.Claimant, error) {
	set, err := ff.NewCapabilitySet(c.Capabilities...)
	return ff.Claimant{Worker: c.WorkerID, Instance: c.InstanceID, Capabilities: set}, err
}

// Claim is the body of POST /v1/claims.
type Claim struct {
	Claimant
	Lanes      []ff.LaneID `json:"lanes" minItems:"1" maxItems:"64"`
	Max        int         `json:"max,omitempty" doc:"Most executions to claim" minimum:"0" maximum:"256"`
	LeaseTTLMS Millis      `json:"lease_ttl_ms,omitempty" minimum:"0"`
	WaitMS     Millis      `json:"wait_ms,omitempty" doc:"Longest time to wait for work" minimum:"0" maximum:"60000"`
}

// Claimed is one claimed execution.
type Claimed struct {
	Execution Record `json:"execution"`
	Payload   []byte `json:"payload" doc:"Input in base64"`
	Resumed   bool   `json:"resumed"`
}

// ClaimedOf makes a claimed execution.
func ClaimedOf(c *ff.Claimed) Claimed { return Claimed{RecordOf(&c.Execution), c.Payload, c.Resumed} }

// Claimed is the claimed execution that it was made of.
func (c *Claimed) Claimed() ff.Claimed {
	return ff.Claimed{Execution: c.Execution.Execution(), Payload: c.Payload, Resumed: c.Resumed}
}

// ClaimAnswer has what was claimed; nothing is an empty list.
type ClaimAnswer struct {
	Claimed []Claimed `json:"claimed"`
	Now     Time      `json:"now"`
}

// GrantNext is the body of POST /v1/claims/grant.
type GrantNext struct {
	Claimant
	LaneID ff.LaneID `json:"lane_id"`
	TTLMS  Millis    `json:"grant_ttl_ms" minimum:"1" maximum:"60000"`
}

// GrantReclaim is the body of POST /v1/claims/grant-reclaim.
type GrantReclaim struct {
	Claimant
	ExecutionID      ff.ExecutionID `json:"execution_id"`
	TTLMS            Millis         `json:"grant_ttl_ms" minimum:"1" maximum:"60000"`
	CapabilityHash   string         `json:"capability_hash,omitempty"`
	RouteSnapshot    string         `json:"route_snapshot_json,omitempty"`
	AdmissionSummary string         `json:"admission_summary,omitempty"`
}

// Granted is a grant; without an id there was nothing to grant.
type Granted struct {
	ExecutionID ff.ExecutionID `json:"execution_id,omitzero"`
	LaneID      ff.LaneID      `json:"lane_id,omitempty"`
	ExpiresAt   Time           `json:"expires_at,omitzero"`
}

// ClaimGranted is the body of POST /v1/claims/granted.
type ClaimGranted struct {
	Claimant
	ExecutionID ff.ExecutionID `json:"execution_id"`
	LeaseTTLMS  Millis         `json:"lease_ttl_ms,omitempty" minimum:"0"`
}

// Renew is the body of POST /v1/leases/renew.
type Renew struct {
	Leases     []ff.LeaseRef `json:"leases" minItems:"1" maxItems:"1000"`
	LeaseTTLMS Millis        `json:"lease_ttl_ms"`
}

// Renewed has the fate of each lease, in order.
type Renewed struct {
	Renewals []Renewal `json:"renewals"`
}

// Renewal is the fate of one lease.
type Renewal struct {
	ExecutionID ff.ExecutionID  `json:"execution_id"`
	ExpiresAt   Time            `json:"expires_at,omitzero"`
	Error       *ff.PublicError `json:"error,omitempty"`
}

// Release is the body of POST /v1/leases/release.
type Release struct {
	Leases []ff.LeaseRef `json:"leases" minItems:"1" maxItems:"1000"`
	Reason string        `json:"reason,omitempty" maxLength:"4096"`
}

// Released has an error per lease, null for those released.
type Released struct {
	Errors []*ff.PublicError `json:"errors"`
}

// PublicErrors makes the list of a batch answer.
func PublicErrors(errs []error) []*ff.PublicError {
	list := make([]*ff.PublicError, len(errs))
	for i, err := range errs {
		list[i] = PublicErrorOf(err)
	}
	return list
}

// PublicErrorOf is nil for nil.
func PublicErrorOf(err error) *ff.PublicError {
	if err == nil {
		return nil
	}
	_, p := ff.PublicErrorOf(err)
	return &p
}

// Progress is the body of POST /v1/executions/{id}/progress.
type Progress struct {
	Fence   ff.Fence `json:"fence"`
	Percent *int     `json:"percent,omitempty" minimum:"0" maximum:"100"`
	Message string   `json:"message,omitempty" maxLength:"4096"`
}

// Complete is the body of POST /v1/executions/{id}/complete.
type Complete struct {
	Fence ff.Fence `json:"fence,omitzero"`
	// Result is any JSON value, ResultBase64 raw bytes; at most one is given.
	Result       json.RawMessage `json:"result,omitempty"`
	ResultBase64 []byte          `json:"result_base64,omitempty"`
	Source       ff.CancelSource `json:"source,omitempty" maxLength:"256"`
}

// Completed is what a completion did.
type Completed struct {
	State    ff.PublicState `json:"state"`
	Repeated bool           `json:"repeated"`
}

// Fail is the body of POST /v1/executions/{id}/fail.
type Fail struct {
	Fence        ff.Fence        `json:"fence,omitzero"`
	Reason       string          `json:"reason,omitempty" maxLength:"4096"`
	Category     string          `json:"category,omitempty" maxLength:"256"`
	NoRetry      bool            `json:"no_retry,omitempty"`
	RetryAfterMS Millis          `json:"retry_after_ms,omitempty" minimum:"0"`
	Source       ff.CancelSource `json:"source,omitempty" maxLength:"256"`
}

// Failed is what follows a failure.
type Failed struct {
	State    ff.PublicState `json:"state"`
	Retried  bool           `json:"retried"`
	RetryAt  Time           `json:"retry_at,omitzero"`
	Repeated bool           `json:"repeated"`
}

// Delay is the body of POST /v1/executions/{id}/delay.
type Delay struct {
	Fence   ff.Fence        `json:"fence,omitzero"`
	DelayMS Millis          `json:"delay_ms,omitempty" minimum:"0"`
	Until   Time            `json:"until_at,omitzero"`
	Source  ff.CancelSource `json:"source,omitempty" maxLength:"256"`
}

// Delayed is when the execution becomes due.
type Delayed struct {
	Until Time `json:"until_at"`
}

// ExpiredLeases is the answer of GET /v1/leases/expired.
type ExpiredLeases struct {
	Leases     []ExpiredLease `json:"leases"`
	NextCursor string         `json:"next_cursor,omitempty"`
}

// ExpiredLease is a lease that nobody has taken over.
type ExpiredLease struct {
	ExecutionID  ff.ExecutionID      `json:"execution_id"`
	LeaseID      ff.LeaseID          `json:"lease_id"`
	LeaseEpoch   uint64              `json:"lease_epoch"`
	InstanceID   ff.WorkerInstanceID `json:"worker_instance_id"`
	ExpiresAt    Time                `json:"expires_at"`
	AttemptIndex int                 `json:"attempt_index"`
}

// Register is the body of POST /v1/workers.
type Register struct {
	Claimant
	Namespace     ff.Namespace `json:"namespace,omitempty" maxLength:"256"`
	Lanes         []ff.LaneID  `json:"lanes" maxItems:"64"`
	LivenessTTLMS Millis       `json:"liveness_ttl_ms" minimum:"1000"`
	Exclusive     bool         `json:"exclusive,omitempty" doc:"Refuse an instance id that another live process holds"`
}

// Registered is what a registration did.
type Registered struct {
	Refreshed bool `json:"refreshed"`
	ExpiresAt Time `json:"expires_at"`
}

// Heartbeat is the body of POST /v1/workers/heartbeat.
type Heartbeat struct {
	Namespace  ff.Namespace        `json:"namespace,omitempty" maxLength:"256"`
	InstanceID ff.WorkerInstanceID `json:"worker_instance_id" maxLength:"256"`
}

// HeartbeatAnswer says whether the registration lives.
type HeartbeatAnswer struct {
	Registered bool `json:"registered"`
	ExpiresAt  Time `json:"expires_at,omitzero"`
}

// MarkDead is the body of POST /v1/workers/mark-dead.
type MarkDead struct {
	Namespace  ff.Namespace        `json:"namespace,omitempty" maxLength:"256"`
	InstanceID ff.WorkerInstanceID `json:"worker_instance_id" maxLength:"256"`
	Reason     string              `json:"reason,omitempty" maxLength:"256"`
}

// MarkDeadAnswer says whether there was a registration.
type MarkDeadAnswer struct {
	Marked bool `json:"marked"`
}

// Workers is the answer of GET /v1/workers.
type Workers struct {
	Workers    []WorkerInfo `json:"workers"`
	NextCursor string       `json:"next_cursor,omitempty"`
}

// Sweep is the body of POST /v1/admin/sweep.
type Sweep struct {
	Kind  ff.SweepKind `json:"kind" enum:"lease_expiry,delayed_promoter,attempt_timeout,execution_deadline,retention_trimmer"`
	Limit int          `json:"limit,omitempty" minimum:"0" maximum:"10000"`
}

// Swept is what a sweep did.
type Swept struct {
	Processed int  `json:"processed"`
	Errors    int  `json:"errors"`
	More      bool `json:"more"`
	Next      Time `json:"next_at,omitzero"`
	Now       Time `json:"now"`
}

// Now is the answer of GET /v1/time.
type Now struct {
	Now Time `json:"now"`
}

// Status is the answer of the health endpoints.
type Status struct {
	Status string `json:"status"`
}

// Headers of GET /v1/executions/{id}/payload; their values are percent-encoded.
const (
	HeaderKind     = "X-Flowfabric-Kind"
	HeaderEncoding = "X-Flowfabric-Encoding"
	HeaderTags     = "X-Flowfabric-Tags"
)
