package server

import (
	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

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
