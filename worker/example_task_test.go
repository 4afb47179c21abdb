package worker_test

import (
	"context"
	"fmt"

	"github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/worker"
)

// HandleTask gives the handler the task itself: the record of the execution, its
// tags, the attempt, and the methods that end it.
func ExampleWorker_HandleTask() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	b.HandleTask("inspect", func(ctx context.Context, t *worker.Task) ([]byte, error) {
		x := t.Execution()
		fmt.Printf("%s on lane %s for %s: attempt %d (%s), payload %s\n",
			t.Kind(), x.Lane, x.Tags["customer"], t.Attempt().Index, t.Attempt().Type, t.Payload())
		if t.Attempt().Index == 0 {
			_, err := t.Fail(ctx, worker.Failure{Reason: "the first attempt always fails", Category: "demo"})
			return nil, err
		}
		return []byte("seen"), nil
	})
	id := b.submit("inspect", "42", func(c *flowfabric.CreateExecution) {
		c.Tags = map[string]string{"customer": "acme"}
	})
	b.work()
	x := b.execution(id)
	fmt.Println(x.PublicState(), "after", x.TotalAttempts, "attempts")
	// Output:
	// inspect on lane default for acme: attempt 0 (initial), payload 42
	// inspect on lane default for acme: attempt 1 (retry), payload 42
	// completed after 2 attempts
}
