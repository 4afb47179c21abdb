package client

import (
	"context"
	"encoding/json"
	"time"

	"github.com/cenkalti/backoff/v5"

	ff "github.com/flowfabric/flowfabric"
)

// waitFor is how long the server is asked to wait for the end of an execution at
// a time.
const waitFor = 30 * time.Second

// Get reads the record of an execution. Errors: execution_not_found.
func (c *Client) Get(ctx context.Context, id ff.ExecutionID) (ff.Execution, error) {
	return c.Backend().Execution(ctx, id)
}

// State reads the public state of an execution. Errors: execution_not_found.
func (c *Client) State(ctx context.Context, id ff.ExecutionID) (state ff.PublicState, err error) {
	err = c.do(ctx, call{method: "GET", path: executionPath(id, "/state"), out: &state})
	return state, err
}

// Payload reads the input of an execution. Errors: execution_not_found.
func (c *Client) Payload(ctx context.Context, id ff.ExecutionID) (ff.ExecutionPayload, error) {
	return c.Backend().ExecutionPayload(ctx, id)
}

// Result reads the result of an execution; nil when there is none (yet). Errors:
// execution_not_found.
func (c *Client) Result(ctx context.Context, id ff.ExecutionID) ([]byte, error) {
	return c.Backend().ExecutionResult(ctx, id)
}

// Attempts lists the attempts of an execution. Errors: execution_not_found.
func (c *Client) Attempts(ctx context.Context, id ff.ExecutionID) ([]ff.Attempt, error) {
	return c.Backend().Attempts(ctx, id)
}

// UnsuccessfulError is the error of ResultOf for an execution that ended without
// success.
type UnsuccessfulError struct{ Execution ff.Execution }

// Error says how the execution ended and why.
func (e *UnsuccessfulError) Error() string {
	text := "execution " + e.Execution.ID.String() + " is " + string(e.Execution.PublicState())
	reason := e.Execution.FailureReason
	if reason == "" {
		reason = e.Execution.CancellationReason
	}
	if reason != "" {
		text += ": " + reason
	}
	return text
}

// ResultOf waits for the end of an execution and decodes its result from JSON; a
// []byte is the result as it is, and an execution without a result leaves the zero
// value. Errors: *UnsuccessfulError when it failed, was cancelled, skipped or
// expired; those of Wait.
func ResultOf[T any](ctx context.Context, c *Client, id ff.ExecutionID) (result T, err error) {
	x, err := c.Wait(ctx, id)
	if err != nil {
		return result, err
	}
	if x.PublicState() != ff.StateCompleted {
		return result, &UnsuccessfulError{x}
	}
	data, err := c.Result(ctx, id)
	if err != nil || len(data) == 0 {
		return result, err
	}
	if raw, ok := any(&result).(*[]byte); ok {
		*raw = data
		return result, nil
	}
	if err := json.Unmarshal(data, &result); err != nil {
		return result, ff.InvalidInput("result", "of execution %s does not fit %T: %w", id, result, err)
	}
	return result, nil
}

// Wait waits until an execution has ended, and reads it. The server tells when;
// while it cannot be reached, Wait goes on trying until ctx ends. Errors:
// execution_not_found, that of ctx; transport and the like only when the server
// cannot be reached at first.
func (c *Client) Wait(ctx context.Context, id ff.ExecutionID) (ff.Execution, error) {
	x, err := c.Get(ctx, id)
	q := ff.ReadEvents{ID: id, Family: ff.FamilyCompletion, Wait: waitFor}
	for err == nil && !x.Terminal() {
		err = c.patiently(ctx, func() error {
			page, err := c.Backend().ReadEvents(ctx, q)
			if err == nil {
				q.After = page.Next
			}
			return err
		})
		if err == nil {
			err = c.patiently(ctx, func() (err error) {
				x, err = c.Get(ctx, id)
				return err
			})
		}
	}
	return x, err
}

// patiently repeats f while its error says that it may succeed later.
func (c *Client) patiently(ctx context.Context, f func() error) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 100*time.Millisecond, 5*time.Second
	return repeat(ctx, f, func(err error) bool { return c.life.Err() == nil && ff.IsRetryable(err) },
		backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(0))
}

// Cancel ends an execution, also while a worker runs it. Errors:
// execution_not_found, execution_not_active when it has ended already.
func (c *Client) Cancel(ctx context.Context, id ff.ExecutionID, reason string) (ff.CancelExecutionResult, error) {
	return c.Backend().CancelExecution(ctx, ff.CancelExecution{ID: id, Reason: reason})
}

// Replay starts an execution that has ended again. Errors: execution_not_found,
// execution_not_terminal, max_replays_exhausted.
func (c *Client) Replay(ctx context.Context, id ff.ExecutionID, reason string) (ff.PublicState, error) {
	got, err := c.Backend().ReplayExecution(ctx, ff.ReplayExecution{ID: id, Reason: reason})
	return got.State, err
}

// ChangePriority moves a waiting execution within its lane. Errors:
// execution_not_found, execution_not_eligible.
func (c *Client) ChangePriority(ctx context.Context, id ff.ExecutionID, priority int) (ff.ChangePriorityResult, error) {
	return c.Backend().ChangePriority(ctx, ff.ChangePriority{ID: id, Priority: priority})
}

// SetTags adds tags to an execution. Errors: execution_not_found, invalid_tag_key.
func (c *Client) SetTags(ctx context.Context, id ff.ExecutionID, tags map[string]string) (map[string]string, error) {
	got, err := c.Backend().SetExecutionTags(ctx, ff.SetExecutionTags{ID: id, Tags: tags})
	return got.Tags, err
}

// Revoke takes the lease away from the worker that holds an execution; the
// execution can be claimed again at once. Errors: execution_not_found,
// execution_not_active.
func (c *Client) Revoke(ctx context.Context, id ff.ExecutionID, reason string) (ff.RevokeLeaseResult, error) {
	return c.Backend().RevokeLease(ctx, ff.RevokeLease{ID: id, Reason: reason})
}
