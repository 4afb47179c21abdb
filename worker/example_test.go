package worker_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/engine"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
	"github.com/flowfabric/flowfabric/worker"
)

type order struct {
	Item  string
	Count int
}

type invoice struct{ Text string }

// A whole service in one process: a store, the engine that moves executions on
// when time passes, and a worker. Other processes could submit to it, and work
// with it, through the server.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	store, err := sqlite.Open(ctx, ":memory:", sqlite.Options{}) // a path keeps the work
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	loops, err := engine.New(store, engine.Options{})
	if err != nil {
		log.Fatal(err)
	}
	go loops.Run(ctx)

	w, err := worker.Connect(ctx, store, worker.Config{Worker: "billing", Lanes: []flowfabric.LaneID{"orders"}})
	if err != nil {
		log.Fatal(err)
	}
	worker.Handle(w, "bill", func(_ context.Context, in order) (invoice, error) {
		return invoice{fmt.Sprintf("%d x %s", in.Count, in.Item)}, nil
	})
	stopped := make(chan error)
	go func() { stopped <- w.Run(ctx) }()

	submitted, err := store.CreateExecution(ctx, flowfabric.CreateExecution{
		Lane: "orders", Kind: "bill", Payload: []byte(`{"Item":"pencil","Count":3}`),
	})
	if err != nil {
		log.Fatal(err)
	}
	// Whoever waits for the end reads the events of the execution.
	for after := flowfabric.EventCursor(""); ; {
		events, err := store.ReadEvents(ctx, flowfabric.ReadEvents{
			ID: submitted.ID, Family: flowfabric.FamilyCompletion, After: after, Wait: time.Second,
		})
		if err != nil {
			log.Fatal(err)
		}
		if after = events.Next; len(events.Events) > 0 {
			break
		}
	}
	result, err := store.ExecutionResult(ctx, submitted.ID)
	fmt.Println(string(result), err)

	stop()
	fmt.Println("stopped:", <-stopped)
	// Output:
	// {"Text":"3 x pencil"} <nil>
	// stopped: <nil>
}
