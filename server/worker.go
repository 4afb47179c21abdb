package server

import (
	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

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
