package worker_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/worker"
)

// A handler may run more than once: its process can die after the work and before
// the completion is stored. What it submits with an idempotency key is submitted
// once all the same, and the id of the execution makes a good key for others.
func ExampleHandle_idempotency() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	worker.Handle(b.Worker, "ship", func(ctx context.Context, _ []byte) ([]byte, error) {
		t := worker.TaskFrom(ctx)
		r, err := b.store.CreateExecution(ctx, flowfabric.CreateExecution{
			Lane: "mail", Kind: "notify", IdempotencyKey: "notify " + t.ID().String(),
		})
		if err != nil {
			return nil, err
		}
		fmt.Printf("attempt %d: notified before: %v\n", t.Attempt().Index, r.Duplicate)
		if t.Attempt().Index == 0 {
			return nil, errors.New("the power is gone")
		}
		return nil, nil
	})
	b.submit("ship", "")
	b.work()
	// Output:
	// attempt 0: notified before: false
	// attempt 1: notified before: true
}
