package server

import (
	"net/http"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

func (s *Server) revokeWith(r *request) (answer, error) {
	b, id, err := withID[httpapi.Revoke](r)
	if err != nil {
		return answer{}, err
	}
	got, err := s.store.RevokeLease(r.Context(), ff.RevokeLease{ID: id, LeaseID: b.LeaseID, Instance: b.InstanceID, Reason: b.Reason})
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.RevokeAnswer{LeaseID: got.LeaseID, LeaseEpoch: got.LeaseEpoch, Already: got.Already})
}

func (s *Server) renewLeases(r *request) (answer, error) {
	b, err := decode[httpapi.Renew](r)
	if err != nil {
		return answer{}, err
	}
	ttl, err := b.LeaseTTLMS.Duration("lease_ttl_ms")
	if err != nil {
		return answer{}, err
	}
	got, err := s.store.RenewLeases(r.Context(), ff.RenewLeases{Leases: b.Leases, TTL: ttl})
	if err != nil {
		return answer{}, err
	}
	out := httpapi.Renewed{Renewals: make([]httpapi.Renewal, len(got.Renewals))}
	for i, n := range got.Renewals {
		out.Renewals[i] = httpapi.Renewal{ExecutionID: n.ID, ExpiresAt: httpapi.At(n.ExpiresAt), Error: httpapi.PublicErrorOf(n.Err)}
	}
	return ok(out)
}

func (s *Server) releaseLeases(r *request) (answer, error) {
	b, err := decode[httpapi.Release](r)
	if err != nil {
		return answer{}, err
	}
	got, err := s.store.ReleaseExecutions(r.Context(), ff.ReleaseExecutions{Leases: b.Leases, Reason: b.Reason})
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.Released{Errors: httpapi.PublicErrors(got.Errs)})
}

func (s *Server) expiredLeases(r *request) (answer, error) {
	q := r.query()
	c := ff.ListExpiredLeases{Cursor: q.text("cursor"), Limit: int(q.number("limit", 0, ff.MaxPageLimit))}
	if ms := q.number("as_of", 0, 253402300799999); ms > 0 {
		c.AsOf = time.UnixMilli(ms).UTC()
	}
	if q.err != nil {
		return answer{}, q.err
	}
	got, err := s.store.ListExpiredLeases(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	out := httpapi.ExpiredLeases{Leases: make([]httpapi.ExpiredLease, len(got.Leases)), NextCursor: got.Next}
	for i, l := range got.Leases {
		out.Leases[i] = httpapi.ExpiredLease{ExecutionID: l.ID, LeaseID: l.LeaseID, LeaseEpoch: l.LeaseEpoch, InstanceID: l.Instance,
			ExpiresAt: httpapi.At(l.ExpiresAt), AttemptIndex: l.AttemptIndex}
	}
	return ok(out)
}

func (s *Server) progress(r *request) (answer, error) {
	b, id, err := withID[httpapi.Progress](r)
	if err != nil {
		return answer{}, err
	}
	err = s.store.UpdateProgress(r.Context(), ff.UpdateProgress{LeaseRef: ff.LeaseRef{ID: id, Fence: b.Fence}, Percent: b.Percent, Message: b.Message})
	return answer{status: http.StatusNoContent}, err
}

func (s *Server) complete(r *request) (answer, error) {
	b, id, err := withID[httpapi.Complete](r)
	if err != nil {
		return answer{}, err
	}
	c := ff.CompleteExecution{LeaseRef: ff.LeaseRef{ID: id, Fence: b.Fence}, Result: b.ResultBase64, Source: b.Source}
	if b.Result != nil {
		if b.ResultBase64 != nil {
			return answer{}, ff.InvalidInput("result", "give either result or result_base64, not both")
		}
		c.Result = b.Result
	}
	if b.Next != nil {
		next, err := b.Next.Claim()
		if err != nil {
			return answer{}, ff.InField("next", err)
		}
		c.Next = &next
	}
	got, err := s.claims.CompleteExecution(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	if r.Context().Err() != nil && len(got.Next.Claimed) > 0 {
		return answer{}, s.giveBack(r, got.Next.Claimed)
	}
	out := httpapi.Completed{State: got.State, Repeated: got.Repeated}
	if !got.Next.Now.IsZero() {
		next := httpapi.ClaimAnswerOf(&got.Next)
		out.Claimed, out.Now = next.Claimed, next.Now
	}
	return ok(out)
}

func (s *Server) fail(r *request) (answer, error) {
	b, id, err := withID[httpapi.Fail](r)
	if err != nil {
		return answer{}, err
	}
	c := ff.FailExecution{LeaseRef: ff.LeaseRef{ID: id, Fence: b.Fence}, Reason: b.Reason, Category: b.Category, NoRetry: b.NoRetry, Source: b.Source}
	if c.RetryAfter, err = b.RetryAfterMS.Duration("retry_after_ms"); err != nil {
		return answer{}, err
	}
	got, err := s.store.FailExecution(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.Failed{State: got.State, Retried: got.Retried, RetryAt: httpapi.At(got.RetryAt), Repeated: got.Repeated})
}

func (s *Server) delay(r *request) (answer, error) {
	b, id, err := withID[httpapi.Delay](r)
	if err != nil {
		return answer{}, err
	}
	c := ff.DelayExecution{LeaseRef: ff.LeaseRef{ID: id, Fence: b.Fence}, Until: b.Until.Time, Source: b.Source}
	if c.For, err = b.DelayMS.Duration("delay_ms"); err != nil {
		return answer{}, err
	}
	got, err := s.store.DelayExecution(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.Delayed{Until: httpapi.At(got.Until)})
}
