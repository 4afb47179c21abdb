// Command retry-and-delay shows what a handler can make of an execution: fail and
// be retried, fail for good, go on later as the same attempt, or start later.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"text/tabwriter"
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
	w, err := worker.Connect(ctx, store, worker.Config{Worker: "shop", Lanes: []ff.LaneID{"orders"}, Concurrency: 4})
	if err != nil {
		return err
	}
	register(w)

	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 2)
	go func() { ended <- loops.Run(background) }()
	go func() { ended <- w.Run(background) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-ended, <-ended)
	}()

	ids, err := submit(ctx, store)
	if err != nil {
		return err
	}
	return report(ctx, out, store, ids)
}

var errBusy = errors.New("the payment provider is busy")

// register gives the worker one handler for each way to end.
func register(w *worker.Worker) {
	// An error fails the attempt; the policy of the execution says what follows.
	w.HandleTask("charge", func(_ context.Context, t *worker.Task) ([]byte, error) {
		if t.Attempt().Index < 2 {
			return nil, errBusy
		}
		return []byte(`"charged"`), nil
	})
	// A permanent error is final, whatever the policy says.
	w.HandleTask("refund", func(context.Context, *worker.Task) ([]byte, error) {
		return nil, worker.Permanent(errors.New("no such payment"))
	})
	// Delay parks the execution: no worker waits, and no retry is used up.
	w.HandleTask("ship", func(_ context.Context, t *worker.Task) ([]byte, error) {
		if !t.Resumed() {
			return nil, worker.Delay(200 * time.Millisecond)
		}
		return []byte(`"shipped"`), nil
	})
	// The context of a handler ends when its attempt takes too long.
	w.HandleTask("print", func(ctx context.Context, _ *worker.Task) ([]byte, error) {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	})
	worker.Handle(w, "remind", func(context.Context, struct{}) (string, error) { return "reminded", nil })
}

// submit submits one execution of each kind.
func submit(ctx context.Context, store ff.Executions) ([]ff.ExecutionID, error) {
	retries := ff.DefaultExecutionPolicy()
	retries.Retry = ff.ExponentialRetry(5, 100*time.Millisecond, time.Second)

	impatient := ff.DefaultExecutionPolicy()
	impatient.Timeout = &ff.TimeoutPolicy{Attempt: 300 * time.Millisecond, MaxReclaims: ff.DefaultMaxReclaims}

	batch, err := store.CreateExecutions(ctx, ff.CreateExecutions{Executions: []ff.CreateExecution{
		{Lane: "orders", Kind: "charge", Policy: retries, IdempotencyKey: "order-4711"},
		{Lane: "orders", Kind: "refund", Policy: retries},
		{Lane: "orders", Kind: "ship"},
		{Lane: "orders", Kind: "print", Policy: impatient},
		{Lane: "orders", Kind: "remind", Delay: 300 * time.Millisecond},
	}})
	if err != nil {
		return nil, err
	}
	ids := make([]ff.ExecutionID, len(batch.Results))
	for i, r := range batch.Results {
		ids[i] = r.ID
	}
	return ids, nil
}

// report waits for the end of each execution and prints what became of it.
func report(ctx context.Context, out io.Writer, store ff.Backend, ids []ff.ExecutionID) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KIND\tSTATE\tATTEMPTS\tWHY OR RESULT")
	for _, id := range ids {
		q := ff.ReadEvents{ID: id, Family: ff.FamilyCompletion, Wait: ff.MaxClaimWait}
		for ended := false; !ended; {
			page, err := store.ReadEvents(ctx, q)
			if err != nil {
				return err
			}
			q.After, ended = page.Next, len(page.Events) > 0
		}
		x, err := store.Execution(ctx, id)
		if err != nil {
			return err
		}
		result, err := store.ExecutionResult(ctx, id)
		if err != nil {
			return err
		}
		said := string(result)
		if x.PublicState() != ff.StateCompleted {
			said = x.FailureReason
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", x.Kind, x.PublicState(), x.TotalAttempts, said)
	}
	return table.Flush()
}
