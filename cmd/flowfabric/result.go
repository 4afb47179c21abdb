package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	ff "github.com/flowfabric/flowfabric"
)

func (a *app) resultCommand() *cobra.Command {
	var wait time.Duration
	c := &cobra.Command{Use: "result ID", Short: "Print the result of an execution", Args: exactly("ID"),
		Long: `Prints the result of an execution. A file or a pipe gets its bytes as they are, without
a newline that is not in it; on a terminal the line is ended. So does submit --wait.`,
		RunE: a.withID(func(ctx context.Context, b ff.Backend, id ff.ExecutionID) error {
			if wait < 0 {
				return usageError("--wait must not be negative (got %s)", wait)
			}
			return a.printResult(ctx, b, id, wait)
		})}
	c.Flags().DurationVar(&wait, "wait", 0, "wait so long for the end")
	return c
}

// printResult prints the result once the execution has ended. The exit code says
// how it ended.
func (a *app) printResult(ctx context.Context, b ff.Backend, id ff.ExecutionID, wait time.Duration) error {
	x, err := a.waitTerminal(ctx, b, id, wait)
	if err != nil {
		return err
	}
	state := x.PublicState()
	if !state.Terminal() {
		return &exitError{exitNotFound, fmt.Errorf("%s is %s and has no result yet; wait with --wait 1m", id, state)}
	}
	result, err := b.ExecutionResult(ctx, id)
	if err != nil {
		return err
	}
	if a.json {
		out := struct {
			ExecutionID ff.ExecutionID  `json:"execution_id"`
			State       ff.PublicState  `json:"state"`
			Result      json.RawMessage `json:"result,omitempty"`
			Base64      []byte          `json:"result_base64,omitempty"`
			Failure     string          `json:"failure_reason,omitempty"`
		}{ExecutionID: id, State: state, Failure: x.FailureReason}
		if json.Valid(result) {
			out.Result = result
		} else {
			out.Base64 = result
		}
		if err := a.jsonLine(out); err != nil {
			return err
		}
	} else if state == ff.StateCompleted {
		if _, err := a.stdout.Write(result); err != nil {
			return err
		}
		if len(result) > 0 && terminal(a.stdout) && result[len(result)-1] != '\n' {
			fmt.Fprintln(a.stdout)
		}
	}
	if state == ff.StateCompleted {
		return nil
	}
	return &exitError{exitFailed, fmt.Errorf("%s ended as %s: %s", id, state, clean(x.FailureReason+x.CancellationReason))}
}

// reconnectPause is the time between two tries to reach a server that went away.
const reconnectPause = 200 * time.Millisecond

// waitTerminal waits until the execution has ended, or for as long as given. A
// server that goes away meanwhile may come back until then.
func (a *app) waitTerminal(ctx context.Context, b ff.Backend, id ff.ExecutionID, wait time.Duration) (ff.Execution, error) {
	x, err := b.Execution(ctx, id)
	if err != nil || x.Terminal() || wait == 0 {
		return x, err
	}
	deadline := time.Now().Add(wait)
	q := ff.ReadEvents{ID: id}
	told := false
	for {
		left := time.Until(deadline)
		if left <= 0 && err != nil {
			return x, fmt.Errorf("%s was %s when last seen, %s are over: %w", id, x.PublicState(), wait, err)
		}
		if left <= 0 {
			return x, &exitError{exitTimeout, fmt.Errorf("%s is still %s after %s; see: flowfabric explain '%s'", id, x.PublicState(), wait, id)}
		}
		if err != nil {
			if !told {
				a.notice("trying again for up to %s: %s", left.Round(time.Second), err)
			}
			told = true
			if err := pause(ctx, min(left, reconnectPause)); err != nil {
				return x, err
			}
		}
		q.Wait = min(left, 5*time.Second)
		var seen ff.Execution
		if seen, err = nextLook(ctx, b, &q); err == nil {
			x = seen
		}
		if x.Terminal() || err != nil && !ff.IsRetryable(err) {
			return x, err
		}
	}
}

// nextLook waits for the next event of an execution, and reads it.
func nextLook(ctx context.Context, b ff.Backend, q *ff.ReadEvents) (ff.Execution, error) {
	r, err := b.ReadEvents(ctx, *q)
	if err != nil {
		return ff.Execution{}, err
	}
	q.After = r.Next
	return b.Execution(ctx, q.ID)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
