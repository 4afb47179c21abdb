package worker_test

import (
	"context"
	"fmt"

	"github.com/flowfabric/flowfabric/worker"
)

// A middleware wraps the handlers of every kind: it sees the task before, and the
// result and the error after. The first one is the outermost.
func ExampleWorker_Use() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	b.Use(func(next worker.Handler) worker.Handler {
		return func(ctx context.Context, t *worker.Task) ([]byte, error) {
			fmt.Println("before", t.Kind())
			result, err := next(ctx, t)
			fmt.Printf("after %s: %s, %v\n", t.Kind(), result, err)
			return result, err
		}
	})
	worker.Handle(b.Worker, "add", func(_ context.Context, in []int) (int, error) { return in[0] + in[1], nil })
	b.submit("add", `[1, 2]`)
	b.work()
	// Output:
	// before add
	// after add: 3, <nil>
}
