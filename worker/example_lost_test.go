package worker_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/worker"
)

// The context of a task ends when the work must stop, and its cause says why.
// Here a person cancels the execution while it runs.
func ExampleTask_Context() {
	b := newWorkbench(worker.Config{LeaseTTL: 300 * time.Millisecond})
	defer b.close()
	worker.Handle(b.Worker, "long", func(ctx context.Context, _ []byte) ([]byte, error) {
		_, err := b.store.CancelExecution(ctx, flowfabric.CancelExecution{ID: worker.TaskFrom(ctx).ID(), Reason: "not needed any more"})
		if err != nil {
			log.Fatal(err)
		}
		<-ctx.Done() // the next renewal of the lease finds out
		fmt.Println("cancelled:", errors.Is(context.Cause(ctx), flowfabric.ErrExecutionNotActive))
		return nil, ctx.Err()
	})
	id := b.submit("long", "")
	b.work()
	b.print(id)
	// Output:
	// cancelled: true
	// cancelled by the operator_override: not needed any more
}
