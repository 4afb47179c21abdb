// Command stream-output writes while it works, and follows what it writes: a handler
// appends frames and keeps a summary up to date, and a reader prints each frame the
// moment it is stored, across a retry.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/engine"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
	"github.com/flowfabric/flowfabric/worker"
)

func main() {
	db := flag.String("db", ":memory:", "SQLite file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, *db); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer, db string) (err error) {
	store, err := sqlite.Open(ctx, db, sqlite.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	stop, err := work(ctx, store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()

	retries := ff.DefaultExecutionPolicy()
	retries.Retry = ff.FixedRetry(2, 100*time.Millisecond)
	submitted, err := store.CreateExecution(ctx, ff.CreateExecution{
		Lane: "default", Kind: "answer", Payload: []byte(`"durable execution is not hard"`), Policy: retries})
	if err != nil {
		return err
	}
	return follow(ctx, out, store, submitted.ID)
}

// answer writes one word after the other. The first attempt breaks off.
func answer(ctx context.Context, words string) (string, error) {
	task := worker.TaskFrom(ctx)
	stream := task.Stream()
	for i, word := range strings.Fields(words) {
		if i == 2 && task.Attempt().Index == 0 {
			return "", errors.New("the connection to the model broke off")
		}
		// Sent in the background, many in one call; stored before the task ends.
		if err := stream.Append(ctx, ff.NewFrame{Type: "token", Payload: []byte(word + " ")}); err != nil {
			return "", err
		}
		// The summary is there for those who come late.
		if err := stream.Patch(ctx, map[string]any{"tokens": i + 1}); err != nil {
			return "", err
		}
	}
	return words, nil
}

// follow prints what comes, attempt after attempt, until the execution has ended. With
// a client.Client it is c.Follow, and the store is on another machine.
func follow(ctx context.Context, out io.Writer, store ff.Backend, id ff.ExecutionID) error {
	last := ff.StreamRef{ID: id}
	for o, err := range client.Follow(ctx, store, ff.TailFrames{StreamRef: last}) {
		if err != nil {
			return err
		}
		if o.AttemptIndex > last.AttemptIndex {
			last.AttemptIndex = o.AttemptIndex
			fmt.Fprintf(out, "\nattempt %d: ", o.AttemptIndex)
		}
		if o.Type == "token" {
			fmt.Fprintf(out, "%s", o.Payload)
		}
	}
	summary, err := store.Summary(ctx, last)
	fmt.Fprintf(out, "\nsummary: %s\n", summary.Document)
	return err
}

// work runs the background loops and a worker until stop is called.
func work(ctx context.Context, store ff.Backend) (stop func() error, err error) {
	loops, err := engine.New(store, engine.Options{})
	if err != nil {
		return nil, err
	}
	w, err := worker.Connect(ctx, store, worker.Config{Worker: "model", Lanes: []ff.LaneID{"default"}})
	if err != nil {
		return nil, err
	}
	worker.Handle(w, "answer", answer)
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 2)
	go func() { ended <- loops.Run(background) }()
	go func() { ended <- w.Run(background) }()
	return func() error {
		cancel()
		return errors.Join(<-ended, <-ended)
	}, nil
}
