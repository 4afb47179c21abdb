package worker_test

import (
	"context"
	"errors"

	"github.com/flowfabric/flowfabric/worker"
)

// Permanent says that no further attempt can help; without it, the policy of the
// execution decides.
func ExamplePermanent() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	errClosed := errors.New("the account is closed")
	worker.Handle(b.Worker, "charge", func(context.Context, []byte) ([]byte, error) { return nil, errClosed })
	worker.Handle(b.Worker, "charge once", func(context.Context, []byte) ([]byte, error) {
		return nil, worker.Permanent(errClosed)
	})
	retried := b.submit("charge", "")
	final := b.submit("charge once", "")
	b.work()
	b.print(retried)
	b.print(final)
	// Output:
	// failed after 3 attempts: the account is closed (handler_error)
	// failed after 1 attempts: the account is closed (handler_error)
}
