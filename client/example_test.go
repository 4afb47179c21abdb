package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http/httptest"
	"strings"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/engine"
	"github.com/flowfabric/flowfabric/server"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
	"github.com/flowfabric/flowfabric/worker"
)

// serveForExample starts a server with an engine, as `flowfabric serve` does, and
// returns its URL.
func serveForExample() (url string, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	store, err := sqlite.Open(ctx, ":memory:", sqlite.Options{})
	if err != nil {
		log.Fatal(err)
	}
	e, err := engine.New(store, engine.Options{})
	if err != nil {
		log.Fatal(err)
	}
	s, err := server.New(store, server.Options{})
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	hs := httptest.NewServer(s.Handler())
	return hs.URL, func() {
		hs.Close()
		cancel()
		<-ended
		_ = store.Close()
	}
}

type mail struct{ To string }

// greeter is a worker on another machine: it needs only the server's URL.
func greeter(ctx context.Context, url string) (wait func()) {
	c, err := client.New(url)
	if err != nil {
		log.Fatal(err)
	}
	w, err := worker.Connect(ctx, c.Backend(), worker.Config{Worker: "greeter", Lanes: []ff.LaneID{"mail"}})
	if err != nil {
		log.Fatal(err)
	}
	worker.Handle(w, "greet", func(_ context.Context, in mail) (string, error) {
		if !strings.Contains(in.To, "@") {
			return "", worker.Permanent(fmt.Errorf("%q is not an address", in.To))
		}
		return "hello, " + in.To, nil
	})
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	return func() { <-ended; _ = c.Close() }
}

// Submit an execution, wait for a worker to run it and read the result.
func Example() {
	url, stop := serveForExample()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	wait := greeter(ctx, url)
	defer wait()
	defer cancel()

	c, err := client.New(url)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	submitted, err := c.Submit(ctx, "mail", "greet", mail{To: "ann@example.com"})
	if err != nil {
		log.Fatal(err)
	}
	text, err := client.ResultOf[string](ctx, c, submitted.ID)
	fmt.Println(text, err)

	// An execution that fails for good says why.
	submitted, err = c.Submit(ctx, "mail", "greet", mail{To: "nobody"})
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.ResultOf[string](ctx, c, submitted.ID)
	var unsuccessful *client.UnsuccessfulError
	if errors.As(err, &unsuccessful) {
		fmt.Println(unsuccessful.Execution.PublicState(), unsuccessful.Execution.FailureReason)
	}
	// Output:
	// hello, ann@example.com <nil>
	// failed "nobody" is not an address
}

// A submit that may be repeated, for later, with retries and labels.
func ExampleClient_Submit() {
	url, stop := serveForExample()
	defer stop()
	c, err := client.New(url)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	for range 2 {
		got, err := c.Submit(context.Background(), "billing", "charge", map[string]int{"cents": 500},
			client.IdempotencyKey("invoice-4711"),
			client.Delay(time.Hour),
			client.Priority(5),
			client.Retry(ff.ExponentialRetry(5, time.Second, time.Minute)),
			client.Tags(map[string]string{"customer.id": "42"}))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(got.State, got.Duplicate)
	}
	// Output:
	// delayed false
	// delayed true
}

// Go through all executions of a lane that wait, and cancel them.
func ExampleClient_List() {
	url, stop := serveForExample()
	defer stop()
	c, err := client.New(url)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()

	items := []client.Item{{Kind: "greet", Payload: 1}, {Kind: "greet", Payload: 2}, {Kind: "greet", Payload: 3}}
	if _, err := c.SubmitMany(ctx, "mail", items); err != nil {
		log.Fatal(err)
	}
	for x, err := range c.List(ctx, ff.ListExecutions{Lane: "mail", State: ff.StateWaiting}) {
		if err != nil {
			log.Fatal(err)
		}
		if _, err := c.Cancel(ctx, x.ID, "not needed"); err != nil {
			log.Fatal(err)
		}
	}
	lanes, err := c.Lanes(ctx)
	fmt.Println(lanes[0].Lane, lanes[0].Counts[ff.StateCancelled], err)
	// Output:
	// mail 3 <nil>
}

// Errors are those of the store, whatever lies between.
func ExampleClient_Cancel() {
	url, stop := serveForExample()
	defer stop()
	c, err := client.New(url)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()

	submitted, err := c.Submit(ctx, "mail", "greet", nil)
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		_, err = c.Cancel(ctx, submitted.ID, "not needed")
		fmt.Println(errors.Is(err, ff.ErrExecutionNotActive))
	}
	// Output:
	// false
	// true
}
