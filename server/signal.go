package server

import (
	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// limitSignal leaves room for the largest payload of a signal in base64.
const limitSignal = ff.MaxSignalPayloadBytes/3*4 + 256<<10

// signalRoutes are the endpoints of signals.
func signalRoutes() []route {
	return []route{
		{method: "POST", path: "/v1/executions/{id}/signal", id: "deliver-signal", tag: "reference", summary: "Deliver a signal to a waitpoint", limit: limitMedium,
			body: httpapi.DeliverSignalArgs{}, required: httpapi.DeliverSignalRequired, answers: map[int]any{200: httpapi.DeliverSignalAnswer{}}, serve: (*Server).deliverSignal},

		{method: "POST", path: "/v1/executions/{id}/waitpoints/{waitpoint_id}/signals", id: "deliver-signal-with", tag: "people", summary: "Deliver a signal to a waitpoint, with its token", limit: limitSignal,
			body: httpapi.DeliverSignal{}, required: []string{"signal_name"}, answers: map[int]any{200: httpapi.Delivered{}}, serve: (*Server).deliverSignalWith},
		{method: "POST", path: "/v1/executions/{id}/decide", id: "decide", tag: "people", summary: "Approve, reject or decide otherwise, as an operator", limit: limitSignal,
			body: httpapi.Decide{}, required: []string{"by", "decision"}, answers: map[int]any{200: httpapi.Decided{}}, serve: (*Server).decide},
		{method: "GET", path: "/v1/executions/{id}/signals", id: "list-signals", tag: "people", summary: "List the signals of an execution in their order",
			query: []param{{name: "waitpoint_id", doc: "Only signals of this waitpoint"}, {name: "resumed", doc: "Only those that met the condition of the latest suspension", enum: []any{"true", "false"}},
				{name: "cursor", doc: "Where the last page ended"}, {name: "limit", doc: "Page size", number: true, max: ff.MaxPageLimit}},
			answers: map[int]any{200: httpapi.SignalPage{}}, serve: (*Server).listSignals},
	}
}

func (s *Server) deliverSignal(r *request) (answer, error) {
	args, err := decode[httpapi.DeliverSignalArgs](r)
	if err != nil {
		return answer{}, err
	}
	id, err := r.sameExecutionID(args.ExecutionID)
	if err != nil {
		return answer{}, err
	}
	c, err := args.Command(id)
	if err != nil {
		return answer{}, err
	}
	got, err := s.store.DeliverSignal(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.DeliverSignalAnswerOf(got))
}

func (s *Server) deliverSignalWith(r *request) (answer, error) {
	b, err := decode[httpapi.DeliverSignal](r)
	if err != nil {
		return answer{}, err
	}
	at, err := r.waitpointRef()
	if err != nil {
		return answer{}, err
	}
	c, err := b.Command(at)
	if err != nil {
		return answer{}, err
	}
	got, err := s.store.DeliverSignal(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.DeliveredOf(got))
}

// decide needs no waitpoint token: whoever may call the server may read tokens.
func (s *Server) decide(r *request) (answer, error) {
	b, id, err := withID[httpapi.Decide](r)
	if err != nil {
		return answer{}, err
	}
	at, err := ff.ChooseWaitpoint(r.Context(), s.store, id, b.Waitpoint)
	if err != nil {
		return answer{}, err
	}
	c, err := b.Command(at)
	if err != nil {
		return answer{}, err
	}
	got, err := ff.DeliverApprovalSignal(r.Context(), s.store, c)
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.Decided{WaitpointID: at.WaitpointID, Delivered: httpapi.DeliveredOf(got)})
}

func (s *Server) listSignals(r *request) (answer, error) {
	id, err := r.executionID()
	if err != nil {
		return answer{}, err
	}
	q := r.query()
	c := ff.ListSignals{ID: id, WaitpointID: q.waitpoint("waitpoint_id"), Resumed: q.flag("resumed"), Cursor: q.text("cursor"), Limit: int(q.number("limit", 0, ff.MaxPageLimit))}
	if q.err != nil {
		return answer{}, q.err
	}
	got, err := s.store.ListSignals(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	out := httpapi.SignalPage{Signals: make([]httpapi.Signal, len(got.Signals)), NextCursor: got.Next}
	for i := range got.Signals {
		out.Signals[i] = httpapi.SignalOf(&got.Signals[i])
	}
	return ok(out)
}
