package httpapi

import (
	"encoding/json"

	ff "github.com/flowfabric/flowfabric"
)

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
	Next         *Claim          `json:"next,omitempty" doc:"What to claim after the completion, in the same call; wait_ms must be 0"`
}

// Completed is what a completion did. Claimed and Now are those of a claim; they are
// absent when none was asked for, and when it could not be made.
type Completed struct {
	State    ff.PublicState `json:"state"`
	Repeated bool           `json:"repeated"`
	Claimed  []Claimed      `json:"claimed,omitzero" doc:"What was claimed; an empty list does not prove that there is nothing"`
	Now      Time           `json:"now,omitzero"`
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
