package httpapi

import (
	ff "github.com/flowfabric/flowfabric"
)

// Sweep is the body of POST /v1/admin/sweep.
type Sweep struct {
	Kind  ff.SweepKind `json:"kind" enum:"lease_expiry,delayed_promoter,attempt_timeout,execution_deadline,suspension_timeout,pending_wp_expiry,retention_trimmer,index_reconciler"`
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
