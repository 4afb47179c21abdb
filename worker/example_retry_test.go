package worker_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flowfabric/flowfabric/worker"
)

// An error fails the attempt. The policy of the execution says how many more
// follow and after which wait; RetryAfter sets the wait of this one, for example
// when a service has said when to come back.
func ExampleRetryAfter() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	tries := 0
	worker.Handle(b.Worker, "fetch", func(context.Context, []byte) (string, error) {
		if tries++; tries == 1 {
			return "", worker.RetryAfter(errors.New("429 too many requests"), time.Minute)
		}
		return "fetched", nil
	})
	id := b.submit("fetch", "")
	b.work()
	x := b.execution(id)
	fmt.Println(x.PublicState(), "for", x.DelayUntil.Sub(noon))
	b.advance(time.Minute)
	b.work()
	fmt.Println(tries, "attempts:", b.execution(id).State.Outcome)
	// Output:
	// delayed for 1m0s
	// 2 attempts: success
}
