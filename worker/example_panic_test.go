package worker_test

import (
	"context"

	"github.com/flowfabric/flowfabric/worker"
)

// A panic fails the attempt, and neither the worker nor its other tasks. The
// stack is in the log.
func ExampleHandle_panic() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	worker.Handle(b.Worker, "divide", func(_ context.Context, in [2]int) (int, error) {
		return in[0] / in[1], nil
	})
	id := b.submit("divide", `[1, 0]`)
	b.work()
	b.print(id)
	// Output:
	// failed after 3 attempts: handler panicked: runtime error: integer divide by zero (handler_panic)
}
