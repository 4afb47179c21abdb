package httpapi

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// CreateExecutionArgs is the body of POST /v1/executions (spec 08 §3.2).
// PartitionID and Now are read and not used: the partition is in the id and the
// clock is the store's.
type CreateExecutionArgs struct {
	ExecutionID     ff.ExecutionID      `json:"execution_id"`
	Namespace       string              `json:"namespace"`
	LaneID          ff.LaneID           `json:"lane_id"`
	ExecutionKind   string              `json:"execution_kind"`
	InputPayload    Bytes               `json:"input_payload"`
	PayloadEncoding *string             `json:"payload_encoding"`
	Priority        int32               `json:"priority"`
	CreatorIdentity string              `json:"creator_identity"`
	IdempotencyKey  *string             `json:"idempotency_key"`
	Tags            Tags                `json:"tags"`
	Policy          *ff.ExecutionPolicy `json:"policy"`
	DelayUntil      *int64              `json:"delay_until"`
	DeadlineAt      *int64              `json:"execution_deadline_at"`
	PartitionID     *uint16             `json:"partition_id"`
	Now             *int64              `json:"now"`
}

// CreateExecutionRequired are the fields that the reference requires.
var CreateExecutionRequired = []string{"execution_id", "namespace", "lane_id", "execution_kind", "input_payload", "priority", "creator_identity", "partition_id", "now"}

// Tags are labels; null is refused.
type Tags map[string]string

// UnmarshalJSON reads labels.
func (t *Tags) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return fmt.Errorf("tags must be an object, not null")
	}
	return json.Unmarshal(data, (*map[string]string)(t))
}

// Command is the command.
func (a *CreateExecutionArgs) Command() (ff.CreateExecution, error) {
	c := ff.CreateExecution{
		ID: a.ExecutionID, Namespace: ff.Namespace(a.Namespace), Lane: a.LaneID, Kind: a.ExecutionKind, Payload: a.InputPayload,
		PayloadEncoding: deref(a.PayloadEncoding), Priority: int(a.Priority), Creator: a.CreatorIdentity,
		IdempotencyKey: deref(a.IdempotencyKey), Tags: a.Tags, Policy: a.Policy,
	}
	var err error
	if c.DelayUntil, err = instant("delay_until", a.DelayUntil); err == nil {
		c.Deadline, err = instant("execution_deadline_at", a.DeadlineAt)
	}
	return c, err
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func instant(field string, ms *int64) (time.Time, error) {
	if ms == nil {
		return time.Time{}, nil
	}
	if *ms < 0 || *ms > maxMillis {
		return time.Time{}, ff.InvalidInput(field, "must be 0 to %d (got %d)", int64(maxMillis), *ms)
	}
	return time.UnixMilli(*ms).UTC(), nil
}

// CreateExecutionAnswer is {"Created":…} or {"Duplicate":…}.
type CreateExecutionAnswer struct {
	Created   *Created   `json:"Created,omitempty"`
	Duplicate *Duplicate `json:"Duplicate,omitempty"`
}

// Created is a new execution.
type Created struct {
	ExecutionID ff.ExecutionID `json:"execution_id"`
	PublicState ff.PublicState `json:"public_state"`
}

// Duplicate names the execution that was there before.
type Duplicate struct {
	ExecutionID ff.ExecutionID `json:"execution_id"`
}

// CreateExecutionAnswerOf makes the answer.
func CreateExecutionAnswerOf(r ff.CreateExecutionResult) CreateExecutionAnswer {
	if r.Duplicate {
		return CreateExecutionAnswer{Duplicate: &Duplicate{r.ID}}
	}
	return CreateExecutionAnswer{Created: &Created{r.ID, r.State}}
}

// PartitionPage is the answer of GET /v1/executions (spec 08 §3.1).
type PartitionPage struct {
	Executions []ff.ExecutionID `json:"executions"`
	NextCursor *string          `json:"next_cursor"`
}

// ExecutionInfo is the answer of GET /v1/executions/{id} (spec 08 §3.3).
type ExecutionInfo struct {
	ExecutionID         ff.ExecutionID `json:"execution_id"`
	Namespace           string         `json:"namespace"`
	LaneID              ff.LaneID      `json:"lane_id"`
	Priority            int            `json:"priority"`
	ExecutionKind       string         `json:"execution_kind"`
	StateVector         ff.StateVector `json:"state_vector"`
	PublicState         ff.PublicState `json:"public_state"`
	CreatedAt           string         `json:"created_at"`
	StartedAt           string         `json:"started_at,omitempty"`
	CompletedAt         string         `json:"completed_at,omitempty"`
	CurrentAttemptIndex int            `json:"current_attempt_index"`
	FlowID              *ff.FlowID     `json:"flow_id"`
	BlockingDetail      string         `json:"blocking_detail"`
}

// ExecutionInfoOf makes the answer.
func ExecutionInfoOf(x *ff.Execution) ExecutionInfo {
	info := ExecutionInfo{
		ExecutionID: x.ID, Namespace: string(x.Namespace), LaneID: x.Lane, Priority: x.Priority, ExecutionKind: x.Kind,
		StateVector: x.State, PublicState: x.PublicState(), CreatedAt: msText(x.CreatedAt), StartedAt: msText(x.StartedAt),
		CompletedAt: msText(x.CompletedAt), CurrentAttemptIndex: x.Attempt.Index, BlockingDetail: x.BlockingDetail,
	}
	if !x.FlowID.IsZero() {
		info.FlowID = &x.FlowID
	}
	return info
}

func msText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.UnixMilli(), 10)
}

// CancelExecutionArgs is the body of POST /v1/executions/{id}/cancel
// (spec 08 §3.6).
type CancelExecutionArgs struct {
	ExecutionID string       `json:"execution_id"`
	Reason      string       `json:"reason"`
	Source      *string      `json:"source"`
	LeaseID     ff.LeaseID   `json:"lease_id"`
	LeaseEpoch  *uint64      `json:"lease_epoch"`
	AttemptID   ff.AttemptID `json:"attempt_id"`
	Now         *int64       `json:"now"`
}

// CancelExecutionAnswer is {"Cancelled":…}.
type CancelExecutionAnswer struct {
	Cancelled Created `json:"Cancelled"`
}

// ChangePriorityArgs is the body of PUT /v1/executions/{id}/priority.
type ChangePriorityArgs struct {
	NewPriority int32 `json:"new_priority"`
}

// ChangePriorityAnswer is {"Changed":…}.
type ChangePriorityAnswer struct {
	Changed Duplicate `json:"Changed"`
}

// ReplayExecutionAnswer is {"Replayed":…}.
type ReplayExecutionAnswer struct {
	Replayed struct {
		PublicState ff.PublicState `json:"public_state"`
	} `json:"Replayed"`
}

// RevokeLeaseAnswer is {"Revoked":…} or {"AlreadySatisfied":…}; the epoch is a
// text (spec 08 §3.11).
type RevokeLeaseAnswer struct {
	Revoked *struct {
		LeaseID    ff.LeaseID `json:"lease_id"`
		LeaseEpoch string     `json:"lease_epoch"`
	} `json:"Revoked,omitempty"`
	AlreadySatisfied *AlreadySatisfied `json:"AlreadySatisfied,omitempty"`
}

// AlreadySatisfied says why there was nothing to do.
type AlreadySatisfied struct {
	Reason string `json:"reason"`
}

// RevokeLeaseAnswerOf makes the answer.
func RevokeLeaseAnswerOf(r ff.RevokeLeaseResult) (a RevokeLeaseAnswer) {
	if r.Already != "" {
		a.AlreadySatisfied = &AlreadySatisfied{r.Already}
		return a
	}
	a.Revoked = &struct {
		LeaseID    ff.LeaseID `json:"lease_id"`
		LeaseEpoch string     `json:"lease_epoch"`
	}{r.LeaseID, strconv.FormatUint(r.LeaseEpoch, 10)}
	return a
}

// GrantArgs is the body of POST /v1/workers/{worker_id}/claim (spec 08 §3.13).
type GrantArgs struct {
	LaneID           string   `json:"lane_id"`
	WorkerInstanceID string   `json:"worker_instance_id"`
	Capabilities     []string `json:"capabilities"`
	GrantTTLMS       uint64   `json:"grant_ttl_ms"`
}

// GrantAnswer is the grant.
type GrantAnswer struct {
	ExecutionID  ff.ExecutionID `json:"execution_id"`
	PartitionKey string         `json:"partition_key"`
	GrantKey     string         `json:"grant_key"`
	ExpiresAtMS  int64          `json:"expires_at_ms"`
}

// GrantAnswerOf makes the answer.
func GrantAnswerOf(r ff.GrantResult) GrantAnswer {
	tag := ff.Partition{Family: ff.FamilyExecution, Index: r.ID.Partition()}.Key()
	return GrantAnswer{r.ID, tag, "ff:exec:" + tag + ":" + r.ID.String() + ":claim_grant", r.ExpiresAt.UnixMilli()}
}

// GrantReclaimArgs is the body of POST /v1/executions/{id}/reclaim
// (spec 08 §3.12).
type GrantReclaimArgs struct {
	WorkerID           string   `json:"worker_id"`
	WorkerInstanceID   string   `json:"worker_instance_id"`
	LaneID             string   `json:"lane_id"`
	CapabilityHash     *string  `json:"capability_hash"`
	GrantTTLMS         uint64   `json:"grant_ttl_ms"`
	RouteSnapshotJSON  *string  `json:"route_snapshot_json"`
	AdmissionSummary   *string  `json:"admission_summary"`
	WorkerCapabilities []string `json:"worker_capabilities"`
}

// GrantReclaimAnswer is tagged by its status: granted, not_reclaimable or
// reclaim_cap_exceeded.
type GrantReclaimAnswer struct {
	Status       string         `json:"status"`
	ExecutionID  ff.ExecutionID `json:"execution_id"`
	PartitionKey string         `json:"partition_key,omitempty"`
	GrantKey     string         `json:"grant_key,omitempty"`
	ExpiresAtMS  int64          `json:"expires_at_ms,omitempty"`
	LaneID       ff.LaneID      `json:"lane_id,omitempty"`
	Detail       string         `json:"detail,omitempty"`
}
