package flowfabric

import (
	"time"
	"unicode"
)

// MaxMarkDeadReasonBytes bounds the reason of MarkWorkerDead (spec 03 §25.1).
const MaxMarkDeadReasonBytes = 256

// WorkerInfo is one registered worker process (spec 11 §5.12).
type WorkerInfo struct {
	Worker       WorkerID         `json:"worker_id"`
	Instance     WorkerInstanceID `json:"worker_instance_id"`
	Namespace    Namespace        `json:"namespace"`
	Lanes        []LaneID         `json:"lanes"`
	Capabilities CapabilitySet    `json:"capabilities"`
	LivenessTTL  time.Duration    `json:"-"`
	RegisteredAt time.Time        `json:"registered_at"`
	HeartbeatAt  time.Time        `json:"last_heartbeat_at"`
	// ExpiresAt is when the registration lapses without another heartbeat.
	ExpiresAt time.Time `json:"expires_at"`
	// Leases is the number of executions it holds.
	Leases int `json:"leases"`
}

// RegisterWorker announces a worker process.
type RegisterWorker struct {
	Claimant
	Namespace   Namespace
	Lanes       []LaneID
	LivenessTTL time.Duration
	// Exclusive refuses an instance id that another live registration holds
	// with duplicate_worker_instance; otherwise the registration is overwritten.
	Exclusive bool
}

// Validate checks the command.
func (c *RegisterWorker) Validate() error {
	if err := c.Claimant.Validate(); err != nil {
		return err
	}
	if err := c.Namespace.Validate(); err != nil {
		return err
	}
	if n := len(c.Lanes); n > MaxClaimLanes {
		return InvalidInput("lanes", "must hold at most %d lanes (got %d)", MaxClaimLanes, n)
	}
	for i, l := range c.Lanes {
		if err := l.Validate(); err != nil {
			return AtItem("lanes", i, err)
		}
	}
	if c.LivenessTTL < time.Second || c.LivenessTTL > 2*MaxLeaseTTL {
		return InvalidInput("liveness_ttl_ms", "must be 1s to %s (got %s)", 2*MaxLeaseTTL, c.LivenessTTL)
	}
	return nil
}

// RegisterWorkerResult says whether the instance was live before.
type RegisterWorkerResult struct {
	Refreshed bool
	ExpiresAt time.Time
}

// HeartbeatWorker keeps a registration alive.
type HeartbeatWorker struct {
	Namespace Namespace
	Instance  WorkerInstanceID
}

// HeartbeatWorkerResult has the next expiry. Registered is false when the
// registration had lapsed: register again.
type HeartbeatWorkerResult struct {
	Registered bool
	ExpiresAt  time.Time
}

// MarkWorkerDead removes a registration, on shutdown by the worker itself or by
// an operator. Leases of the worker run out by themselves.
type MarkWorkerDead struct {
	Namespace Namespace
	Instance  WorkerInstanceID
	Reason    string
}

// Validate checks the command (texts of spec 03 §25.1).
func (c *MarkWorkerDead) Validate() error {
	if err := c.Instance.Validate(); err != nil {
		return err
	}
	if n := len(c.Reason); n > MaxMarkDeadReasonBytes {
		return InvalidInput("reason", "exceeds %d bytes (got %d)", MaxMarkDeadReasonBytes, n)
	}
	for _, r := range c.Reason {
		if unicode.IsControl(r) {
			return InvalidInput("reason", "must not contain control characters")
		}
	}
	return nil
}

// MarkWorkerDeadResult says whether there was a registration.
type MarkWorkerDeadResult struct{ Marked bool }

// ListWorkers asks for live workers, ordered by namespace and instance id. An
// empty namespace with AllNamespaces unset means the empty namespace.
type ListWorkers struct {
	Namespace     Namespace
	AllNamespaces bool
	Cursor        string
	Limit         int
}

// Validate checks the query.
func (c *ListWorkers) Validate() error { return checkLimit(c.Limit) }

// ListWorkersResult is a page; Next is empty on the last one.
type ListWorkersResult struct {
	Workers []WorkerInfo
	Next    string
}
