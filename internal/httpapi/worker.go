package httpapi

import (
	ff "github.com/flowfabric/flowfabric"
)

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
