// Command hello submits an execution and works on it, in one process, on a SQLite
// file. Nothing else is needed: no server, no broker.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/engine"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
	"github.com/flowfabric/flowfabric/worker"
)

type greeting struct{ Name string }

func main() {
	db := flag.String("db", "hello.db", "SQLite file, or :memory:")
	name := flag.String("name", "world", "whom to greet")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, *db, *name); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer, db, name string) (err error) {
	store, err := sqlite.Open(ctx, db, sqlite.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()

	stop, err := start(ctx, store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()

	payload, err := json.Marshal(greeting{name})
	if err != nil {
		return err
	}
	submitted, err := store.CreateExecution(ctx, ff.CreateExecution{Lane: "default", Kind: "greet", Payload: payload})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "submitted", submitted.ID)

	if err := wait(ctx, store, submitted.ID); err != nil {
		return err
	}
	result, err := store.ExecutionResult(ctx, submitted.ID)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "result %s\n", result)
	return nil
}

// start runs the background loops and a worker with its handler; stop ends both.
func start(ctx context.Context, store ff.Backend) (stop func() error, err error) {
	loops, err := engine.New(store, engine.Options{})
	if err != nil {
		return nil, err
	}
	w, err := worker.Connect(ctx, store, worker.Config{Worker: "greeter", Lanes: []ff.LaneID{"default"}})
	if err != nil {
		return nil, err
	}
	worker.Handle(w, "greet", func(_ context.Context, in greeting) (string, error) {
		return "hello, " + in.Name, nil
	})

	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 2)
	go func() { ended <- loops.Run(background) }()
	go func() { ended <- w.Run(background) }()
	return func() error {
		cancel()
		return errors.Join(<-ended, <-ended)
	}, nil
}

// wait returns when the execution has ended. The event log wakes it, so nothing is
// polled.
func wait(ctx context.Context, store ff.Events, id ff.ExecutionID) error {
	q := ff.ReadEvents{ID: id, Family: ff.FamilyCompletion, Wait: ff.MaxClaimWait}
	for {
		page, err := store.ReadEvents(ctx, q)
		if err != nil {
			return err
		}
		if len(page.Events) > 0 {
			return nil
		}
		q.After = page.Next
	}
}
