package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/worker"
)

const (
	demoApproved = "approved"
	demoRejected = "rejected"
	// demoApprovalTime is how long the report waits for its approval.
	demoApprovalTime = 10 * time.Minute
)

// publication is the input of the execution that publishes the report.
type publication struct {
	Summary ff.ExecutionID `json:"summary"`
	Within  time.Duration  `json:"within"`
}

// published is its result.
type published struct {
	counts
	ApprovedBy string `json:"approved_by"`
}

// publishReport waits for somebody to decide about the report, without a worker being
// busy meanwhile, and publishes it.
func publishReport(ctx context.Context, b ff.Executions, p publication) (out published, err error) {
	decisions, err := worker.TaskFrom(ctx).Await(ctx, "approval",
		worker.WaitForSignal("").Because(ff.SuspendedForApproval).Within(p.Within).OrExpire())
	if err != nil {
		return out, err
	}
	if len(decisions) == 0 {
		return out, worker.Permanent(errors.New("the report was resumed without a decision"))
	}
	decision := decisions[0]
	if decision.Name != demoApproved {
		return out, worker.Permanent(fmt.Errorf("the report was %s by %s", decision.Name, decision.SourceIdentity))
	}
	data, err := b.ExecutionResult(ctx, p.Summary)
	if err == nil {
		err = json.Unmarshal(data, &out.counts)
	}
	out.ApprovedBy = decision.SourceIdentity
	return out, err
}

// demoApproveCommand decides about the report of a demo, from a process of its own: it
// reads the token of the waitpoint and delivers the decision as a signal.
func (a *app) demoApproveCommand() *cobra.Command {
	var by string
	var reject bool
	c := &cobra.Command{Use: "demo-approve ID", Hidden: true, Short: "Approve the report of the demo", Args: exactly("ID")}
	c.RunE = a.withID(func(ctx context.Context, b ff.Backend, id ff.ExecutionID) error {
		list, err := b.ListWaitpoints(ctx, ff.ListWaitpoints{ID: id, Limit: 1})
		if err != nil {
			return err
		}
		if len(list.Waitpoints) == 0 {
			return fmt.Errorf("execution %s waits for no decision", id)
		}
		decision := demoApproved
		if reject {
			decision = demoRejected
		}
		_, err = ff.DeliverApprovalSignal(ctx, b, ff.DeliverApproval{ID: id, WaitpointID: list.Waitpoints[0].ID, Decision: decision, By: by})
		return err
	})
	c.Flags().StringVar(&by, "by", "somebody", "who decides")
	c.Flags().BoolVar(&reject, "reject", false, "reject the report")
	return c
}

// publish submits the execution that publishes the report, and sees to its approval.
func (d *demo) publish(ctx context.Context, summary ff.ExecutionID) error {
	id, err := d.submitOne(ctx, kindPublish, publication{summary, d.flags.approval})
	if err != nil {
		return fmt.Errorf("submitting the publication: %w", err)
	}
	if err := d.waitSuspended(ctx, id); err != nil {
		return err
	}
	if !d.flags.interactive {
		d.say("the report waits for approval, suspended; another process approves it")
		if err := d.approve(ctx, id); err != nil {
			return err
		}
		return d.waitPending(ctx, 0)
	}
	d.show.done()
	fmt.Fprintf(d.app.stderr, `the report waits for approval, suspended, for %s; approve it from another terminal (or add --reject):
  %s demo-approve '%s' --server %s --by NAME
`, d.flags.approval, os.Args[0], id, d.url)
	d.patience += d.flags.approval
	return d.waitPending(ctx, 0)
}

// waitSuspended waits until an execution is suspended, or has ended.
func (d *demo) waitSuspended(ctx context.Context, id ff.ExecutionID) error {
	late := time.Now().Add(demoPatience)
	for q := (ff.ReadEvents{ID: id, Wait: time.Second}); time.Now().Before(late); {
		x, err := d.store.Execution(ctx, id)
		if err != nil || x.PublicState() == ff.StateSuspended || x.Terminal() {
			return err
		}
		r, err := d.store.ReadEvents(ctx, q)
		if err != nil {
			return err
		}
		q.After = r.Next
	}
	return &exitError{exitTimeout, fmt.Errorf("the publication of the report did not begin within %s", demoPatience)}
}

// approve starts a process that approves.
func (d *demo) approve(ctx context.Context, id ff.ExecutionID) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "demo-approve", id.String(), "--server", d.url, "--by", fmt.Sprintf("demo process %d", os.Getpid()))
	cmd.Stderr = d.app.stderr
	if err := cmd.Run(); err != nil {
		return errors.Join(fmt.Errorf("approving the report: %w", err), ctx.Err())
	}
	return nil
}
