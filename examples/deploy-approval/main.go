// Command deploy-approval deploys releases that two people have to approve. While they
// take their time nothing runs and nothing is held in memory.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/engine"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
	"github.com/flowfabric/flowfabric/worker"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer) (err error) {
	store, err := sqlite.Open(ctx, ":memory:", sqlite.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	loops, err := engine.New(store, engine.Options{})
	if err != nil {
		return err
	}
	w, err := worker.Connect(ctx, store, worker.Config{Worker: "deployer", Lanes: []ff.LaneID{"deploys"}})
	if err != nil {
		return err
	}
	worker.Handle(w, "deploy", deploy)

	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 2)
	go func() { ended <- loops.Run(background) }()
	go func() { ended <- w.Run(background) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-ended, <-ended)
	}()
	return story(ctx, out, store)
}

type release struct {
	Version string
	// Patience is how long the approvers have.
	Patience time.Duration
}

// deploy runs twice: up to Await, which suspends it, and again, from the beginning, when
// two people have approved.
func deploy(ctx context.Context, r release) (string, error) {
	approvals, err := worker.TaskFrom(ctx).Await(ctx, "approval",
		worker.WaitFor(ff.AwaitCount(2, ff.DistinctSources).Named("approved")).
			Because(ff.SuspendedForApproval).Within(r.Patience).OrExpire())
	if err != nil {
		return "", err
	}
	// The rollout would be here.
	return fmt.Sprintf("%s is deployed, approved by %s", r.Version, strings.Join(approvers(approvals), " and ")), nil
}

// approvers are the people behind signals, each once.
func approvers(signals []ff.Signal) (names []string) {
	seen := map[string]bool{}
	for _, s := range signals {
		if !seen[s.SourceIdentity] {
			seen[s.SourceIdentity] = true
			names = append(names, s.SourceIdentity)
		}
	}
	return names
}

// desk is where people decide. It knows who they are, so it vouches for the source of a
// signal: who has a token could claim to be anybody.
type desk struct {
	store ff.Backend
	out   io.Writer
}

// decide delivers the decision of a person. A rejection ends the execution.
func (d *desk) decide(ctx context.Context, id ff.ExecutionID, who, decision, comment string) error {
	open, err := d.store.ListWaitpoints(ctx, ff.ListWaitpoints{ID: id})
	if err != nil {
		return err
	}
	if len(open.Waitpoints) == 0 {
		return fmt.Errorf("%s waits for nobody", id)
	}
	answer, err := ff.DeliverApprovalSignal(ctx, d.store, ff.DeliverApproval{
		ID: id, WaitpointID: open.Waitpoints[0].ID, Decision: decision, By: who, Payload: []byte(comment), IdempotencySuffix: who + comment,
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "  %s: %s %q → %s\n", who, decision, comment, answer.Effect)
	if decision == "rejected" {
		_, err = d.store.CancelExecution(ctx, ff.CancelExecution{ID: id, Reason: fmt.Sprintf("rejected by %s: %s", who, comment)})
	}
	return err
}

// story submits three releases: one is approved, one rejected, one forgotten.
func story(ctx context.Context, out io.Writer, store ff.Backend) error {
	d := &desk{store, out}
	for _, r := range []struct {
		release
		decisions [][3]string // who, what, why
	}{
		{release{"web 1.4", time.Hour}, [][3]string{{"ann", "approved", "fine"}, {"ann", "approved", "still fine"}, {"ben", "approved", "go"}}},
		{release{"web 1.5", time.Hour}, [][3]string{{"ann", "approved", "fine"}, {"ben", "rejected", "not on a Friday"}}},
		{release{"web 1.6", time.Second}, [][3]string{{"ann", "approved", "fine"}}},
	} {
		payload, err := json.Marshal(r.release)
		if err != nil {
			return err
		}
		submitted, err := store.CreateExecution(ctx, ff.CreateExecution{Lane: "deploys", Kind: "deploy", Payload: payload})
		if err != nil {
			return err
		}
		x, err := waitUntil(ctx, store, submitted.ID, func(x *ff.Execution) bool { return x.PublicState() == ff.StateSuspended })
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s is %s: %s\n", r.Version, x.PublicState(), x.State.Blocking)
		for _, c := range r.decisions {
			if err := d.decide(ctx, submitted.ID, c[0], c[1], c[2]); err != nil {
				return err
			}
		}
		x, err = waitUntil(ctx, store, submitted.ID, (*ff.Execution).Terminal)
		if err != nil {
			return err
		}
		if err := tell(ctx, out, store, &x); err != nil {
			return err
		}
	}
	return nil
}

// tell prints how an execution has ended.
func tell(ctx context.Context, out io.Writer, store ff.Backend, x *ff.Execution) error {
	result, err := store.ExecutionResult(ctx, x.ID)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "  %s: %s%s%s\n", x.PublicState(), result, x.CancellationReason, x.FailureReason)
	return nil
}

// waitUntil waits until an execution satisfies a condition.
func waitUntil(ctx context.Context, store ff.Backend, id ff.ExecutionID, ok func(*ff.Execution) bool) (ff.Execution, error) {
	for q := (ff.ReadEvents{ID: id, Wait: ff.MaxClaimWait}); ; {
		x, err := store.Execution(ctx, id)
		if err != nil || ok(&x) {
			return x, err
		}
		page, err := store.ReadEvents(ctx, q)
		if err != nil {
			return x, err
		}
		q.After = page.Next
	}
}
