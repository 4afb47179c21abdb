package server

import (
	"context"

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
				{name: "family", doc: "Only this family", enum: []any{"lease", "completion", "signal"}}, {name: "limit", doc: "Page size", number: true, max: ff.MaxPageLimit},
				{name: "wait_ms", doc: "Longest time to wait for an event", number: true, max: int(ff.MaxClaimWait.Milliseconds())}},
			answers: map[int]any{200: httpapi.EventPage{}}, serve: (*Server).events},
		{method: "GET", path: "/v1/info", id: "info", tag: "people", summary: "Describe the store", answers: map[int]any{200: ff.Info{}}, serve: (*Server).info},
		{method: "GET", path: "/v1/time", id: "time", tag: "people", summary: "Read the clock of the store", answers: map[int]any{200: httpapi.Now{}}, serve: (*Server).now},
		{method: "GET", path: "/livez", id: "live", tag: "health", summary: "Check that the process answers", answers: map[int]any{200: httpapi.Status{}}, storeless: true, serve: (*Server).live},

		{method: "POST", path: "/v1/executions/create-many", id: "create-many", tag: "workers", summary: "Submit executions to any lanes, all or none; on a cluster of Valkeys in each partition", limit: limitBatch,
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
		{method: "POST", path: "/v1/executions/{id}/complete", id: "complete", tag: "workers", summary: "Complete an execution, and claim the next when asked to", limit: limitPayload,
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

// withID decodes a body of our own and reads the id of the path.
func withID[B any](r *request) (b B, id ff.ExecutionID, err error) {
	if b, err = decode[B](r); err == nil {
		id, err = r.executionID()
	}
	return b, id, err
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
