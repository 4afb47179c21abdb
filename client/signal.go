package client

import (
	"context"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// Deliver sends a signal to a waitpoint, with its token. Errors: those of
// flowfabric.Suspensions.DeliverSignal.
func (c *Client) Deliver(ctx context.Context, s ff.DeliverSignal) (ff.DeliverSignalResult, error) {
	return c.Backend().DeliverSignal(ctx, s)
}

// Names of signals that decisions have by convention.
const (
	Approved = "approved"
	Rejected = "rejected"
)

// Decision is what somebody decides about an execution that waits.
type Decision struct {
	// Waitpoint is the id or the key of the waitpoint; the only open one when empty.
	Waitpoint string
	// By is who decides. The same decision at a waitpoint counts once for each.
	By string
	// Payload is for the worker: a []byte as it is, anything else as JSON.
	Payload any
	// Key, when set, is what the same decision counts once for, instead of By.
	Key string
}

// Approve delivers the signal "approved" as an operator, without a token. Errors:
// execution_not_found; invalid_input, which names them, when several waitpoints are open;
// waitpoint_not_found; target_not_signalable when the execution does not wait.
func (c *Client) Approve(ctx context.Context, id ff.ExecutionID, d Decision) (ff.DeliverSignalResult, error) {
	return c.Decide(ctx, id, Approved, d)
}

// Reject delivers the signal "rejected", as Approve does. Only a condition that takes it
// is met by it: what follows from a no is up to the worker.
func (c *Client) Reject(ctx context.Context, id ff.ExecutionID, d Decision) (ff.DeliverSignalResult, error) {
	return c.Decide(ctx, id, Rejected, d)
}

// Decide delivers a signal of any name as an operator. Errors: those of Approve.
func (c *Client) Decide(ctx context.Context, id ff.ExecutionID, decision string, d Decision) (ff.DeliverSignalResult, error) {
	payload, _, err := encode(d.Payload)
	if err != nil {
		return ff.DeliverSignalResult{}, err
	}
	store := c.Backend()
	at, err := ff.ChooseWaitpoint(ctx, store, id, d.Waitpoint)
	if err != nil {
		return ff.DeliverSignalResult{}, err
	}
	return ff.DeliverApprovalSignal(ctx, store, ff.DeliverApproval{
		ID: at.ID, WaitpointID: at.WaitpointID, Decision: decision, By: d.By, Payload: payload, IdempotencySuffix: d.Key,
	})
}

// Signals lists the signals that an execution has accepted, in their order. Errors:
// execution_not_found.
func (c *Client) Signals(ctx context.Context, q ff.ListSignals) (ff.ListSignalsResult, error) {
	return c.Backend().ListSignals(ctx, q)
}

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
