package worker_test

import (
	"context"
	"errors"

	"github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/worker"
)

// A failure has a category. A policy can limit retries to some of them.
func ExampleWithCategory() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	worker.Handle(b.Worker, "call", func(_ context.Context, category string) ([]byte, error) {
		return nil, worker.WithCategory(errors.New("the call failed"), category)
	})
	onlyNetwork := func(c *flowfabric.CreateExecution) {
		c.Policy.Retry.RetryableCategories = []string{"network"}
	}
	network := b.submit("call", `"network"`, onlyNetwork)
	refused := b.submit("call", `"refused"`, onlyNetwork)
	b.work()
	b.print(network)
	b.print(refused)
	// Output:
	// failed after 3 attempts: the call failed (network)
	// failed after 1 attempts: the call failed (refused)
}
