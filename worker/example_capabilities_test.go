package worker_test

import (
	"context"
	"log"

	"github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/worker"
)

// A worker is given only executions whose required capabilities it has.
func ExampleConfig_capabilities() {
	b := newWorkbench(worker.Config{Capabilities: []string{"gpu", "linux"}})
	defer b.close()
	worker.Handle(b.Worker, "render", func(context.Context, []byte) (string, error) { return "rendered", nil })
	requires := func(tokens ...string) func(*flowfabric.CreateExecution) {
		set, err := flowfabric.NewCapabilitySet(tokens...)
		if err != nil {
			log.Fatal(err)
		}
		return func(c *flowfabric.CreateExecution) {
			c.Policy.Routing = &flowfabric.RoutingRequirements{RequiredCapabilities: set}
		}
	}
	fits := b.submit("render", "", requires("gpu"))
	waits := b.submit("render", "", requires("gpu", "tpu"))
	b.work()
	b.print(fits)
	b.print(waits)
	// Output:
	// completed with "rendered"
	// waiting
}
