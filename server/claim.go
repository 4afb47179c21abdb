package server

import (
	"context"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

func (s *Server) claim(r *request) (answer, error) {
	b, err := decode[httpapi.Claim](r)
	if err != nil {
		return answer{}, err
	}
	c, err := b.Claim()
	if err != nil {
		return answer{}, err
	}
	ctx, cancel := s.polling(r)
	defer cancel()
	got, err := s.claims.Claim(ctx, c)
	if err != nil && ctx.Err() != nil && len(got.Claimed) == 0 {
		now, errNow := s.store.Now(context.WithoutCancel(ctx))
		got, err = ff.ClaimResult{Now: now}, errNow
	}
	if err != nil {
		return answer{}, err
	}
	if r.Context().Err() != nil && len(got.Claimed) > 0 {
		return answer{}, s.giveBack(r, got.Claimed)
	}
	return ok(httpapi.ClaimAnswerOf(&got))
}

// giveBack releases what was claimed for a caller that has gone.
func (s *Server) giveBack(r *request, claimed []ff.Claimed) error {
	c := ff.ReleaseExecutions{Reason: "claimant_gone"}
	for i := range claimed {
		c.Leases = append(c.Leases, claimed[i].Ref())
	}
	if _, err := s.store.ReleaseExecutions(context.WithoutCancel(r.Context()), c); err != nil {
		s.log.ErrorContext(r.Context(), "handing executions back for a claimant that has gone", "worker_instance_id", claimed[0].Execution.Lease.Instance, "err", err)
	}
	return context.Canceled
}

func (s *Server) grantNext(r *request) (answer, error) {
	b, err := decode[httpapi.GrantNext](r)
	if err != nil {
		return answer{}, err
	}
	c := ff.GrantNext{Lane: b.LaneID}
	if c.Claimant, err = b.Claimant.Claimant(); err != nil {
		return answer{}, err
	}
	if c.TTL, err = b.TTLMS.Duration("grant_ttl_ms"); err != nil {
		return answer{}, err
	}
	return granted(s.claims.GrantNext(r.Context(), c))
}

func (s *Server) grantReclaimWith(r *request) (answer, error) {
	b, err := decode[httpapi.GrantReclaim](r)
	if err != nil {
		return answer{}, err
	}
	c := ff.GrantReclaim{ID: b.ExecutionID, Capability: b.CapabilityHash, RouteJSON: b.RouteSnapshot, AdmissionSum: b.AdmissionSummary}
	if c.Claimant, err = b.Claimant.Claimant(); err != nil {
		return answer{}, err
	}
	if c.TTL, err = b.TTLMS.Duration("grant_ttl_ms"); err != nil {
		return answer{}, err
	}
	return granted(s.claims.GrantReclaim(r.Context(), c))
}

func granted(got ff.GrantResult, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.Granted{ExecutionID: got.ID, LaneID: got.Lane, ExpiresAt: httpapi.At(got.ExpiresAt)})
}

func (s *Server) claimGranted(r *request) (answer, error) {
	b, err := decode[httpapi.ClaimGranted](r)
	if err != nil {
		return answer{}, err
	}
	c := ff.ClaimGranted{ID: b.ExecutionID}
	if c.Claimant, err = b.Claimant.Claimant(); err != nil {
		return answer{}, err
	}
	if c.LeaseTTL, err = b.LeaseTTLMS.Duration("lease_ttl_ms"); err != nil {
		return answer{}, err
	}
	got, err := s.claims.ClaimGranted(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.ClaimAnswer{Claimed: []httpapi.Claimed{httpapi.ClaimedOf(&got.Claimed)}, Now: httpapi.At(got.Now)})
}
