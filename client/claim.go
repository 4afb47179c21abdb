package client

import (
	"context"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// Claim takes executions. The server waits for work for the caller.
func (r *Remote) Claim(ctx context.Context, c ff.Claim) (ff.ClaimResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ClaimResult{}, err
	}
	var out httpapi.ClaimAnswer
	err := r.c.do(ctx, call{method: "POST", path: "/v1/claims", once: true, wait: c.Wait, out: &out, body: httpapi.ClaimOf(&c)})
	if err != nil {
		return ff.ClaimResult{}, err
	}
	return out.Result(), nil
}

// GrantNext reserves the next execution of a lane.
func (r *Remote) GrantNext(ctx context.Context, c ff.GrantNext) (ff.GrantResult, error) {
	if err := c.Validate(); err != nil {
		return ff.GrantResult{}, err
	}
	return r.grant(ctx, "/v1/claims/grant", httpapi.GrantNext{Claimant: httpapi.ClaimantOf(c.Claimant), LaneID: c.Lane, TTLMS: httpapi.MillisOf(c.TTL)})
}

// GrantReclaim reserves an execution whose lease was lost.
func (r *Remote) GrantReclaim(ctx context.Context, c ff.GrantReclaim) (ff.GrantResult, error) {
	if err := c.Validate(); err != nil {
		return ff.GrantResult{}, err
	}
	return r.grant(ctx, "/v1/claims/grant-reclaim", httpapi.GrantReclaim{Claimant: httpapi.ClaimantOf(c.Claimant), ExecutionID: c.ID,
		TTLMS: httpapi.MillisOf(c.TTL), CapabilityHash: c.Capability, RouteSnapshot: c.RouteJSON, AdmissionSummary: c.AdmissionSum})
}

func (r *Remote) grant(ctx context.Context, path string, body any) (ff.GrantResult, error) {
	var out httpapi.Granted
	err := r.c.do(ctx, call{method: "POST", path: path, body: body, out: &out, once: true})
	return ff.GrantResult{ID: out.ExecutionID, Lane: out.LaneID, ExpiresAt: out.ExpiresAt.Time}, err
}

// ClaimGranted turns a grant into a lease.
func (r *Remote) ClaimGranted(ctx context.Context, c ff.ClaimGranted) (ff.ClaimGrantedResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ClaimGrantedResult{}, err
	}
	var out httpapi.ClaimAnswer
	err := r.c.do(ctx, call{method: "POST", path: "/v1/claims/granted", once: true, out: &out, body: httpapi.ClaimGranted{
		Claimant: httpapi.ClaimantOf(c.Claimant), ExecutionID: c.ID, LeaseTTLMS: httpapi.MillisOf(c.LeaseTTL)}})
	if err != nil {
		return ff.ClaimGrantedResult{}, err
	}
	if len(out.Claimed) != 1 {
		return ff.ClaimGrantedResult{}, ff.Errorf(ff.CodeTransport, "the server answered %d claimed executions instead of one", len(out.Claimed))
	}
	return ff.ClaimGrantedResult{Claimed: out.Claimed[0].Claimed(), Now: out.Now.Time}, nil
}
