package flowfabric

import (
	"context"
	"io"
	"time"
)

// Executions submits, reads and steers executions.
type Executions interface {
	// CreateExecution stores an execution. Errors: see CreateExecution.Validate;
	// unavailable when the store cannot be reached.
	CreateExecution(context.Context, CreateExecution) (CreateExecutionResult, error)
	// CreateExecutions stores many executions, all or none; on a cluster of Valkeys all
	// or none of each partition. Errors: see CreateExecutions.Validate.
	CreateExecutions(context.Context, CreateExecutions) (CreateExecutionsResult, error)
	// Execution reads the record. Errors: execution_not_found.
	Execution(context.Context, ExecutionID) (Execution, error)
	// ExecutionPayload reads the input. Errors: execution_not_found.
	ExecutionPayload(context.Context, ExecutionID) (ExecutionPayload, error)
	// ExecutionResult reads the result; nil when there is none (yet). Errors:
	// execution_not_found.
	ExecutionResult(context.Context, ExecutionID) ([]byte, error)
	// Attempts lists the attempts in order. Errors: execution_not_found.
	Attempts(context.Context, ExecutionID) ([]Attempt, error)
	// CancelExecution ends an execution. The holder of the lease may repeat it
	// after a lost answer. Errors: execution_not_found, execution_not_active when
	// it is terminal already, stale_lease and lease_revoked when a fence is given.
	CancelExecution(context.Context, CancelExecution) (CancelExecutionResult, error)
	// ChangePriority moves a waiting execution. Errors: execution_not_found,
	// execution_not_eligible.
	ChangePriority(context.Context, ChangePriority) (ChangePriorityResult, error)
	// ReplayExecution starts a terminal execution again. Errors:
	// execution_not_found, execution_not_terminal, max_replays_exhausted.
	ReplayExecution(context.Context, ReplayExecution) (ReplayExecutionResult, error)
	// SetExecutionTags adds tags. Errors: execution_not_found, invalid_tag_key.
	SetExecutionTags(context.Context, SetExecutionTags) (SetExecutionTagsResult, error)
	// ListExecutions lists by lane, state, kind and namespace.
	ListExecutions(context.Context, ListExecutions) (ListExecutionsResult, error)
	// ListPartition lists the ids of one partition.
	ListPartition(context.Context, ListPartition) (ListPartitionResult, error)
	// Lanes lists the lanes with their counts, ordered by name.
	Lanes(context.Context) ([]LaneStatus, error)
}

// Claims gives executions to workers.
type Claims interface {
	// Claim takes up to Max executions. Nothing to claim is an empty result.
	Claim(context.Context, Claim) (ClaimResult, error)
	// GrantNext reserves the next execution of a lane.
	GrantNext(context.Context, GrantNext) (GrantResult, error)
	// GrantReclaim reserves an execution whose lease was lost.
	GrantReclaim(context.Context, GrantReclaim) (GrantResult, error)
	// ClaimGranted turns a grant into a lease.
	ClaimGranted(context.Context, ClaimGranted) (ClaimGrantedResult, error)
}

// Leases is what the holder of a lease does with it. Every method refuses a
// fence that is not in force with stale_lease, lease_expired, lease_revoked or
// execution_not_active.
type Leases interface {
	RenewLeases(context.Context, RenewLeases) (RenewLeasesResult, error)
	UpdateProgress(context.Context, UpdateProgress) error
	// CompleteExecution and FailExecution succeed again when the same holder
	// repeats them after a lost answer (spec 02 §5). A completion may claim the
	// next work of its worker.
	CompleteExecution(context.Context, CompleteExecution) (CompleteExecutionResult, error)
	FailExecution(context.Context, FailExecution) (FailExecutionResult, error)
	DelayExecution(context.Context, DelayExecution) (DelayExecutionResult, error)
	ReleaseExecutions(context.Context, ReleaseExecutions) (ReleaseExecutionsResult, error)
	// RevokeLease is the operator's. Errors: execution_not_found,
	// execution_not_active, stale_lease when another lease is expected.
	RevokeLease(context.Context, RevokeLease) (RevokeLeaseResult, error)
	ListExpiredLeases(context.Context, ListExpiredLeases) (ListExpiredLeasesResult, error)
}

// Workers is the registry of live worker processes.
type Workers interface {
	// RegisterWorker announces a process. Errors: duplicate_worker_instance,
	// invalid_input (`instance_id reassigned`) when the instance id is live
	// under another worker id.
	RegisterWorker(context.Context, RegisterWorker) (RegisterWorkerResult, error)
	HeartbeatWorker(context.Context, HeartbeatWorker) (HeartbeatWorkerResult, error)
	MarkWorkerDead(context.Context, MarkWorkerDead) (MarkWorkerDeadResult, error)
	ListWorkers(context.Context, ListWorkers) (ListWorkersResult, error)
}

// Events is the log of what happened.
type Events interface {
	// ReadEvents reads on from a cursor. Errors: invalid_input for a cursor of
	// another store.
	ReadEvents(context.Context, ReadEvents) (ReadEventsResult, error)
}

// Maintenance is what the background loops of package engine do. Several
// engines may sweep one store at the same time.
type Maintenance interface {
	// Sweep does what is due of one kind.
	Sweep(context.Context, Sweep) (SweepResult, error)
	// WatchDue returns a channel that receives whenever something of the kind
	// was stored that may be due before the last SweepResult.Next. Stop releases
	// it. A store that cannot tell returns a nil channel: poll.
	WatchDue(SweepKind) (due <-chan struct{}, stop func())
}

// Info describes a store for people and for benchmarks.
type Info struct {
	// Store is sqlite, valkey or postgres, also of a remote store.
	Store string `json:"store"`
	// Version is the version of the storage engine.
	Version string `json:"version"`
	// Location is the path or address, without secrets.
	Location string `json:"location"`
	// Durability says what an acknowledged command survives, in the store's
	// words (for SQLite: "wal, synchronous=full").
	Durability string          `json:"durability"`
	Partitions PartitionConfig `json:"partitions"`
}

// Admin is the health and the description of a store.
type Admin interface {
	Ping(context.Context) error
	Info(context.Context) (Info, error)
	// Now is the store's clock.
	Now(context.Context) (time.Time, error)
}

// Backend is a store with everything that FlowFabric does. Ask for the smallest
// role that you need.
type Backend interface {
	Executions
	Claims
	Leases
	Streams
	Suspensions
	Workers
	Events
	Maintenance
	Admin
	io.Closer
}
