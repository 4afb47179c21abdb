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
	x, err := waitTerminal(ctx, b, id, wait)
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

// waitTerminal waits until the execution has ended, or for as long as given.
func waitTerminal(ctx context.Context, b ff.Backend, id ff.ExecutionID, wait time.Duration) (ff.Execution, error) {
	deadline := time.Now().Add(wait)
	var after ff.EventCursor
	for {
		x, err := b.Execution(ctx, id)
		left := time.Until(deadline)
		if err != nil || x.Terminal() || wait == 0 {
			return x, err
		}
		if left <= 0 {
			return x, &exitError{exitTimeout, fmt.Errorf("%s is still %s after %s; see: flowfabric explain '%s'", id, x.PublicState(), wait, id)}
		}
		r, err := b.ReadEvents(ctx, ff.ReadEvents{ID: id, After: after, Wait: min(left, 5*time.Second)})
		if err != nil {
			return x, err
		}
		after = r.Next
	}
}
