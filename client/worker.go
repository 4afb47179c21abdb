package client

import (
	"context"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// RegisterWorker announces a process.
func (r *Remote) RegisterWorker(ctx context.Context, c ff.RegisterWorker) (ff.RegisterWorkerResult, error) {
	if err := c.Validate(); err != nil {
		return ff.RegisterWorkerResult{}, err
	}
	var out httpapi.Registered
	err := r.c.do(ctx, call{method: "POST", path: "/v1/workers", once: c.Exclusive, out: &out, body: httpapi.Register{
		Claimant: httpapi.ClaimantOf(c.Claimant), Namespace: c.Namespace, Lanes: c.Lanes, LivenessTTLMS: httpapi.MillisOf(c.LivenessTTL), Exclusive: c.Exclusive}})
	return ff.RegisterWorkerResult{Refreshed: out.Refreshed, ExpiresAt: out.ExpiresAt.Time}, err
}

// HeartbeatWorker keeps a registration alive.
func (r *Remote) HeartbeatWorker(ctx context.Context, c ff.HeartbeatWorker) (ff.HeartbeatWorkerResult, error) {
	var out httpapi.HeartbeatAnswer
	err := r.c.do(ctx, call{method: "POST", path: "/v1/workers/heartbeat", body: httpapi.Heartbeat{Namespace: c.Namespace, InstanceID: c.Instance}, out: &out})
	return ff.HeartbeatWorkerResult{Registered: out.Registered, ExpiresAt: out.ExpiresAt.Time}, err
}

// MarkWorkerDead removes a registration.
func (r *Remote) MarkWorkerDead(ctx context.Context, c ff.MarkWorkerDead) (ff.MarkWorkerDeadResult, error) {
	if err := c.Validate(); err != nil {
		return ff.MarkWorkerDeadResult{}, err
	}
	var out httpapi.MarkDeadAnswer
	err := r.c.do(ctx, call{method: "POST", path: "/v1/workers/mark-dead", body: httpapi.MarkDead{Namespace: c.Namespace, InstanceID: c.Instance, Reason: c.Reason}, out: &out})
	return ff.MarkWorkerDeadResult{Marked: out.Marked}, err
}

// ListWorkers lists live workers.
func (r *Remote) ListWorkers(ctx context.Context, c ff.ListWorkers) (ff.ListWorkersResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ListWorkersResult{}, err
	}
	q := pageQuery(c.Cursor, c.Limit)
	if !c.AllNamespaces {
		q.Set("namespace", string(c.Namespace))
	}
	var out httpapi.Workers
	if err := r.c.do(ctx, call{method: "GET", path: "/v1/workers", query: q, out: &out}); err != nil {
		return ff.ListWorkersResult{}, err
	}
	got := ff.ListWorkersResult{Next: out.NextCursor, Workers: make([]ff.WorkerInfo, len(out.Workers))}
	for i := range out.Workers {
		got.Workers[i] = out.Workers[i].Worker()
	}
	return got, nil
}
