package httpapi

import (
	ff "github.com/flowfabric/flowfabric"
)

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

// ClaimOf makes a claim.
func ClaimOf(c *ff.Claim) Claim {
	return Claim{Claimant: ClaimantOf(c.Claimant), Lanes: c.Lanes, Max: c.Max, LeaseTTLMS: MillisOf(c.LeaseTTL), WaitMS: MillisOf(c.Wait)}
}

// Claim is the claim that it was made of.
func (c *Claim) Claim() (claim ff.Claim, err error) {
	claim = ff.Claim{Lanes: c.Lanes, Max: c.Max}
	if claim.Claimant, err = c.Claimant.Claimant(); err != nil {
		return claim, err
	}
	if claim.LeaseTTL, err = c.LeaseTTLMS.Duration("lease_ttl_ms"); err != nil {
		return claim, err
	}
	claim.Wait, err = c.WaitMS.Duration("wait_ms")
	return claim, err
}

// Claimed is one claimed execution.
type Claimed struct {
	Execution Record `json:"execution"`
	Payload   []byte `json:"payload" doc:"Input in base64; null when there is none" nullable:"true"`
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

// ClaimAnswerOf makes the answer to a claim.
func ClaimAnswerOf(r *ff.ClaimResult) ClaimAnswer {
	a := ClaimAnswer{Claimed: make([]Claimed, len(r.Claimed)), Now: At(r.Now)}
	for i := range r.Claimed {
		a.Claimed[i] = ClaimedOf(&r.Claimed[i])
	}
	return a
}

// Result is the result that it was made of.
func (a *ClaimAnswer) Result() ff.ClaimResult {
	r := ff.ClaimResult{Now: a.Now.Time, Claimed: make([]ff.Claimed, len(a.Claimed))}
	for i := range a.Claimed {
		r.Claimed[i] = a.Claimed[i].Claimed()
	}
	return r
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
