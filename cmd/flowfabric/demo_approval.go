package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/worker"
)

// demoApprovalTime is how long the report waits for its approval.
const demoApprovalTime = 10 * time.Minute

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
	decision := decisions[0]
	if decision.Name != client.Approved {
		return out, worker.Permanent(fmt.Errorf("the report was %s by %s", decision.Name, decision.SourceIdentity))
	}
	data, err := b.ExecutionResult(ctx, p.Summary)
	if err == nil {
		err = json.Unmarshal(data, &out.counts)
	}
	out.ApprovedBy = decision.SourceIdentity
	return out, err
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
	fmt.Fprintf(d.app.stderr, `the report waits for approval, suspended, for %[1]s; approve or reject it from another terminal:
  %[2]s approve '%[3]s' --server %[4]s
  %[2]s reject '%[3]s' --server %[4]s
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
	cmd := exec.CommandContext(ctx, self, "approve", id.String(), "--server", d.url, "--by", fmt.Sprintf("demo process %d", os.Getpid()))
	cmd.Stderr = d.app.stderr
	if err := cmd.Run(); err != nil {
		return errors.Join(fmt.Errorf("approving the report: %w", err), ctx.Err())
	}
	return nil
}
