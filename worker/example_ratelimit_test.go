package worker_test

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"github.com/flowfabric/flowfabric/worker"
)

// RateLimit lets tasks begin at the rate that, for example, a service allows its
// callers. Tasks wait for their turn with their lease renewed.
func ExampleRateLimit() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	const every = 10 * time.Millisecond
	b.Use(worker.RateLimit(rate.NewLimiter(rate.Every(every), 1)))
	worker.Handle(b.Worker, "call", func(context.Context, []byte) ([]byte, error) { return nil, nil })
	for range 4 {
		b.submit("call", "")
	}
	begin := time.Now()
	b.work()
	fmt.Println("four calls took three pauses:", time.Since(begin) >= 3*every)
	// Output:
	// four calls took three pauses: true
}
