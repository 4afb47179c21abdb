package worker_test

import (
	"context"

	"github.com/flowfabric/flowfabric/worker"
)

// Cancel ends an execution that has become pointless: neither a success nor a
// failure.
func ExampleCancel() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	worker.Handle(b.Worker, "remind", func(context.Context, []byte) ([]byte, error) {
		return nil, worker.Cancel("the invoice has been paid")
	})
	id := b.submit("remind", "")
	b.work()
	b.print(id)
	// Output:
	// cancelled by the worker: the invoice has been paid
}
