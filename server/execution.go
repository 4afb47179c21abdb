package server

import (
	"encoding/json"
	"net/http"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

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
