package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// Remote is a store at the other end of a server. Commands are repeated when the
// server cannot be reached, if that is safe: reads are, terminal commands of a
// holder are, and submits are because each carries an id.
// A claim whose answer is lost is not: its lease runs out.
type Remote struct{ c *Client }

var _ ff.Backend = (*Remote)(nil)

// Backend is the server's store.
func (c *Client) Backend() *Remote { return &Remote{c} }

func executionPath(id ff.ExecutionID, rest string) string {
	return "/v1/executions/" + httpapi.Escape(id.String()) + rest
}

// CreateExecution submits an execution.
func (r *Remote) CreateExecution(ctx context.Context, c ff.CreateExecution) (ff.CreateExecutionResult, error) {
	got, err := r.CreateExecutions(ctx, ff.CreateExecutions{Executions: []ff.CreateExecution{c}})
	if err != nil {
		return ff.CreateExecutionResult{}, unwrapItem(err)
	}
	return got.Results[0], nil
}

// unwrapItem takes the position of the only item off an error.
func unwrapItem(err error) error {
	e, ok := ff.AsError(err)
	if !ok {
		return err
	}
	const first = "executions[0]"
	shown := *e
	if shown.Field == first {
		shown.Field = ""
	} else if len(shown.Field) > len(first) && shown.Field[:len(first)] == first {
		shown.Field = shown.Field[len(first)+1:]
	}
	return &shown
}

// CreateExecutions submits many executions. An execution without an id gets one
// here, so that a repeated call stores it once.
func (r *Remote) CreateExecutions(ctx context.Context, c ff.CreateExecutions) (ff.CreateExecutionsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.CreateExecutionsResult{}, err
	}
	b := httpapi.CreateMany{Executions: make([]httpapi.CreateItem, len(c.Executions))}
	minted := make([]ff.ExecutionID, len(c.Executions))
	for i := range c.Executions {
		b.Executions[i] = httpapi.CreateItem{LaneID: c.Executions[i].Lane, Submit: httpapi.SubmitOf(&c.Executions[i])}
		if !c.Executions[i].ID.IsZero() {
			continue
		}
		partitions, err := r.partitions(ctx)
		if err != nil {
			return ff.CreateExecutionsResult{}, err
		}
		minted[i] = ff.NewExecutionID(c.Executions[i].Lane, partitions)
		b.Executions[i].ExecutionID = minted[i]
	}
	var out httpapi.SubmittedBatch
	if err := r.c.do(ctx, call{method: "POST", path: "/v1/executions/create-many", body: b, out: &out}); err != nil {
		return ff.CreateExecutionsResult{}, err
	}
	if len(out.Results) != len(c.Executions) {
		return ff.CreateExecutionsResult{}, ff.Errorf(ff.CodeTransport, "the server answered %d results for %d executions", len(out.Results), len(c.Executions))
	}
	got := ff.CreateExecutionsResult{Results: make([]ff.CreateExecutionResult, len(out.Results))}
	for i, s := range out.Results {
		// What a call of ours stored whose answer was lost is no duplicate.
		got.Results[i] = ff.CreateExecutionResult{ID: s.ExecutionID, State: s.State, Duplicate: s.Duplicate && s.ExecutionID != minted[i]}
	}
	return got, nil
}

// partitions asks the server once: a store never changes them.
func (r *Remote) partitions(ctx context.Context) (ff.PartitionConfig, error) {
	if known := r.c.partitions.Load(); known != nil {
		return *known, nil
	}
	info, err := r.Info(ctx)
	if err == nil {
		err = info.Partitions.Validate()
	}
	if err != nil {
		return ff.PartitionConfig{}, err
	}
	r.c.partitions.Store(&info.Partitions)
	return info.Partitions, nil
}

// Execution reads the record.
func (r *Remote) Execution(ctx context.Context, id ff.ExecutionID) (ff.Execution, error) {
	var out httpapi.Record
	err := r.c.do(ctx, call{method: "GET", path: executionPath(id, "/record"), out: &out})
	return out.Execution(), err
}

// ExecutionPayload reads the input.
func (r *Remote) ExecutionPayload(ctx context.Context, id ff.ExecutionID) (p ff.ExecutionPayload, err error) {
	err = r.c.do(ctx, call{method: "GET", path: executionPath(id, "/payload"), raw: func(h http.Header, data []byte) error {
		text := func(name string) string { s, _ := url.PathUnescape(h.Get(name)); return s }
		p = ff.ExecutionPayload{Payload: data, Kind: text(httpapi.HeaderKind), Encoding: text(httpapi.HeaderEncoding)}
		if len(data) == 0 {
			p.Payload = nil
		}
		return json.Unmarshal([]byte(text(httpapi.HeaderTags)), &p.Tags)
	}})
	return p, err
}

// ExecutionResult reads the result; nil when there is none.
func (r *Remote) ExecutionResult(ctx context.Context, id ff.ExecutionID) (result []byte, err error) {
	err = r.c.do(ctx, call{method: "GET", path: executionPath(id, "/result"), raw: func(_ http.Header, data []byte) error {
		result = data
		return nil
	}})
	if ff.CodeOf(err) != ff.CodeExecutionNotFound {
		return result, err
	}
	// Not found is also the answer for an execution without a result.
	_, err = r.Execution(ctx, id)
	return nil, err
}

// Attempts lists the attempts.
func (r *Remote) Attempts(ctx context.Context, id ff.ExecutionID) ([]ff.Attempt, error) {
	var out httpapi.Attempts
	if err := r.c.do(ctx, call{method: "GET", path: executionPath(id, "/attempts"), out: &out}); err != nil {
		return nil, err
	}
	attempts := make([]ff.Attempt, len(out.Attempts))
	for i := range out.Attempts {
		attempts[i] = out.Attempts[i].Attempt()
	}
	return attempts, nil
}

// CancelExecution ends an execution.
func (r *Remote) CancelExecution(ctx context.Context, c ff.CancelExecution) (ff.CancelExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.CancelExecutionResult{}, err
	}
	var out httpapi.CancelAnswer
	err := r.c.do(ctx, call{method: "POST", path: executionPath(c.ID, "/cancel-with"), body: httpapi.Cancel{Reason: c.Reason, Source: c.Source, Fence: c.Fence}, out: &out})
	return ff.CancelExecutionResult{State: out.State, Previous: out.Previous}, err
}

// ChangePriority moves a waiting execution.
func (r *Remote) ChangePriority(ctx context.Context, c ff.ChangePriority) (ff.ChangePriorityResult, error) {
	var out httpapi.PriorityAnswer
	p := min(max(c.Priority, -1), ff.MaxPriority+1) // what is clamped anyway fits the wire
	err := r.c.do(ctx, call{method: "POST", path: executionPath(c.ID, "/priority"), body: httpapi.ChangePriorityArgs{NewPriority: int32(p)}, out: &out})
	return ff.ChangePriorityResult{Old: out.Old, New: out.New}, err
}

// ReplayExecution starts a terminal execution again.
func (r *Remote) ReplayExecution(ctx context.Context, c ff.ReplayExecution) (ff.ReplayExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ReplayExecutionResult{}, err
	}
	var out httpapi.StateAnswer
	err := r.c.do(ctx, call{method: "POST", path: executionPath(c.ID, "/replay-with"), once: true,
		body: httpapi.ReplayWith{Reason: c.Reason, RequestedBy: c.RequestedBy, PayloadBase64: c.Payload}, out: &out})
	return ff.ReplayExecutionResult{State: out.State}, err
}

// SetExecutionTags adds tags.
func (r *Remote) SetExecutionTags(ctx context.Context, c ff.SetExecutionTags) (ff.SetExecutionTagsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.SetExecutionTagsResult{}, err
	}
	var out httpapi.SetTags
	err := r.c.do(ctx, call{method: "POST", path: executionPath(c.ID, "/tags"), body: httpapi.SetTags{Tags: c.Tags}, out: &out})
	return ff.SetExecutionTagsResult{Tags: out.Tags}, err
}

// pageQuery makes the query of a listing; empty values are left out.
func pageQuery(cursor string, limit int, pairs ...string) url.Values {
	q := url.Values{}
	pairs = append(pairs, "cursor", cursor)
	if limit != 0 {
		pairs = append(pairs, "limit", strconv.Itoa(limit))
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}

// ListExecutions lists executions.
func (r *Remote) ListExecutions(ctx context.Context, c ff.ListExecutions) (ff.ListExecutionsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ListExecutionsResult{}, err
	}
	order := ""
	if c.Oldest {
		order = "oldest"
	}
	var out httpapi.ExecutionPage
	q := pageQuery(c.Cursor, c.Limit, "lane", string(c.Lane), "state", string(c.State), "kind", c.Kind, "namespace", string(c.Namespace), "order", order)
	if err := r.c.do(ctx, call{method: "GET", path: "/v1/query/executions", query: q, out: &out}); err != nil {
		return ff.ListExecutionsResult{}, err
	}
	got := ff.ListExecutionsResult{Next: out.NextCursor, Executions: make([]ff.Execution, len(out.Executions))}
	for i := range out.Executions {
		got.Executions[i] = out.Executions[i].Execution()
	}
	return got, nil
}

// ListPartition lists the ids of one partition.
func (r *Remote) ListPartition(ctx context.Context, c ff.ListPartition) (ff.ListPartitionResult, error) {
	if c.Limit < 0 || c.Limit > ff.MaxPageLimit {
		return ff.ListPartitionResult{}, ff.InvalidInput("limit", "must be 1 to %d (got %d)", ff.MaxPageLimit, c.Limit)
	}
	var out httpapi.PartitionPage
	q := pageQuery(c.After.String(), c.Limit, "partition", strconv.Itoa(int(c.Partition)))
	if err := r.c.do(ctx, call{method: "GET", path: "/v1/executions", query: q, out: &out}); err != nil {
		return ff.ListPartitionResult{}, err
	}
	got := ff.ListPartitionResult{IDs: out.Executions}
	if out.NextCursor == nil {
		return got, nil
	}
	var err error
	got.Next, err = ff.ParseExecutionID(*out.NextCursor)
	return got, err
}

// Lanes lists the lanes.
func (r *Remote) Lanes(ctx context.Context) ([]ff.LaneStatus, error) {
	var out httpapi.Lanes
	if err := r.c.do(ctx, call{method: "GET", path: "/v1/lanes", out: &out}); err != nil {
		return nil, err
	}
	lanes := make([]ff.LaneStatus, len(out.Lanes))
	for i, l := range out.Lanes {
		lanes[i] = ff.LaneStatus{Lane: l.LaneID, Counts: l.Counts, Oldest: l.OldestAt.Time}
	}
	return lanes, nil
}

// Claim takes executions. The server waits for work for the caller.
func (r *Remote) Claim(ctx context.Context, c ff.Claim) (ff.ClaimResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ClaimResult{}, err
	}
	var out httpapi.ClaimAnswer
	err := r.c.do(ctx, call{method: "POST", path: "/v1/claims", once: true, wait: c.Wait, out: &out, body: httpapi.Claim{
		Claimant: httpapi.ClaimantOf(c.Claimant), Lanes: c.Lanes, Max: c.Max, LeaseTTLMS: httpapi.MillisOf(c.LeaseTTL), WaitMS: httpapi.MillisOf(c.Wait)}})
	if err != nil {
		return ff.ClaimResult{}, err
	}
	got := ff.ClaimResult{Now: out.Now.Time, Claimed: make([]ff.Claimed, len(out.Claimed))}
	for i := range out.Claimed {
		got.Claimed[i] = out.Claimed[i].Claimed()
	}
	return got, nil
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

// CompleteExecution ends an execution with success.
func (r *Remote) CompleteExecution(ctx context.Context, c ff.CompleteExecution) (ff.CompleteExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.CompleteExecutionResult{}, err
	}
	var out httpapi.Completed
	err := r.c.do(ctx, call{method: "POST", path: executionPath(c.ID, "/complete"), once: c.Fence.IsZero(), body: httpapi.Complete{Fence: c.Fence, ResultBase64: c.Result, Source: c.Source}, out: &out})
	return ff.CompleteExecutionResult{State: out.State, Repeated: out.Repeated}, err
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

// RegisterWorker announces a process.
func (r *Remote) RegisterWorker(ctx context.Context, c ff.RegisterWorker) (ff.RegisterWorkerResult, error) {
	if err := c.Validate(); err != nil {
		return ff.RegisterWorkerResult{}, err
	}
	var out httpapi.Registered
	err := r.c.do(ctx, call{method: "POST", path: "/v1/workers", once: c.Exclusive, out: &out, body: httpapi.Register{
		Claimant: httpapi.ClaimantOf(c.Claimant), Namespace: c.Namespace, Lanes: c.Lanes, LivenessTTLMS: httpapi.MillisOf(c.LivenessTTL), Exclusive: c.Exclusive}})
	return ff.RegisterWorkerResult{Refreshed: out.Refreshed, ExpiresAt: out.ExpiresAt.Time}, err
}

// HeartbeatWorker keeps a registration alive.
func (r *Remote) HeartbeatWorker(ctx context.Context, c ff.HeartbeatWorker) (ff.HeartbeatWorkerResult, error) {
	var out httpapi.HeartbeatAnswer
	err := r.c.do(ctx, call{method: "POST", path: "/v1/workers/heartbeat", body: httpapi.Heartbeat{Namespace: c.Namespace, InstanceID: c.Instance}, out: &out})
	return ff.HeartbeatWorkerResult{Registered: out.Registered, ExpiresAt: out.ExpiresAt.Time}, err
}

// MarkWorkerDead removes a registration.
func (r *Remote) MarkWorkerDead(ctx context.Context, c ff.MarkWorkerDead) (ff.MarkWorkerDeadResult, error) {
	if err := c.Validate(); err != nil {
		return ff.MarkWorkerDeadResult{}, err
	}
	var out httpapi.MarkDeadAnswer
	err := r.c.do(ctx, call{method: "POST", path: "/v1/workers/mark-dead", body: httpapi.MarkDead{Namespace: c.Namespace, InstanceID: c.Instance, Reason: c.Reason}, out: &out})
	return ff.MarkWorkerDeadResult{Marked: out.Marked}, err
}

// ListWorkers lists live workers.
func (r *Remote) ListWorkers(ctx context.Context, c ff.ListWorkers) (ff.ListWorkersResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ListWorkersResult{}, err
	}
	q := pageQuery(c.Cursor, c.Limit)
	if !c.AllNamespaces {
		q.Set("namespace", string(c.Namespace))
	}
	var out httpapi.Workers
	if err := r.c.do(ctx, call{method: "GET", path: "/v1/workers", query: q, out: &out}); err != nil {
		return ff.ListWorkersResult{}, err
	}
	got := ff.ListWorkersResult{Next: out.NextCursor, Workers: make([]ff.WorkerInfo, len(out.Workers))}
	for i := range out.Workers {
		got.Workers[i] = out.Workers[i].Worker()
	}
	return got, nil
}

// ReadEvents reads the event log. The server waits for events for the caller.
func (r *Remote) ReadEvents(ctx context.Context, c ff.ReadEvents) (ff.ReadEventsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ReadEventsResult{}, err
	}
	q := pageQuery("", c.Limit, "after", string(c.After), "execution_id", c.ID.String(), "family", string(c.Family))
	if c.Wait > 0 {
		q.Set("wait_ms", strconv.FormatInt(c.Wait.Milliseconds(), 10))
	}
	var out httpapi.EventPage
	if err := r.c.do(ctx, call{method: "GET", path: "/v1/events", query: q, wait: c.Wait, out: &out}); err != nil {
		return ff.ReadEventsResult{}, err
	}
	got := ff.ReadEventsResult{Next: out.NextCursor, Events: make([]ff.Event, len(out.Events))}
	for i := range out.Events {
		got.Events[i] = out.Events[i].Event()
	}
	return got, nil
}

// Sweep does what is due of one kind. The server's own engine does it anyway.
func (r *Remote) Sweep(ctx context.Context, c ff.Sweep) (ff.SweepResult, error) {
	var out httpapi.Swept
	err := r.c.do(ctx, call{method: "POST", path: "/v1/admin/sweep", body: httpapi.Sweep{Kind: c.Kind, Limit: c.Limit}, out: &out})
	return ff.SweepResult{Processed: out.Processed, Errors: out.Errors, More: out.More, Next: out.Next.Time, Now: out.Now.Time}, err
}

// WatchDue cannot tell: an engine over a server polls.
func (r *Remote) WatchDue(ff.SweepKind) (due <-chan struct{}, stop func()) { return nil, func() {} }

// Ping checks that the server and its store answer.
func (r *Remote) Ping(ctx context.Context) error {
	return r.c.do(ctx, call{method: "GET", path: "/healthz"})
}

// Info describes the server's store.
func (r *Remote) Info(ctx context.Context) (info ff.Info, err error) {
	err = r.c.do(ctx, call{method: "GET", path: "/v1/info", out: &info})
	return info, err
}

// Now is the clock of the server's store.
func (r *Remote) Now(ctx context.Context) (time.Time, error) {
	var out httpapi.Now
	err := r.c.do(ctx, call{method: "GET", path: "/v1/time", out: &out})
	return out.Now.Time, err
}

// Close closes the client.
func (r *Remote) Close() error { return r.c.Close() }
