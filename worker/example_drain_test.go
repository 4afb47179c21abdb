package worker_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/flowfabric/flowfabric/worker"
)

// When its context ends, Run claims no more and gives running tasks DrainTimeout
// to finish. Then it interrupts them and hands them back: another worker goes on
// with the same attempt at once.
func ExampleWorker_Run() {
	b := newWorkbench(worker.Config{DrainTimeout: time.Millisecond})
	defer b.close()
	ctx, stop := context.WithCancel(context.Background())
	worker.Handle(b.Worker, "endless", func(ctx context.Context, _ []byte) ([]byte, error) {
		stop() // as if the process got a signal, see signal.NotifyContext
		<-ctx.Done()
		fmt.Println("interrupted:", context.Cause(ctx))
		return nil, ctx.Err()
	})
	id := b.submit("endless", "")
	if err := b.Run(ctx); err != nil {
		log.Fatal(err)
	}
	x := b.execution(id)
	fmt.Printf("%s, attempt %d is %s\n", x.PublicState(), x.Attempt.Index, x.Attempt.State)
	// Output:
	// interrupted: the worker is shutting down
	// waiting, attempt 0 is suspended
}
