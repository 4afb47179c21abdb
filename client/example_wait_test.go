package client_test

import (
	"context"
	"fmt"
	"log"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/worker"
)

// A person approves what a handler waits for.
func ExampleClient_Approve() {
	url, stop := serveForExample()
	defer stop()
	c, err := client.New(url)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	w, err := worker.Connect(ctx, c.Backend(), worker.Config{Worker: "buyer", Lanes: []ff.LaneID{"orders"}})
	if err != nil {
		log.Fatal(err)
	}
	worker.Handle(w, "buy", func(ctx context.Context, what string) (string, error) {
		answers, err := worker.TaskFrom(ctx).Await(ctx, "approval", worker.WaitForSignal(client.Approved).Within(time.Hour))
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("bought %s for %s", what, answers[0].SourceIdentity), nil
	})
	running, end := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(running) }()
	defer func() { end(); <-ended }()

	submitted, err := c.Submit(ctx, "orders", "buy", "a chair")
	if err != nil {
		log.Fatal(err)
	}
	id := submitted.ID
	waitUntilSuspended(ctx, c, id)
	answer, err := c.Approve(ctx, id, client.Decision{By: "ann", Payload: map[string]int{"limit": 500}})
	fmt.Println(answer.Effect, err)
	fmt.Println(client.ResultOf[string](ctx, c, id))
	// Output:
	// resume_condition_satisfied <nil>
	// bought a chair for ann <nil>
}

// waitUntilSuspended looks whenever something has happened to the execution.
func waitUntilSuspended(ctx context.Context, c *client.Client, id ff.ExecutionID) {
	for q := (ff.ReadEvents{ID: id, Wait: time.Second}); ; {
		if state, err := c.State(ctx, id); err != nil || state == ff.StateSuspended {
			return
		}
		page, err := c.Backend().ReadEvents(ctx, q)
		if err != nil {
			return
		}
		q.After = page.Next
	}
}
