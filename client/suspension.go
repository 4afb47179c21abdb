package client

import (
	"context"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// Resume ends a suspension without a signal: the worker goes on and finds none. Errors:
// execution_not_found, execution_not_suspended.
func (c *Client) Resume(ctx context.Context, id ff.ExecutionID) (ff.PublicState, error) {
	got, err := c.Backend().ResumeExecution(ctx, ff.ResumeExecution{ID: id})
	return got.State, err
}

// Suspension reads what an execution waits for, or has waited for at last; its ID is zero
// when it never did. Errors: execution_not_found.
func (c *Client) Suspension(ctx context.Context, id ff.ExecutionID) (ff.Suspension, error) {
	return c.Backend().Suspension(ctx, id)
}

// SuspendExecution suspends. A repetition carries the same suspension id and answers the
// same.
func (r *Remote) SuspendExecution(ctx context.Context, c ff.SuspendExecution) (ff.SuspendExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.SuspendExecutionResult{}, err
	}
	var out httpapi.Suspended
	err := r.c.do(ctx, call{method: "POST", path: executionPath(c.ID, "/suspend"), body: httpapi.SuspendOf(&c), out: &out})
	return out.Result(), err
}

// ResumeExecution resumes.
func (r *Remote) ResumeExecution(ctx context.Context, c ff.ResumeExecution) (ff.ResumeExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ResumeExecutionResult{}, err
	}
	var out httpapi.StateAnswer
	err := r.c.do(ctx, call{method: "POST", path: executionPath(c.ID, "/resume"), once: true, body: httpapi.Resume{DelayMS: httpapi.MillisOf(c.Delay)}, out: &out})
	return ff.ResumeExecutionResult{State: out.State}, err
}

// Suspension reads the latest suspension.
func (r *Remote) Suspension(ctx context.Context, id ff.ExecutionID) (ff.Suspension, error) {
	var out httpapi.SuspensionAnswer
	if err := r.c.do(ctx, call{method: "GET", path: executionPath(id, "/suspension"), out: &out}); err != nil || out.Suspension == nil {
		return ff.Suspension{}, err
	}
	return out.Suspension.Suspension(), nil
}
