package client

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// RenewLeases extends many leases.
func (r *Remote) RenewLeases(ctx context.Context, c ff.RenewLeases) (ff.RenewLeasesResult, error) {
	if err := c.Validate(); err != nil {
		return ff.RenewLeasesResult{}, err
	}
	var out httpapi.Renewed
	err := r.c.do(ctx, call{method: "POST", path: "/v1/leases/renew", body: httpapi.Renew{Leases: c.Leases, LeaseTTLMS: httpapi.MillisOf(c.TTL)}, out: &out})
	if err != nil {
		return ff.RenewLeasesResult{}, err
	}
	got := ff.RenewLeasesResult{Renewals: make([]ff.Renewal, len(out.Renewals))}
	for i, n := range out.Renewals {
		got.Renewals[i] = ff.Renewal{ID: n.ExecutionID, ExpiresAt: n.ExpiresAt.Time, Err: restore(n.Error)}
	}
	return got, nil
}

// restore rebuilds the error of a batch item.
func restore(p *ff.PublicError) error {
	if p == nil {
		return nil
	}
	return p.Restore(http.StatusConflict)
}

// UpdateProgress stores how far an attempt is.
func (r *Remote) UpdateProgress(ctx context.Context, c ff.UpdateProgress) error {
	if err := c.Validate(); err != nil {
		return err
	}
	return r.c.do(ctx, call{method: "POST", path: executionPath(c.ID, "/progress"), body: httpapi.Progress{Fence: c.Fence, Percent: c.Percent, Message: c.Message}})
}

// CompleteExecution ends an execution with success. With Next it is sent once; when
// it has to be repeated, the repetition claims nothing: each call whose answer is
// lost would leave what it claimed to the end of its lease.
func (r *Remote) CompleteExecution(ctx context.Context, c ff.CompleteExecution) (ff.CompleteExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.CompleteExecutionResult{}, err
	}
	var out httpapi.Completed
	k := call{method: "POST", path: executionPath(c.ID, "/complete"), once: c.Fence.IsZero(), out: &out}
	b := httpapi.Complete{Fence: c.Fence, ResultBase64: c.Result, Source: c.Source}
	k.body = b
	var err error
	if c.Next != nil && !r.c.unchained() {
		chained, next := k, httpapi.ClaimOf(c.Next)
		b.Next = &next
		chained.body, chained.once = b, true
		if err = r.c.do(ctx, chained); !r.c.worthWithout(ctx, chained, k, err) {
			return completedOf(&out), err
		}
	}
	err = r.c.do(ctx, k)
	return completedOf(&out), err
}

func completedOf(out *httpapi.Completed) ff.CompleteExecutionResult {
	r := ff.CompleteExecutionResult{State: out.State, Repeated: out.Repeated}
	if !out.Now.IsZero() {
		next := httpapi.ClaimAnswer{Claimed: out.Claimed, Now: out.Now}
		r.Next = next.Result()
	}
	return r
}

// unchainedFor is how long completions do not ask a server for more work that has
// refused to be asked.
const unchainedFor = time.Minute

// unchained reports whether the server does not know claims with a completion, as
// far as the last answers tell.
func (c *Client) unchained() bool { return time.Now().UnixNano() < c.unchainedUntil.Load() }

// worthWithout reports whether a completion that was to claim is worth sending
// without. An older server refuses the field, before it has done anything.
func (c *Client) worthWithout(ctx context.Context, chained, plain call, err error) bool {
	if err == nil || ctx.Err() != nil {
		return false
	}
	if refused, ours := ff.AsError(err); ours && strings.Contains(refused.Error(), `field "next" is unknown`) {
		c.unchainedUntil.Store(time.Now().Add(unchainedFor).UnixNano())
		return true
	}
	return c.retries > 0 && c.repeatable(plain, err) && !c.repeatable(chained, err)
}

// FailExecution ends an attempt with a failure.
func (r *Remote) FailExecution(ctx context.Context, c ff.FailExecution) (ff.FailExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.FailExecutionResult{}, err
	}
	var out httpapi.Failed
	err := r.c.do(ctx, call{method: "POST", path: executionPath(c.ID, "/fail"), once: c.Fence.IsZero(), out: &out, body: httpapi.Fail{
		Fence: c.Fence, Reason: c.Reason, Category: c.Category, NoRetry: c.NoRetry, RetryAfterMS: httpapi.MillisOf(c.RetryAfter), Source: c.Source}})
	return ff.FailExecutionResult{State: out.State, RetryAt: out.RetryAt.Time, Retried: out.Retried, Repeated: out.Repeated}, err
}

// DelayExecution parks an execution.
func (r *Remote) DelayExecution(ctx context.Context, c ff.DelayExecution) (ff.DelayExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.DelayExecutionResult{}, err
	}
	b := httpapi.Delay{Fence: c.Fence, Until: httpapi.At(c.Until), DelayMS: httpapi.MillisOf(c.For), Source: c.Source}
	var out httpapi.Delayed
	err := r.c.do(ctx, call{method: "POST", path: executionPath(c.ID, "/delay"), once: true, body: b, out: &out})
	return ff.DelayExecutionResult{Until: out.Until.Time}, err
}

// ReleaseExecutions hands executions back.
func (r *Remote) ReleaseExecutions(ctx context.Context, c ff.ReleaseExecutions) (ff.ReleaseExecutionsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ReleaseExecutionsResult{}, err
	}
	var out httpapi.Released
	if err := r.c.do(ctx, call{method: "POST", path: "/v1/leases/release", once: true, body: httpapi.Release{Leases: c.Leases, Reason: c.Reason}, out: &out}); err != nil {
		return ff.ReleaseExecutionsResult{}, err
	}
	got := ff.ReleaseExecutionsResult{Errs: make([]error, len(out.Errors))}
	for i, p := range out.Errors {
		got.Errs[i] = restore(p)
	}
	return got, nil
}

// RevokeLease takes a lease away.
func (r *Remote) RevokeLease(ctx context.Context, c ff.RevokeLease) (ff.RevokeLeaseResult, error) {
	if err := c.Validate(); err != nil {
		return ff.RevokeLeaseResult{}, err
	}
	var out httpapi.RevokeAnswer
	err := r.c.do(ctx, call{method: "POST", path: executionPath(c.ID, "/revoke-with"), once: true, body: httpapi.Revoke{LeaseID: c.LeaseID, InstanceID: c.Instance, Reason: c.Reason}, out: &out})
	return ff.RevokeLeaseResult{LeaseID: out.LeaseID, LeaseEpoch: out.LeaseEpoch, Already: out.Already}, err
}

// ListExpiredLeases lists leases that nobody took over.
func (r *Remote) ListExpiredLeases(ctx context.Context, c ff.ListExpiredLeases) (ff.ListExpiredLeasesResult, error) {
	asOf := ""
	if !c.AsOf.IsZero() {
		asOf = strconv.FormatInt(c.AsOf.UnixMilli(), 10)
	}
	var out httpapi.ExpiredLeases
	if err := r.c.do(ctx, call{method: "GET", path: "/v1/leases/expired", query: pageQuery(c.Cursor, c.Limit, "as_of", asOf), out: &out}); err != nil {
		return ff.ListExpiredLeasesResult{}, err
	}
	got := ff.ListExpiredLeasesResult{Next: out.NextCursor, Leases: make([]ff.ExpiredLease, len(out.Leases))}
	for i, l := range out.Leases {
		got.Leases[i] = ff.ExpiredLease{ID: l.ExecutionID, LeaseID: l.LeaseID, LeaseEpoch: l.LeaseEpoch, Instance: l.InstanceID, ExpiresAt: l.ExpiresAt.Time, AttemptIndex: l.AttemptIndex}
	}
	return got, nil
}
