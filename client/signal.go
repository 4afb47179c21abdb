package client

import (
	"context"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// DeliverSignal sends a signal to a waitpoint. A repetition carries the same signal id
// and is a duplicate.
func (r *Remote) DeliverSignal(ctx context.Context, c ff.DeliverSignal) (ff.DeliverSignalResult, error) {
	if err := c.Validate(); err != nil {
		return ff.DeliverSignalResult{}, err
	}
	var out httpapi.Delivered
	path := waitpointPath(ff.WaitpointRef{ID: c.ID, WaitpointID: c.WaitpointID}, "/signals")
	err := r.c.do(ctx, call{method: "POST", path: path, body: httpapi.DeliverSignalOf(&c), out: &out})
	return out.Result(), err
}

// ListSignals lists the signals of an execution.
func (r *Remote) ListSignals(ctx context.Context, c ff.ListSignals) (ff.ListSignalsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ListSignalsResult{}, err
	}
	var out httpapi.SignalPage
	q := pageQuery(c.Cursor, c.Limit, "resumed", yes(c.Resumed))
	if !c.WaitpointID.IsZero() {
		q.Set("waitpoint_id", c.WaitpointID.String())
	}
	if err := r.c.do(ctx, call{method: "GET", path: executionPath(c.ID, "/signals"), query: q, out: &out}); err != nil {
		return ff.ListSignalsResult{}, err
	}
	got := ff.ListSignalsResult{Next: out.NextCursor, Signals: make([]ff.Signal, len(out.Signals))}
	for i := range out.Signals {
		got.Signals[i] = out.Signals[i].Signal()
	}
	return got, nil
}
