package worker_test

import (
	"bytes"
	"context"

	"github.com/flowfabric/flowfabric/worker"
)

// A handler of []byte gets the payload as it was submitted, and its result is
// stored as it is.
func ExampleHandle_raw() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	worker.Handle(b.Worker, "shout", func(_ context.Context, in []byte) ([]byte, error) {
		return bytes.ToUpper(in), nil
	})
	id := b.submit("shout", "hello, world")
	b.work()
	b.print(id)
	// Output:
	// completed with HELLO, WORLD
}
