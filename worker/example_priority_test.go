package worker_test

import (
	"context"
	"fmt"

	"github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/worker"
)

// Within a lane the highest priority goes first, then the oldest.
func ExampleHandle_priority() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	worker.Handle(b.Worker, "print", func(_ context.Context, name string) ([]byte, error) {
		fmt.Println(name)
		return nil, nil
	})
	priority := func(p int) func(*flowfabric.CreateExecution) {
		return func(c *flowfabric.CreateExecution) { c.Priority = p }
	}
	b.submit("print", `"first of the ordinary ones"`)
	b.submit("print", `"second"`)
	b.submit("print", `"urgent"`, priority(100))
	b.submit("print", `"most urgent"`, priority(200))
	b.work()
	// Output:
	// most urgent
	// urgent
	// first of the ordinary ones
	// second
}
