package server

import (
	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

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
