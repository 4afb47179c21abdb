package worker_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flowfabric/flowfabric/worker"
)

// CircuitBreaker spares a kind that keeps failing: its tasks are delayed until
// the cool-down is over, and their attempts are not used up.
func ExampleCircuitBreaker() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	b.Use(worker.CircuitBreaker(2, time.Hour))
	calls := 0
	worker.Handle(b.Worker, "call", func(context.Context, []byte) ([]byte, error) {
		calls++
		return nil, worker.Permanent(errors.New("connection refused"))
	})
	first, second, third := b.submit("call", ""), b.submit("call", ""), b.submit("call", "")
	b.work()
	b.print(first)
	b.print(second)
	b.print(third)
	fmt.Println(calls, "calls")
	// Output:
	// failed after 1 attempts: connection refused (handler_error)
	// failed after 1 attempts: connection refused (handler_error)
	// delayed
	// 2 calls
}
