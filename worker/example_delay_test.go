package worker_test

import (
	"context"
	"fmt"
	"time"

	"github.com/flowfabric/flowfabric/worker"
)

// Delay parks an execution without using up an attempt: nothing waits in memory,
// and any worker goes on with it later.
func ExampleDelay() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	ready := false
	worker.Handle(b.Worker, "collect", func(ctx context.Context, _ []byte) (string, error) {
		t := worker.TaskFrom(ctx)
		fmt.Printf("attempt %d, resumed %v\n", t.Attempt().Index, t.Resumed())
		if !ready {
			return "", worker.Delay(time.Hour)
		}
		return "collected", nil
	})
	id := b.submit("collect", "")
	b.work()
	b.print(id)
	ready = true
	b.advance(time.Hour)
	b.work()
	b.print(id)
	// Output:
	// attempt 0, resumed false
	// delayed
	// attempt 0, resumed true
	// completed with "collected"
}
