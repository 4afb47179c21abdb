package server

import (
	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// limitSuspend bounds the body of a suspension: conditions and what a worker leaves for
// whoever resumes.
const limitSuspend = 1 << 20

// suspensionRoutes are the endpoints for waiting: suspensions, waitpoints, signals.
func suspensionRoutes() []route {
	return []route{
		{method: "POST", path: "/v1/executions/{id}/suspend", id: "suspend", tag: "workers", summary: "Suspend an execution until a condition is met", limit: limitSuspend,
			body: httpapi.Suspend{}, required: []string{"fence", "resume_condition"}, answers: map[int]any{200: httpapi.Suspended{}}, serve: (*Server).suspend},
		{method: "POST", path: "/v1/executions/{id}/resume", id: "resume", tag: "people", summary: "Resume a suspended execution without a signal", limit: limitControl,
			body: httpapi.Resume{}, answers: map[int]any{200: httpapi.StateAnswer{}}, serve: (*Server).resume},
		{method: "GET", path: "/v1/executions/{id}/suspension", id: "get-suspension", tag: "people", summary: "Read the latest suspension of an execution",
			answers: map[int]any{200: httpapi.SuspensionAnswer{}}, serve: (*Server).getSuspension},
	}
}

func (s *Server) suspend(r *request) (answer, error) {
	b, id, err := withID[httpapi.Suspend](r)
	if err != nil {
		return answer{}, err
	}
	c, err := b.Command(id)
	if err != nil {
		return answer{}, err
	}
	got, err := s.store.SuspendExecution(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	return secret(httpapi.SuspendedOf(&got))
}

func (s *Server) resume(r *request) (answer, error) {
	b, id, err := withID[httpapi.Resume](r)
	if err != nil {
		return answer{}, err
	}
	c := ff.ResumeExecution{ID: id}
	if c.Delay, err = b.DelayMS.Duration("delay_ms"); err != nil {
		return answer{}, err
	}
	got, err := s.store.ResumeExecution(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.StateAnswer{State: got.State})
}

func (s *Server) getSuspension(r *request) (answer, error) {
	id, err := r.executionID()
	if err != nil {
		return answer{}, err
	}
	got, err := s.store.Suspension(r.Context(), id)
	if err != nil {
		return answer{}, err
	}
	var out httpapi.SuspensionAnswer
	if !got.ID.IsZero() {
		latest := httpapi.SuspensionOf(&got)
		out.Suspension = &latest
	}
	return ok(out)
}
