package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

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
