package server

import (
	"errors"
	"net/http"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// referenceRoutes are the endpoints of the reference for executions, workers and
// health: same paths, bodies and statuses (spec 08 §3). A refusal by the rules
// is a typed 4xx.
func referenceRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/executions", id: "list-partition", tag: "reference", summary: "List the execution ids of one partition", textErrors: true,
			query: []param{{name: "partition", doc: "Index of the partition", number: true, required: true, max: 65535},
				{name: "cursor", doc: "Execution id after which to go on"}, {name: "limit", doc: "Page size; more than 1000 means 1000", number: true}},
			answers: map[int]any{200: httpapi.PartitionPage{}}, serve: (*Server).listPartition},
		{method: "POST", path: "/v1/executions", id: "create-execution", tag: "reference", summary: "Submit an execution with an id of one's own", limit: limitCreate,
			body: httpapi.CreateExecutionArgs{}, required: httpapi.CreateExecutionRequired, answers: map[int]any{201: httpapi.CreateExecutionAnswer{}, 200: httpapi.CreateExecutionAnswer{}}, serve: (*Server).createExecution},
		{method: "GET", path: "/v1/executions/{id}", id: "get-execution", tag: "reference", summary: "Read an execution",
			answers: map[int]any{200: httpapi.ExecutionInfo{}}, serve: (*Server).getExecution},
		{method: "GET", path: "/v1/executions/{id}/state", id: "get-execution-state", tag: "reference", summary: "Read the public state of an execution",
			answers: map[int]any{200: ff.StateWaiting}, serve: (*Server).getState},
		{method: "GET", path: "/v1/executions/{id}/result", id: "get-execution-result", tag: "reference", summary: "Read the result of an execution as raw bytes",
			answers: map[int]any{200: octets}, serve: (*Server).getResult},
		{method: "POST", path: "/v1/executions/{id}/cancel", id: "cancel-execution", tag: "reference", summary: "Cancel an execution", limit: limitControl,
			body: httpapi.CancelExecutionArgs{}, required: []string{"execution_id", "reason", "now"}, answers: map[int]any{200: httpapi.CancelExecutionAnswer{}}, serve: (*Server).cancelExecution},
		{method: "PUT", path: "/v1/executions/{id}/priority", id: "change-priority", tag: "reference", summary: "Change the priority of a waiting execution", limit: limitControl,
			body: httpapi.ChangePriorityArgs{}, required: []string{"new_priority"}, answers: map[int]any{200: httpapi.ChangePriorityAnswer{}}, serve: (*Server).changePriority},
		{method: "POST", path: "/v1/executions/{id}/replay", id: "replay-execution", tag: "reference", summary: "Start a terminal execution again", limit: limitControl,
			answers: map[int]any{200: httpapi.ReplayExecutionAnswer{}}, serve: (*Server).replayExecution},
		{method: "POST", path: "/v1/executions/{id}/revoke-lease", id: "revoke-lease", tag: "reference", summary: "Take the lease away from a worker", unchecked: true, limit: limitControl,
			answers: map[int]any{200: httpapi.RevokeLeaseAnswer{}}, serve: (*Server).revokeLease},
		{method: "POST", path: "/v1/executions/{id}/reclaim", id: "grant-reclaim", tag: "reference", summary: "Reserve an execution whose lease was lost", limit: limitControl,
			body: httpapi.GrantReclaimArgs{}, required: []string{"worker_id", "worker_instance_id", "lane_id", "grant_ttl_ms"}, answers: map[int]any{200: httpapi.GrantReclaimAnswer{}}, serve: (*Server).grantReclaim},
		{method: "POST", path: "/v1/workers/{worker_id}/claim", id: "grant-claim", tag: "reference", summary: "Reserve the next execution of a lane for a worker", limit: limitControl,
			body: httpapi.GrantArgs{}, required: []string{"lane_id", "worker_instance_id", "grant_ttl_ms"}, answers: map[int]any{200: httpapi.GrantAnswer{}, 204: nil}, serve: (*Server).grantClaim},
		{method: "GET", path: "/healthz", id: "health", tag: "health", summary: "Check that the store answers", answers: map[int]any{200: httpapi.Status{}}, serve: (*Server).health},
	}
}

// media stands for an answer that is not JSON of ours: its content type.
type media string

const octets media = "application/octet-stream"

// maxPartitionPage is the largest page of list-partition; larger limits are cut.
const maxPartitionPage = 1000

func (s *Server) listPartition(r *request) (answer, error) {
	q := r.query()
	partition := q.number("partition", -1, 65535)
	limit := q.number("limit", ff.DefaultPageLimit, 1<<62)
	cursor := q.text("cursor")
	if q.err == nil && partition < 0 {
		q.err = ff.InvalidInput("partition", "is missing; it must be 0 to 65535")
	}
	if q.err != nil {
		return plainRefusal("Failed to deserialize query string: " + q.err.Error())
	}
	c := ff.ListPartition{Partition: uint16(partition), Limit: int(min(limit, maxPartitionPage))}
	if cursor != "" {
		after, err := ff.ParseExecutionID(cursor)
		if err != nil {
			return answer{}, ff.InvalidInput("cursor", "invalid cursor: %w", err)
		}
		c.After = after
	}
	page := httpapi.PartitionPage{Executions: []ff.ExecutionID{}}
	if c.Limit == 0 {
		return ok(page)
	}
	got, err := s.store.ListPartition(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	page.Executions = append(page.Executions, got.IDs...)
	if !got.Next.IsZero() {
		next := got.Next.String()
		page.NextCursor = &next
	}
	return ok(page)
}

func (s *Server) createExecution(r *request) (answer, error) {
	args, err := decode[httpapi.CreateExecutionArgs](r)
	if err != nil {
		return answer{}, err
	}
	c, err := args.Command()
	if err != nil {
		return answer{}, err
	}
	got, err := s.store.CreateExecution(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	return createdOr(got.Duplicate, httpapi.CreateExecutionAnswerOf(got))
}

// lookUp reads the execution of the path.
func (s *Server) lookUp(r *request) (*ff.Execution, error) {
	id, err := r.executionID()
	if err != nil {
		return nil, err
	}
	x, err := s.store.Execution(r.Context(), id)
	return &x, err
}

func (s *Server) getExecution(r *request) (answer, error) {
	x, err := s.lookUp(r)
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.ExecutionInfoOf(x))
}

func (s *Server) getState(r *request) (answer, error) {
	x, err := s.lookUp(r)
	if err != nil {
		return answer{}, err
	}
	return ok(x.PublicState())
}

func (s *Server) getResult(r *request) (answer, error) {
	id, err := r.executionID()
	if err != nil {
		return answer{}, err
	}
	result, err := s.store.ExecutionResult(r.Context(), id)
	if err != nil && !errors.Is(err, ff.ErrExecutionNotFound) {
		return answer{}, err
	}
	if err != nil || len(result) == 0 {
		return answer{status: http.StatusNotFound, json: ff.PublicError{
			Error: "execution result not found: " + id.String(), Code: string(ff.CodeExecutionNotFound)}}, nil
	}
	return answer{status: http.StatusOK, raw: result, contentType: "application/octet-stream"}, nil
}

func (s *Server) cancelExecution(r *request) (answer, error) {
	args, err := decode[httpapi.CancelExecutionArgs](r)
	if err != nil {
		return answer{}, err
	}
	id, err := r.sameExecutionID(args.ExecutionID)
	if err != nil {
		return answer{}, err
	}
	c := ff.CancelExecution{ID: id, Reason: args.Reason, Source: ff.SourceOperatorOverride}
	if args.Source != nil {
		c.Source = ff.CancelSource(*args.Source)
	}
	if !args.LeaseID.IsZero() && c.Source != ff.SourceOperatorOverride {
		x, err := s.store.Execution(r.Context(), id)
		if err != nil {
			return answer{}, err
		}
		// The reference does not look at the attempt (spec 08 §3.6): the one in
		// progress is meant when none is named.
		c.Fence = ff.Fence{LeaseID: args.LeaseID, AttemptID: args.AttemptID}
		if args.LeaseEpoch != nil {
			c.Fence.LeaseEpoch = *args.LeaseEpoch
		}
		if c.Fence.AttemptID.IsZero() {
			c.Fence.AttemptID = x.CurrentAttemptID
		}
	}
	got, err := s.store.CancelExecution(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.CancelExecutionAnswer{Cancelled: httpapi.Created{ExecutionID: id, PublicState: got.State}})
}

func (s *Server) changePriority(r *request) (answer, error) {
	args, err := decode[httpapi.ChangePriorityArgs](r)
	if err != nil {
		return answer{}, err
	}
	id, err := r.executionID()
	if err != nil {
		return answer{}, err
	}
	if _, err := s.store.ChangePriority(r.Context(), ff.ChangePriority{ID: id, Priority: int(args.NewPriority)}); err != nil {
		return answer{}, err
	}
	return ok(httpapi.ChangePriorityAnswer{Changed: httpapi.Duplicate{ExecutionID: id}})
}

func (s *Server) replayExecution(r *request) (answer, error) {
	id, err := r.executionID()
	if err != nil {
		return answer{}, err
	}
	got, err := s.store.ReplayExecution(r.Context(), ff.ReplayExecution{ID: id})
	if err != nil {
		return answer{}, err
	}
	var a httpapi.ReplayExecutionAnswer
	a.Replayed.PublicState = got.State
	return ok(a)
}

// revokeLease answers 200 also when there is no lease or no such execution, as
// the reference does.
func (s *Server) revokeLease(r *request) (answer, error) {
	id, err := r.executionID()
	if err != nil {
		return answer{}, err
	}
	got, err := s.store.RevokeLease(r.Context(), ff.RevokeLease{ID: id, Reason: "operator_revoke"})
	if errors.Is(err, ff.ErrExecutionNotFound) {
		got, err = ff.RevokeLeaseResult{Already: "no_active_lease"}, nil
	}
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.RevokeLeaseAnswerOf(got))
}

func (s *Server) grantReclaim(r *request) (answer, error) {
	args, err := decode[httpapi.GrantReclaimArgs](r)
	if err != nil {
		return answer{}, err
	}
	id, err := r.executionID()
	if err != nil {
		return answer{}, err
	}
	c := ff.GrantReclaim{ID: id, Claimant: ff.Claimant{Worker: ff.WorkerID(args.WorkerID), Instance: ff.WorkerInstanceID(args.WorkerInstanceID)}}
	if err := c.Claimant.Validate(); err != nil {
		return answer{}, err
	}
	lane, err := ff.ParseLaneID(args.LaneID)
	if err != nil {
		return answer{}, err
	}
	if c.TTL, err = grantTTL(args.GrantTTLMS); err != nil {
		return answer{}, err
	}
	if c.Capabilities, err = ff.NewCapabilitySet(args.WorkerCapabilities...); err != nil {
		return answer{}, err
	}
	c.Capability, c.RouteJSON, c.AdmissionSum = text(args.CapabilityHash), text(args.RouteSnapshotJSON), text(args.AdmissionSummary)
	got, err := s.claims.GrantReclaim(r.Context(), c)
	switch code := ff.CodeOf(err); code {
	case "":
		g := httpapi.GrantAnswerOf(got)
		return ok(httpapi.GrantReclaimAnswer{Status: "granted", ExecutionID: id, PartitionKey: g.PartitionKey, GrantKey: g.GrantKey, ExpiresAtMS: g.ExpiresAtMS, LaneID: lane})
	case ff.CodeExecutionNotReclaimable:
		return ok(httpapi.GrantReclaimAnswer{Status: "not_reclaimable", ExecutionID: id, Detail: string(code)})
	case ff.CodeCapabilityMismatch:
		e, _ := ff.AsError(err)
		return ok(httpapi.GrantReclaimAnswer{Status: "not_reclaimable", ExecutionID: id, Detail: string(code) + ": " + e.Detail})
	}
	return answer{}, err
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func grantTTL(ms uint64) (time.Duration, error) {
	if limit := uint64(ff.MaxGrantTTL.Milliseconds()); ms < 1 || ms > limit {
		return 0, ff.InvalidInput("grant_ttl_ms", "grant_ttl_ms must be in 1..=%d (got %d)", limit, ms)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

func (s *Server) grantClaim(r *request) (answer, error) {
	args, err := decode[httpapi.GrantArgs](r)
	if err != nil {
		return answer{}, err
	}
	c := ff.GrantNext{Claimant: ff.Claimant{Worker: ff.WorkerID(r.PathValue("worker_id")), Instance: ff.WorkerInstanceID(args.WorkerInstanceID)}}
	if err := c.Claimant.Validate(); err != nil {
		return answer{}, err
	}
	if c.Lane, err = ff.ParseLaneID(args.LaneID); err != nil {
		return answer{}, err
	}
	if c.TTL, err = grantTTL(args.GrantTTLMS); err != nil {
		return answer{}, err
	}
	if c.Capabilities, err = ff.NewCapabilitySet(args.Capabilities...); err != nil {
		return answer{}, err
	}
	got, err := s.claims.GrantNext(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	if got.ID.IsZero() {
		return answer{status: http.StatusNoContent}, nil
	}
	return ok(httpapi.GrantAnswerOf(got))
}

func (s *Server) health(r *request) (answer, error) {
	if err := s.store.Ping(r.Context()); err != nil {
		return answer{}, err
	}
	return ok(httpapi.Status{Status: "ok"})
}
