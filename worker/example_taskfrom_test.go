package worker_test

import (
	"context"
	"fmt"

	"github.com/flowfabric/flowfabric/worker"
)

// A typed handler finds its task in the context, as does everything it calls.
func ExampleTaskFrom() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	worker.Handle(b.Worker, "greet", func(ctx context.Context, name string) (string, error) {
		t := worker.TaskFrom(ctx)
		return fmt.Sprintf("hello %s, this is attempt %d of a %s", name, t.Attempt().Index, t.Kind()), nil
	})
	id := b.submit("greet", `"ann"`)
	b.work()
	b.print(id)
	// Output:
	// completed with "hello ann, this is attempt 0 of a greet"
}
