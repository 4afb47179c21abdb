package httpapi

import (
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// Record is an execution with everything that is known about it.
type Record struct {
	ExecutionID     ff.ExecutionID      `json:"execution_id"`
	Namespace       ff.Namespace        `json:"namespace,omitempty"`
	LaneID          ff.LaneID           `json:"lane_id"`
	Kind            string              `json:"kind"`
	State           ff.PublicState      `json:"state"`
	StateVector     ff.StateVector      `json:"state_vector"`
	BlockingDetail  string              `json:"blocking_detail,omitempty"`
	Priority        int                 `json:"priority"`
	Creator         string              `json:"creator,omitempty"`
	PayloadEncoding string              `json:"payload_encoding,omitempty"`
	Policy          *ff.ExecutionPolicy `json:"policy,omitempty"`
	Requires        ff.CapabilitySet    `json:"requires,omitzero"`
	Tags            map[string]string   `json:"tags,omitempty"`
	FlowID          ff.FlowID           `json:"flow_id,omitzero"`

	SuspensionID        ff.SuspensionID `json:"suspension_id,omitzero"`
	WaitpointID         ff.WaitpointID  `json:"waitpoint_id,omitzero"`
	SuspensionTimeoutAt Time            `json:"suspension_timeout_at,omitzero"`

	Attempt          *Attempt     `json:"attempt,omitempty"`
	CurrentAttemptID ff.AttemptID `json:"current_attempt_id,omitzero"`
	TotalAttempts    int          `json:"total_attempts"`
	RetryCount       int          `json:"retry_count"`
	ReplayCount      int          `json:"replay_count"`
	ReclaimCount     int          `json:"reclaim_count"`

	Lease             *Lease `json:"lease,omitempty"`
	LeaseEpoch        uint64 `json:"lease_epoch"`
	LeaseExpiredAt    Time   `json:"lease_expired_at,omitzero"`
	LeaseRevokedAt    Time   `json:"lease_revoked_at,omitzero"`
	LeaseRevokeReason string `json:"lease_revoke_reason,omitempty"`
	Grant             *Grant `json:"grant,omitempty"`

	PendingRetryReason     string `json:"pending_retry_reason,omitempty"`
	PendingReplayReason    string `json:"pending_replay_reason,omitempty"`
	PendingReplayBy        string `json:"pending_replay_requested_by,omitempty"`
	PendingPreviousAttempt int    `json:"pending_previous_attempt_index,omitempty"`

	CreatedAt            Time `json:"created_at"`
	StartedAt            Time `json:"started_at,omitzero"`
	CompletedAt          Time `json:"completed_at,omitzero"`
	LastTransitionAt     Time `json:"last_transition_at,omitzero"`
	LastMutationAt       Time `json:"last_mutation_at,omitzero"`
	DelayUntil           Time `json:"delay_until,omitzero"`
	DeadlineAt           Time `json:"deadline_at,omitzero"`
	AttemptTimeoutAt     Time `json:"attempt_timeout_at,omitzero"`
	CapabilityMismatchAt Time `json:"last_capability_mismatch_at,omitzero"`

	FailureReason      string          `json:"failure_reason,omitempty"`
	FailureCategory    string          `json:"failure_category,omitempty"`
	CancellationReason string          `json:"cancellation_reason,omitempty"`
	CancelledBy        ff.CancelSource `json:"cancelled_by,omitempty"`

	ProgressPercent   *int   `json:"progress_percent,omitempty"`
	ProgressMessage   string `json:"progress_message,omitempty"`
	ProgressUpdatedAt Time   `json:"progress_updated_at,omitzero"`
}

// Attempt is one attempt.
type Attempt struct {
	AttemptID       ff.AttemptID        `json:"attempt_id"`
	Index           int                 `json:"attempt_index"`
	Type            ff.AttemptType      `json:"attempt_type"`
	State           ff.AttemptState     `json:"attempt_state"`
	CreatedAt       Time                `json:"created_at,omitzero"`
	StartedAt       Time                `json:"started_at,omitzero"`
	EndedAt         Time                `json:"ended_at,omitzero"`
	SuspendedAt     Time                `json:"suspended_at,omitzero"`
	ResumedAt       Time                `json:"resumed_at,omitzero"`
	WorkerID        ff.WorkerID         `json:"worker_id,omitempty"`
	InstanceID      ff.WorkerInstanceID `json:"worker_instance_id,omitempty"`
	LeaseID         ff.LeaseID          `json:"lease_id,omitzero"`
	LeaseEpoch      uint64              `json:"lease_epoch"`
	Suspension      string              `json:"suspension_id,omitempty"`
	FailureReason   string              `json:"failure_reason,omitempty"`
	FailureCategory string              `json:"failure_category,omitempty"`
	Cause           string              `json:"cause,omitempty"`
	RequestedBy     string              `json:"requested_by,omitempty"`
	Previous        int                 `json:"previous_attempt_index"`
}

// Lease is a lease.
type Lease struct {
	LeaseID     ff.LeaseID          `json:"lease_id"`
	WorkerID    ff.WorkerID         `json:"worker_id"`
	InstanceID  ff.WorkerInstanceID `json:"worker_instance_id"`
	AcquiredAt  Time                `json:"acquired_at,omitzero"`
	ExpiresAt   Time                `json:"expires_at,omitzero"`
	RenewedAt   Time                `json:"last_renewed_at,omitzero"`
	RenewBefore Time                `json:"renewal_deadline,omitzero"`
}

// Grant is a grant.
type Grant struct {
	WorkerID         ff.WorkerID         `json:"worker_id"`
	InstanceID       ff.WorkerInstanceID `json:"worker_instance_id"`
	CreatedAt        Time                `json:"created_at,omitzero"`
	ExpiresAt        Time                `json:"expires_at,omitzero"`
	CapabilityHash   string              `json:"capability_hash,omitempty"`
	RouteSnapshot    string              `json:"route_snapshot_json,omitempty"`
	AdmissionSummary string              `json:"admission_summary,omitempty"`
}

// RecordOf makes a record.
func RecordOf(x *ff.Execution) Record {
	r := Record{
		ExecutionID: x.ID, Namespace: x.Namespace, LaneID: x.Lane, Kind: x.Kind, State: x.PublicState(), StateVector: x.State,
		BlockingDetail: x.BlockingDetail, Priority: x.Priority, Creator: x.Creator, PayloadEncoding: x.PayloadEncoding,
		Policy: x.Policy, Requires: x.Required, Tags: x.Tags, FlowID: x.FlowID,
		SuspensionID: x.SuspensionID, WaitpointID: x.WaitpointID, SuspensionTimeoutAt: At(x.SuspensionTimeoutAt),
		CurrentAttemptID: x.CurrentAttemptID, TotalAttempts: x.TotalAttempts, RetryCount: x.RetryCount,
		ReplayCount: x.ReplayCount, ReclaimCount: x.ReclaimCount, LeaseEpoch: x.LeaseEpoch,
		LeaseExpiredAt: At(x.LeaseExpiredAt), LeaseRevokedAt: At(x.LeaseRevokedAt), LeaseRevokeReason: x.LeaseRevokeReason,
		PendingRetryReason: x.PendingRetryReason, PendingReplayReason: x.PendingReplayReason, PendingReplayBy: x.PendingReplayBy,
		PendingPreviousAttempt: x.PendingPreviousAttempt, CreatedAt: At(x.CreatedAt), StartedAt: At(x.StartedAt),
		CompletedAt: At(x.CompletedAt), LastTransitionAt: At(x.LastTransitionAt), LastMutationAt: At(x.LastMutationAt),
		DelayUntil: At(x.DelayUntil), DeadlineAt: At(x.Deadline), AttemptTimeoutAt: At(x.AttemptTimeoutAt),
		CapabilityMismatchAt: At(x.CapabilityMismatchAt), FailureReason: x.FailureReason, FailureCategory: x.FailureCategory,
		CancellationReason: x.CancellationReason, CancelledBy: x.CancelledBy, ProgressPercent: x.Progress.Percent,
		ProgressMessage: x.Progress.Message, ProgressUpdatedAt: At(x.Progress.UpdatedAt),
	}
	if x.TotalAttempts > 0 {
		a := AttemptOf(&x.Attempt)
		r.Attempt = &a
	}
	if l := x.Lease; l != (ff.Lease{}) {
		r.Lease = &Lease{l.ID, l.Worker, l.Instance, At(l.AcquiredAt), At(l.ExpiresAt), At(l.RenewedAt), At(l.RenewBefore)}
	}
	if g := x.Grant; g != (ff.Grant{}) {
		r.Grant = &Grant{g.Worker, g.Instance, At(g.CreatedAt), At(g.ExpiresAt), g.Capability, g.RouteJSON, g.AdmissionSum}
	}
	return r
}

// Execution is the execution that the record was made of.
func (r *Record) Execution() ff.Execution {
	x := ff.Execution{
		ID: r.ExecutionID, Namespace: r.Namespace, Lane: r.LaneID, Kind: r.Kind, State: r.StateVector,
		BlockingDetail: r.BlockingDetail, Priority: r.Priority, Creator: r.Creator, PayloadEncoding: r.PayloadEncoding,
		Policy: r.Policy, Required: r.Requires, Tags: r.Tags, FlowID: r.FlowID,
		SuspensionID: r.SuspensionID, WaitpointID: r.WaitpointID, SuspensionTimeoutAt: r.SuspensionTimeoutAt.Time,
		CurrentAttemptID: r.CurrentAttemptID, TotalAttempts: r.TotalAttempts, RetryCount: r.RetryCount,
		ReplayCount: r.ReplayCount, ReclaimCount: r.ReclaimCount, LeaseEpoch: r.LeaseEpoch,
		LeaseExpiredAt: r.LeaseExpiredAt.Time, LeaseRevokedAt: r.LeaseRevokedAt.Time, LeaseRevokeReason: r.LeaseRevokeReason,
		PendingRetryReason: r.PendingRetryReason, PendingReplayReason: r.PendingReplayReason, PendingReplayBy: r.PendingReplayBy,
		PendingPreviousAttempt: r.PendingPreviousAttempt, CreatedAt: r.CreatedAt.Time, StartedAt: r.StartedAt.Time,
		CompletedAt: r.CompletedAt.Time, LastTransitionAt: r.LastTransitionAt.Time, LastMutationAt: r.LastMutationAt.Time,
		DelayUntil: r.DelayUntil.Time, Deadline: r.DeadlineAt.Time, AttemptTimeoutAt: r.AttemptTimeoutAt.Time,
		CapabilityMismatchAt: r.CapabilityMismatchAt.Time, FailureReason: r.FailureReason, FailureCategory: r.FailureCategory,
		CancellationReason: r.CancellationReason, CancelledBy: r.CancelledBy,
		Progress: ff.Progress{Percent: r.ProgressPercent, Message: r.ProgressMessage, UpdatedAt: r.ProgressUpdatedAt.Time},
	}
	if r.Attempt != nil {
		x.Attempt = r.Attempt.Attempt()
	}
	if l := r.Lease; l != nil {
		x.Lease = ff.Lease{ID: l.LeaseID, Worker: l.WorkerID, Instance: l.InstanceID, AcquiredAt: l.AcquiredAt.Time,
			ExpiresAt: l.ExpiresAt.Time, RenewedAt: l.RenewedAt.Time, RenewBefore: l.RenewBefore.Time}
	}
	if g := r.Grant; g != nil {
		x.Grant = ff.Grant{Worker: g.WorkerID, Instance: g.InstanceID, CreatedAt: g.CreatedAt.Time, ExpiresAt: g.ExpiresAt.Time,
			Capability: g.CapabilityHash, RouteJSON: g.RouteSnapshot, AdmissionSum: g.AdmissionSummary}
	}
	return x
}

// AttemptOf makes an attempt.
func AttemptOf(a *ff.Attempt) Attempt {
	return Attempt{a.ID, a.Index, a.Type, a.State, At(a.CreatedAt), At(a.StartedAt), At(a.EndedAt), At(a.SuspendedAt), At(a.ResumedAt),
		a.Worker, a.Instance, a.LeaseID, a.LeaseEpoch, a.Suspension, a.FailureReason, a.FailureCategory, a.Cause, a.RequestedBy, a.Previous}
}

// Attempt is the attempt that it was made of.
func (a *Attempt) Attempt() ff.Attempt {
	return ff.Attempt{ID: a.AttemptID, Index: a.Index, Type: a.Type, State: a.State, CreatedAt: a.CreatedAt.Time,
		StartedAt: a.StartedAt.Time, EndedAt: a.EndedAt.Time, SuspendedAt: a.SuspendedAt.Time, ResumedAt: a.ResumedAt.Time,
		Worker: a.WorkerID, Instance: a.InstanceID, LeaseID: a.LeaseID, LeaseEpoch: a.LeaseEpoch, Suspension: a.Suspension,
		FailureReason: a.FailureReason, FailureCategory: a.FailureCategory, Cause: a.Cause, RequestedBy: a.RequestedBy, Previous: a.Previous}
}

// Event is one event.
type Event struct {
	Cursor       ff.EventCursor      `json:"cursor"`
	Family       ff.EventFamily      `json:"family"`
	Type         ff.EventType        `json:"type"`
	ExecutionID  ff.ExecutionID      `json:"execution_id"`
	At           Time                `json:"at"`
	FlowID       ff.FlowID           `json:"flow_id,omitzero"`
	LeaseID      ff.LeaseID          `json:"lease_id,omitzero"`
	LeaseEpoch   uint64              `json:"lease_epoch,omitempty"`
	AttemptID    ff.AttemptID        `json:"attempt_id,omitzero"`
	AttemptIndex int                 `json:"attempt_index"`
	WorkerID     ff.WorkerID         `json:"worker_id,omitempty"`
	InstanceID   ff.WorkerInstanceID `json:"worker_instance_id,omitempty"`
	Reason       string              `json:"reason,omitempty"`
	SignalID     ff.SignalID         `json:"signal_id,omitzero"`
	WaitpointID  ff.WaitpointID      `json:"waitpoint_id,omitzero"`
	Source       string              `json:"source,omitempty"`
	Outcome      ff.TerminalOutcome  `json:"outcome,omitempty"`
}

// EventOf makes an event.
func EventOf(e ff.Event) Event {
	return Event{e.Cursor, e.Family, e.Type, e.ID, At(e.At), e.FlowID, e.LeaseID, e.LeaseEpoch, e.AttemptID, e.AttemptIndex,
		e.Worker, e.Instance, e.Reason, e.SignalID, e.WaitpointID, e.Source, e.Outcome}
}

// Event is the event that it was made of.
func (e *Event) Event() ff.Event {
	return ff.Event{Cursor: e.Cursor, Family: e.Family, Type: e.Type, ID: e.ExecutionID, At: e.At.Time, FlowID: e.FlowID,
		LeaseID: e.LeaseID, LeaseEpoch: e.LeaseEpoch, AttemptID: e.AttemptID, AttemptIndex: e.AttemptIndex, Worker: e.WorkerID,
		Instance: e.InstanceID, Reason: e.Reason, SignalID: e.SignalID, WaitpointID: e.WaitpointID, Source: e.Source, Outcome: e.Outcome}
}

// WorkerInfo is a registered worker.
type WorkerInfo struct {
	WorkerID      ff.WorkerID         `json:"worker_id"`
	InstanceID    ff.WorkerInstanceID `json:"worker_instance_id"`
	Namespace     ff.Namespace        `json:"namespace"`
	Lanes         []ff.LaneID         `json:"lanes"`
	Capabilities  ff.CapabilitySet    `json:"capabilities"`
	LivenessTTLMS Millis              `json:"liveness_ttl_ms"`
	RegisteredAt  Time                `json:"registered_at"`
	HeartbeatAt   Time                `json:"last_heartbeat_at"`
	ExpiresAt     Time                `json:"expires_at"`
	Leases        int                 `json:"leases"`
}

// WorkerInfoOf makes a worker.
func WorkerInfoOf(w *ff.WorkerInfo) WorkerInfo {
	return WorkerInfo{w.Worker, w.Instance, w.Namespace, append([]ff.LaneID{}, w.Lanes...), w.Capabilities, MillisOf(w.LivenessTTL),
		At(w.RegisteredAt), At(w.HeartbeatAt), At(w.ExpiresAt), w.Leases}
}

// Worker is the worker that it was made of.
func (w *WorkerInfo) Worker() ff.WorkerInfo {
	return ff.WorkerInfo{Worker: w.WorkerID, Instance: w.InstanceID, Namespace: w.Namespace, Lanes: w.Lanes, Capabilities: w.Capabilities,
		LivenessTTL: time.Duration(w.LivenessTTLMS) * time.Millisecond, RegisteredAt: w.RegisteredAt.Time,
		HeartbeatAt: w.HeartbeatAt.Time, ExpiresAt: w.ExpiresAt.Time, Leases: w.Leases}
}
