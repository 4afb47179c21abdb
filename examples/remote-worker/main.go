// Command remote-worker is a server, a worker and a submitter that share nothing
// but the URL of the server. Start each in a terminal, or on a machine, of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"strings"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/engine"
	"github.com/flowfabric/flowfabric/server"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
	"github.com/flowfabric/flowfabric/worker"
)

const usage = "usage: remote-worker [-url URL] [-listen ADDRESS] [-db FILE] serve | work | submit TEXT"

func main() {
	url := flag.String("url", "http://"+server.DefaultListen, "URL of the server, for work and submit")
	listen := flag.String("listen", server.DefaultListen, "address of the server, for serve")
	db := flag.String("db", "remote-worker.db", "SQLite file, for serve")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	var err error
	switch {
	case flag.NArg() == 1 && flag.Arg(0) == "serve":
		err = serve(ctx, *db, *listen, func(url string) { fmt.Println("serving on", url) })
	case flag.NArg() == 1 && flag.Arg(0) == "work":
		err = work(ctx, *url, slog.Default())
	case flag.NArg() == 2 && flag.Arg(0) == "submit":
		err = submit(ctx, os.Stdout, *url, flag.Arg(1))
	default:
		err = errors.New(usage)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// serve serves a store until ctx ends; `flowfabric serve` does the same with more
// options. It calls ready with its URL.
func serve(ctx context.Context, db, listen string, ready func(url string)) (err error) {
	store, err := sqlite.Open(ctx, db, sqlite.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	loops, err := engine.New(store, engine.Options{})
	if err != nil {
		return err
	}
	api, err := server.New(store, server.Options{Listen: listen})
	if err != nil {
		return err
	}
	listener, err := api.Bind(ctx)
	if err != nil {
		return err
	}
	ready("http://" + listener.Addr().String())
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- loops.Run(background) }()
	err = api.Serve(ctx, listener)
	stop()
	return errors.Join(err, <-ended)
}

// work claims executions over HTTP until ctx ends.
func work(ctx context.Context, url string, log *slog.Logger) error {
	c, err := client.New(url, client.WithToken(os.Getenv("FF_API_TOKEN")))
	if err != nil {
		return err
	}
	defer c.Close()

	w, err := worker.Connect(ctx, c.Backend(), worker.Config{
		Worker: "shouter", Lanes: []ff.LaneID{"default"}, Concurrency: 8, Logger: log,
	})
	if err != nil {
		return err
	}
	w.Use(worker.Logging(log))
	worker.Handle(w, "shout", func(_ context.Context, text string) (string, error) {
		return strings.ToUpper(text), nil
	})
	return w.Run(ctx) // drains when ctx ends
}

// submit submits an execution, waits for a worker to do it and prints the result.
func submit(ctx context.Context, out io.Writer, url, text string) error {
	c, err := client.New(url, client.WithToken(os.Getenv("FF_API_TOKEN")))
	if err != nil {
		return err
	}
	defer c.Close()

	submitted, err := c.Submit(ctx, "default", "shout", text)
	if err != nil {
		return err
	}
	result, err := client.ResultOf[string](ctx, c, submitted.ID)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, result)
	return nil
}
