package server

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// apiRoutes are the endpoints that the reference does not have: for people, and
// for workers and stores on other machines. Unknown fields in their bodies are
// refused, so that a misspelt option is not lost.
func apiRoutes() []route {
	page := []param{{name: "cursor", doc: "Where the last page ended"}, {name: "limit", doc: "Page size", number: true, max: ff.MaxPageLimit}}
	return []route{
		{method: "POST", path: "/v1/lanes/{lane}/executions", id: "submit", tag: "people", summary: "Submit an execution to a lane", limit: limitPayload,
			body: httpapi.Submit{}, required: []string{"kind"}, answers: map[int]any{201: httpapi.Submitted{}, 200: httpapi.Submitted{}}, serve: (*Server).submit},
		{method: "POST", path: "/v1/lanes/{lane}/executions/batch", id: "submit-batch", tag: "people", summary: "Submit many executions to a lane, all or none", limit: limitBatch,
			body: httpapi.SubmitBatch{}, required: []string{"executions"}, answers: map[int]any{201: httpapi.SubmittedBatch{}}, serve: (*Server).submitBatch},
		{method: "GET", path: "/v1/lanes", id: "lanes", tag: "people", summary: "List the lanes with their executions counted by state", answers: map[int]any{200: httpapi.Lanes{}}, serve: (*Server).lanes},
		{method: "GET", path: "/v1/query/executions", id: "list-executions", tag: "people", summary: "List executions by lane, state, kind and namespace",
			query: append([]param{{name: "lane", doc: "Lane id", max: ff.MaxLaneIDBytes}, {name: "state", doc: "Public state", enum: states()}, {name: "kind", doc: "Execution kind", max: ff.MaxKindBytes},
				{name: "namespace", doc: "Namespace", max: ff.MaxIdentifierBytes}, {name: "order", doc: "Newest (default) or oldest first", enum: []any{"newest", "oldest"}}}, page...),
			answers: map[int]any{200: httpapi.ExecutionPage{}}, serve: (*Server).listExecutions},
		{method: "GET", path: "/v1/executions/{id}/record", id: "get-record", tag: "people", summary: "Read everything about an execution", answers: map[int]any{200: httpapi.Record{}}, serve: (*Server).getRecord},
		{method: "GET", path: "/v1/executions/{id}/payload", id: "get-payload", tag: "people", summary: "Read the input of an execution as raw bytes", answers: map[int]any{200: octets}, serve: (*Server).getPayload},
		{method: "GET", path: "/v1/executions/{id}/attempts", id: "get-attempts", tag: "people", summary: "List the attempts of an execution", answers: map[int]any{200: httpapi.Attempts{}}, serve: (*Server).getAttempts},
		{method: "POST", path: "/v1/executions/{id}/cancel-with", id: "cancel-with", tag: "people", summary: "Cancel an execution, as an operator or as the holder of its lease", limit: limitControl,
			body: httpapi.Cancel{}, answers: map[int]any{200: httpapi.CancelAnswer{}}, serve: (*Server).cancelWith},
		{method: "POST", path: "/v1/executions/{id}/replay-with", id: "replay-with", tag: "people", summary: "Start a terminal execution again, perhaps with another input", limit: limitPayload,
			body: httpapi.ReplayWith{}, answers: map[int]any{200: httpapi.StateAnswer{}}, serve: (*Server).replayWith},
		{method: "POST", path: "/v1/executions/{id}/priority", id: "change-priority-with", tag: "people", summary: "Change the priority and read both", limit: limitControl,
			body: httpapi.ChangePriorityArgs{}, required: []string{"new_priority"}, answers: map[int]any{200: httpapi.PriorityAnswer{}}, serve: (*Server).changePriorityWith},
		{method: "POST", path: "/v1/executions/{id}/tags", id: "set-tags", tag: "people", summary: "Add tags", limit: limitControl << 2,
			body: httpapi.SetTags{}, required: []string{"tags"}, answers: map[int]any{200: httpapi.SetTags{}}, serve: (*Server).setTags},
		{method: "POST", path: "/v1/executions/{id}/revoke-with", id: "revoke-with", tag: "people", summary: "Take a certain lease away", limit: limitControl,
			body: httpapi.Revoke{}, answers: map[int]any{200: httpapi.RevokeAnswer{}}, serve: (*Server).revokeWith},
		{method: "GET", path: "/v1/events", id: "events", tag: "people", summary: "Read the event log, waiting for new events when asked to", wait: true,
			query: []param{{name: "after", doc: "Cursor after which to go on"}, {name: "execution_id", doc: "Only events of this execution"},
				{name: "family", doc: "Only this family", enum: []any{"lease", "completion"}}, {name: "limit", doc: "Page size", number: true, max: ff.MaxPageLimit},
				{name: "wait_ms", doc: "Longest time to wait for an event", number: true, max: int(ff.MaxClaimWait.Milliseconds())}},
			answers: map[int]any{200: httpapi.EventPage{}}, serve: (*Server).events},
		{method: "GET", path: "/v1/info", id: "info", tag: "people", summary: "Describe the store", answers: map[int]any{200: ff.Info{}}, serve: (*Server).info},
		{method: "GET", path: "/v1/time", id: "time", tag: "people", summary: "Read the clock of the store", answers: map[int]any{200: httpapi.Now{}}, serve: (*Server).now},
		{method: "GET", path: "/livez", id: "live", tag: "health", summary: "Check that the process answers", answers: map[int]any{200: httpapi.Status{}}, serve: (*Server).live},

		{method: "POST", path: "/v1/executions/create-many", id: "create-many", tag: "workers", summary: "Submit executions to any lanes, all or none", limit: limitBatch,
			body: httpapi.CreateMany{}, required: []string{"executions"}, answers: map[int]any{201: httpapi.SubmittedBatch{}}, serve: (*Server).createMany},
		{method: "POST", path: "/v1/claims", id: "claim", tag: "workers", summary: "Claim executions, waiting for work when asked to", limit: limitControl, wait: true,
			body: httpapi.Claim{}, required: []string{"worker_id", "worker_instance_id", "lanes"}, answers: map[int]any{200: httpapi.ClaimAnswer{}}, serve: (*Server).claim},
		{method: "POST", path: "/v1/claims/grant", id: "grant-next", tag: "workers", summary: "Reserve the next execution of a lane", limit: limitControl,
			body: httpapi.GrantNext{}, required: []string{"worker_id", "worker_instance_id", "lane_id", "grant_ttl_ms"}, answers: map[int]any{200: httpapi.Granted{}}, serve: (*Server).grantNext},
		{method: "POST", path: "/v1/claims/grant-reclaim", id: "grant-reclaim-with", tag: "workers", summary: "Reserve an execution whose lease was lost", limit: limitControl,
			body: httpapi.GrantReclaim{}, required: []string{"worker_id", "worker_instance_id", "execution_id", "grant_ttl_ms"}, answers: map[int]any{200: httpapi.Granted{}}, serve: (*Server).grantReclaimWith},
		{method: "POST", path: "/v1/claims/granted", id: "claim-granted", tag: "workers", summary: "Turn a grant into a lease", limit: limitControl,
			body: httpapi.ClaimGranted{}, required: []string{"worker_id", "worker_instance_id", "execution_id"}, answers: map[int]any{200: httpapi.ClaimAnswer{}}, serve: (*Server).claimGranted},
		{method: "POST", path: "/v1/leases/renew", id: "renew-leases", tag: "workers", summary: "Renew many leases", limit: limitControl << 4,
			body: httpapi.Renew{}, required: []string{"leases", "lease_ttl_ms"}, answers: map[int]any{200: httpapi.Renewed{}}, serve: (*Server).renewLeases},
		{method: "POST", path: "/v1/leases/release", id: "release-leases", tag: "workers", summary: "Hand executions back", limit: limitControl << 4,
			body: httpapi.Release{}, required: []string{"leases"}, answers: map[int]any{200: httpapi.Released{}}, serve: (*Server).releaseLeases},
		{method: "GET", path: "/v1/leases/expired", id: "expired-leases", tag: "workers", summary: "List leases that have lapsed and that nobody took over",
			query:   append([]param{{name: "as_of", doc: "Instant in milliseconds since 1970; now when absent", number: true}}, page...),
			answers: map[int]any{200: httpapi.ExpiredLeases{}}, serve: (*Server).expiredLeases},
		{method: "POST", path: "/v1/executions/{id}/progress", id: "progress", tag: "workers", summary: "Store how far an attempt is", limit: limitControl,
			body: httpapi.Progress{}, required: []string{"fence"}, answers: map[int]any{204: nil}, serve: (*Server).progress},
		{method: "POST", path: "/v1/executions/{id}/complete", id: "complete", tag: "workers", summary: "Complete an execution", limit: limitPayload,
			body: httpapi.Complete{}, answers: map[int]any{200: httpapi.Completed{}}, serve: (*Server).complete},
		{method: "POST", path: "/v1/executions/{id}/fail", id: "fail", tag: "workers", summary: "Fail an attempt", limit: limitControl,
			body: httpapi.Fail{}, answers: map[int]any{200: httpapi.Failed{}}, serve: (*Server).fail},
		{method: "POST", path: "/v1/executions/{id}/delay", id: "delay", tag: "workers", summary: "Park an execution until a time", limit: limitControl,
			body: httpapi.Delay{}, answers: map[int]any{200: httpapi.Delayed{}}, serve: (*Server).delay},
		{method: "POST", path: "/v1/workers", id: "register-worker", tag: "workers", summary: "Announce a worker process", limit: limitControl,
			body: httpapi.Register{}, required: []string{"worker_id", "worker_instance_id", "liveness_ttl_ms"}, answers: map[int]any{200: httpapi.Registered{}}, serve: (*Server).registerWorker},
		{method: "POST", path: "/v1/workers/heartbeat", id: "heartbeat-worker", tag: "workers", summary: "Keep a registration alive", limit: limitControl,
			body: httpapi.Heartbeat{}, required: []string{"worker_instance_id"}, answers: map[int]any{200: httpapi.HeartbeatAnswer{}}, serve: (*Server).heartbeat},
		{method: "POST", path: "/v1/workers/mark-dead", id: "mark-worker-dead", tag: "workers", summary: "Remove a registration", limit: limitControl,
			body: httpapi.MarkDead{}, required: []string{"worker_instance_id"}, answers: map[int]any{200: httpapi.MarkDeadAnswer{}}, serve: (*Server).markDead},
		{method: "GET", path: "/v1/workers", id: "list-workers", tag: "workers", summary: "List live worker processes",
			query:   append([]param{{name: "namespace", doc: "Only this namespace; all when absent"}}, page...),
			answers: map[int]any{200: httpapi.Workers{}}, serve: (*Server).listWorkers},
		{method: "POST", path: "/v1/admin/sweep", id: "sweep", tag: "workers", summary: "Do what is due of one kind now", limit: limitControl,
			body: httpapi.Sweep{}, required: []string{"kind"}, answers: map[int]any{200: httpapi.Swept{}}, serve: (*Server).sweep},
	}
}

func states() []any {
	list := make([]any, len(ff.PublicStates))
	for i, st := range ff.PublicStates {
		list[i] = string(st)
	}
	return list
}

// polling is the context of a long poll: it also ends when the server stops.
func (s *Server) polling(r *request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(s.stopping, cancel)
	return ctx, func() { stop(); cancel() }
}

func (s *Server) submit(r *request) (answer, error) {
	b, err := decode[httpapi.Submit](r)
	if err != nil {
		return answer{}, err
	}
	lane, err := ff.ParseLaneID(r.PathValue("lane"))
	if err != nil {
		return answer{}, err
	}
	c, err := b.Command(lane)
	if err != nil {
		return answer{}, err
	}
	got, err := s.store.CreateExecution(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	return createdOr(got.Duplicate, httpapi.Submitted{ExecutionID: got.ID, State: got.State, Duplicate: got.Duplicate})
}

func (s *Server) submitBatch(r *request) (answer, error) {
	b, err := decode[httpapi.SubmitBatch](r)
	if err != nil {
		return answer{}, err
	}
	lane, err := ff.ParseLaneID(r.PathValue("lane"))
	if err != nil {
		return answer{}, err
	}
	items := make([]httpapi.CreateItem, len(b.Executions))
	for i := range b.Executions {
		items[i] = httpapi.CreateItem{LaneID: lane, Submit: b.Executions[i]}
	}
	return s.createAll(r, items)
}

func (s *Server) createMany(r *request) (answer, error) {
	b, err := decode[httpapi.CreateMany](r)
	if err != nil {
		return answer{}, err
	}
	return s.createAll(r, b.Executions)
}

func (s *Server) createAll(r *request, items []httpapi.CreateItem) (answer, error) {
	c := ff.CreateExecutions{Executions: make([]ff.CreateExecution, len(items))}
	for i := range items {
		one, err := items[i].Command(items[i].LaneID)
		if err != nil {
			return answer{}, ff.AtItem("executions", i, err)
		}
		c.Executions[i] = one
	}
	got, err := s.store.CreateExecutions(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	out := httpapi.SubmittedBatch{Results: make([]httpapi.Submitted, len(got.Results))}
	for i, one := range got.Results {
		out.Results[i] = httpapi.Submitted{ExecutionID: one.ID, State: one.State, Duplicate: one.Duplicate}
	}
	return created(out)
}

func (s *Server) lanes(r *request) (answer, error) {
	lanes, err := s.store.Lanes(r.Context())
	if err != nil {
		return answer{}, err
	}
	out := httpapi.Lanes{Lanes: make([]httpapi.Lane, len(lanes))}
	for i, l := range lanes {
		out.Lanes[i] = httpapi.Lane{LaneID: l.Lane, Counts: l.Counts, OldestAt: httpapi.At(l.Oldest)}
	}
	return ok(out)
}

func (s *Server) listExecutions(r *request) (answer, error) {
	q := r.query()
	c := ff.ListExecutions{
		Lane: ff.LaneID(q.text("lane")), State: ff.PublicState(q.text("state")), Kind: q.text("kind"),
		Namespace: ff.Namespace(q.text("namespace")), Cursor: q.text("cursor"), Limit: int(q.number("limit", 0, ff.MaxPageLimit)),
	}
	switch order := q.text("order"); order {
	case "", "newest":
	case "oldest":
		c.Oldest = true
	default:
		return answer{}, ff.InvalidInput("order", "must be newest or oldest (got %.40q)", order)
	}
	if q.err == nil && c.State != "" {
		_, q.err = ff.ParsePublicState(string(c.State))
	}
	if q.err != nil {
		return answer{}, q.err
	}
	got, err := s.store.ListExecutions(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	out := httpapi.ExecutionPage{Executions: make([]httpapi.Record, len(got.Executions)), NextCursor: got.Next}
	for i := range got.Executions {
		out.Executions[i] = httpapi.RecordOf(&got.Executions[i])
	}
	return ok(out)
}

func (s *Server) getRecord(r *request) (answer, error) {
	x, err := s.lookUp(r)
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.RecordOf(x))
}

func (s *Server) getPayload(r *request) (answer, error) {
	id, err := r.executionID()
	if err != nil {
		return answer{}, err
	}
	p, err := s.store.ExecutionPayload(r.Context(), id)
	if err != nil {
		return answer{}, err
	}
	tags, err := json.Marshal(p.Tags)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: http.StatusOK, raw: p.Payload, contentType: "application/octet-stream", header: http.Header{
		http.CanonicalHeaderKey(httpapi.HeaderKind):     {httpapi.Escape(p.Kind)},
		http.CanonicalHeaderKey(httpapi.HeaderEncoding): {httpapi.Escape(p.Encoding)},
		http.CanonicalHeaderKey(httpapi.HeaderTags):     {httpapi.Escape(string(tags))},
	}}
	if p.Encoding == "json" && json.Valid(p.Payload) {
		a.contentType = "application/json"
	}
	return a, nil
}

func (s *Server) getAttempts(r *request) (answer, error) {
	id, err := r.executionID()
	if err != nil {
		return answer{}, err
	}
	attempts, err := s.store.Attempts(r.Context(), id)
	if err != nil {
		return answer{}, err
	}
	out := httpapi.Attempts{Attempts: make([]httpapi.Attempt, len(attempts))}
	for i := range attempts {
		out.Attempts[i] = httpapi.AttemptOf(&attempts[i])
	}
	return ok(out)
}

// withID decodes a body of our own and reads the id of the path.
func withID[B any](r *request) (b B, id ff.ExecutionID, err error) {
	if b, err = decode[B](r); err == nil {
		id, err = r.executionID()
	}
	return b, id, err
}

func (s *Server) cancelWith(r *request) (answer, error) {
	b, id, err := withID[httpapi.Cancel](r)
	if err != nil {
		return answer{}, err
	}
	got, err := s.store.CancelExecution(r.Context(), ff.CancelExecution{ID: id, Reason: b.Reason, Source: b.Source, Fence: b.Fence})
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.CancelAnswer{State: got.State, Previous: got.Previous})
}

func (s *Server) replayWith(r *request) (answer, error) {
	b, id, err := withID[httpapi.ReplayWith](r)
	if err != nil {
		return answer{}, err
	}
	c := ff.ReplayExecution{ID: id, Reason: b.Reason, RequestedBy: b.RequestedBy, Payload: b.PayloadBase64}
	if b.Payload != nil {
		if b.PayloadBase64 != nil {
			return answer{}, ff.InvalidInput("payload", "give either payload or payload_base64, not both")
		}
		c.Payload = b.Payload
	}
	got, err := s.store.ReplayExecution(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.StateAnswer{State: got.State})
}

func (s *Server) changePriorityWith(r *request) (answer, error) {
	b, id, err := withID[httpapi.ChangePriorityArgs](r)
	if err != nil {
		return answer{}, err
	}
	got, err := s.store.ChangePriority(r.Context(), ff.ChangePriority{ID: id, Priority: int(b.NewPriority)})
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.PriorityAnswer{Old: got.Old, New: got.New})
}

func (s *Server) setTags(r *request) (answer, error) {
	b, id, err := withID[httpapi.SetTags](r)
	if err != nil {
		return answer{}, err
	}
	got, err := s.store.SetExecutionTags(r.Context(), ff.SetExecutionTags{ID: id, Tags: b.Tags})
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.SetTags{Tags: got.Tags})
}

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

func (s *Server) events(r *request) (answer, error) {
	q := r.query()
	c := ff.ReadEvents{
		After: ff.EventCursor(q.text("after")), Family: ff.EventFamily(q.text("family")), Limit: int(q.number("limit", 0, ff.MaxPageLimit)),
		Wait: time.Duration(q.number("wait_ms", 0, ff.MaxClaimWait.Milliseconds())) * time.Millisecond,
	}
	if id := q.text("execution_id"); id != "" && q.err == nil {
		c.ID, q.err = ff.ParseExecutionID(id)
	}
	if q.err == nil && c.Family != "" && c.Family != ff.FamilyLease && c.Family != ff.FamilyCompletion {
		q.err = ff.InvalidInput("family", "must be lease or completion (got %.40q)", string(c.Family))
	}
	if q.err != nil {
		return answer{}, q.err
	}
	ctx, cancel := s.polling(r)
	defer cancel()
	got, err := s.store.ReadEvents(ctx, c)
	if err != nil && ctx.Err() != nil {
		got, err = ff.ReadEventsResult{Next: c.After}, nil
	}
	if err != nil {
		return answer{}, err
	}
	out := httpapi.EventPage{Events: make([]httpapi.Event, len(got.Events)), NextCursor: got.Next}
	for i, e := range got.Events {
		out.Events[i] = httpapi.EventOf(e)
	}
	return ok(out)
}

func (s *Server) info(r *request) (answer, error) {
	info, err := s.store.Info(r.Context())
	if err != nil {
		return answer{}, err
	}
	return ok(info)
}

func (s *Server) now(r *request) (answer, error) {
	now, err := s.store.Now(r.Context())
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.Now{Now: httpapi.At(now)})
}

func (s *Server) live(*request) (answer, error) { return ok(httpapi.Status{Status: "ok"}) }

func (s *Server) claim(r *request) (answer, error) {
	b, err := decode[httpapi.Claim](r)
	if err != nil {
		return answer{}, err
	}
	c := ff.Claim{Lanes: b.Lanes, Max: b.Max}
	if c.Claimant, err = b.Claimant.Claimant(); err != nil {
		return answer{}, err
	}
	if c.LeaseTTL, err = b.LeaseTTLMS.Duration("lease_ttl_ms"); err != nil {
		return answer{}, err
	}
	if c.Wait, err = b.WaitMS.Duration("wait_ms"); err != nil {
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
	out := httpapi.ClaimAnswer{Claimed: make([]httpapi.Claimed, len(got.Claimed)), Now: httpapi.At(got.Now)}
	for i := range got.Claimed {
		out.Claimed[i] = httpapi.ClaimedOf(&got.Claimed[i])
	}
	return ok(out)
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
	got, err := s.store.CompleteExecution(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.Completed{State: got.State, Repeated: got.Repeated})
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

func (s *Server) registerWorker(r *request) (answer, error) {
	b, err := decode[httpapi.Register](r)
	if err != nil {
		return answer{}, err
	}
	c := ff.RegisterWorker{Namespace: b.Namespace, Lanes: b.Lanes, Exclusive: b.Exclusive}
	if c.Claimant, err = b.Claimant.Claimant(); err != nil {
		return answer{}, err
	}
	if c.LivenessTTL, err = b.LivenessTTLMS.Duration("liveness_ttl_ms"); err != nil {
		return answer{}, err
	}
	got, err := s.store.RegisterWorker(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.Registered{Refreshed: got.Refreshed, ExpiresAt: httpapi.At(got.ExpiresAt)})
}

func (s *Server) heartbeat(r *request) (answer, error) {
	b, err := decode[httpapi.Heartbeat](r)
	if err != nil {
		return answer{}, err
	}
	got, err := s.store.HeartbeatWorker(r.Context(), ff.HeartbeatWorker{Namespace: b.Namespace, Instance: b.InstanceID})
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.HeartbeatAnswer{Registered: got.Registered, ExpiresAt: httpapi.At(got.ExpiresAt)})
}

func (s *Server) markDead(r *request) (answer, error) {
	b, err := decode[httpapi.MarkDead](r)
	if err != nil {
		return answer{}, err
	}
	got, err := s.store.MarkWorkerDead(r.Context(), ff.MarkWorkerDead{Namespace: b.Namespace, Instance: b.InstanceID, Reason: b.Reason})
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.MarkDeadAnswer{Marked: got.Marked})
}

func (s *Server) listWorkers(r *request) (answer, error) {
	q := r.query()
	_, one := q.values["namespace"]
	c := ff.ListWorkers{Namespace: ff.Namespace(q.text("namespace")), AllNamespaces: !one, Cursor: q.text("cursor"), Limit: int(q.number("limit", 0, ff.MaxPageLimit))}
	if q.err != nil {
		return answer{}, q.err
	}
	got, err := s.store.ListWorkers(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	out := httpapi.Workers{Workers: make([]httpapi.WorkerInfo, len(got.Workers)), NextCursor: got.Next}
	for i := range got.Workers {
		out.Workers[i] = httpapi.WorkerInfoOf(&got.Workers[i])
	}
	return ok(out)
}

func (s *Server) sweep(r *request) (answer, error) {
	b, err := decode[httpapi.Sweep](r)
	if err != nil {
		return answer{}, err
	}
	got, err := s.store.Sweep(r.Context(), ff.Sweep{Kind: b.Kind, Limit: b.Limit})
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.Swept{Processed: got.Processed, Errors: got.Errors, More: got.More, Next: httpapi.At(got.Next), Now: httpapi.At(got.Now)})
}
