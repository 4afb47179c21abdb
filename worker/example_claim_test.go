package worker_test

import (
	"context"
	"fmt"
	"log"

	"github.com/flowfabric/flowfabric/worker"
)

// A program with a loop of its own claims tasks one by one. The lease of a task
// renews itself until the task is ended.
func ExampleWorker_Claim() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	id := b.submit("any kind", "work")

	ctx := context.Background()
	t, err := b.Claim(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("got", string(t.Payload()))
	if err := t.Complete(ctx, []byte("done")); err != nil {
		log.Fatal(err)
	}
	fmt.Println("ending it again:", t.Release(ctx, "changed my mind"))
	b.print(id)
	// Output:
	// got work
	// ending it again: the task has been ended
	// completed with done
}
