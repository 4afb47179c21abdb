package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/worker"
)

// The kinds of the demo's executions.
const (
	kindIndex   = "index"
	kindFlaky   = "flaky"
	kindSummary = "summary"
	kindPublish = "publish"
	kindWatch   = "watch"
)

// demoWorkerCommand is a worker process of the demo. It ends when its standard
// input closes, that is when the demo does, however that ends.
func (a *app) demoWorkerCommand() *cobra.Command {
	var hold int
	c := &cobra.Command{Use: "demo-worker", Hidden: true, Short: "A worker process of the demo", Args: exactly()}
	c.RunE = a.withAnyStore(func(ctx context.Context, b ff.Backend, _ []string) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			_, _ = io.Copy(io.Discard, a.stdin)
			cancel()
		}()
		concurrency, lanes := 4, []ff.LaneID{demoLane, demoWatchLane}
		if hold > 0 {
			concurrency, lanes = 1, lanes[:1]
		}
		w, err := worker.Connect(ctx, b, worker.Config{Worker: "demo", Lanes: lanes, LeaseTTL: demoLease, DrainTimeout: demoLease,
			Concurrency: concurrency, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		a.demoHandlers(w, b, hold)
		if err := w.Run(ctx); err != nil && !ff.IsRetryable(err) {
			return err
		}
		return nil
	})
	c.Flags().IntVar(&hold, "hold", 0, "stop in the middle of this task, counted from 1")
	return c
}

func (a *app) demoHandlers(w *worker.Worker, b ff.Backend, hold int) {
	var tasks atomic.Int32
	worker.Handle(w, kindIndex, func(ctx context.Context, path []byte) (counts, error) {
		if int(tasks.Add(1)) == hold {
			fmt.Fprintln(a.stdout, worker.TaskFrom(ctx).ID())
			<-ctx.Done() // until the process is killed
			return counts{}, context.Cause(ctx)
		}
		c, text, err := countFile(string(path))
		if err == nil && !text {
			err = fmt.Errorf("%s is no text file any more", path)
		}
		return c, err
	})
	worker.Handle(w, kindFlaky, func(ctx context.Context, _ []byte) ([]byte, error) {
		if n := worker.TaskFrom(ctx).Execution().RetryCount; n < 2 {
			return nil, fmt.Errorf("failure %d, on purpose", n+1)
		}
		return nil, nil
	})
	worker.Handle(w, kindWatch, func(ctx context.Context, total int) (counted, error) { return watch(ctx, b, total) })
	worker.Handle(w, kindSummary, func(ctx context.Context, ids []ff.ExecutionID) (counts, error) { return sumUp(ctx, b, ids) })
	worker.Handle(w, kindPublish, func(ctx context.Context, p publication) (published, error) { return publishReport(ctx, b, p) })
}

// sumUp adds the results of executions.
func sumUp(ctx context.Context, b ff.Executions, ids []ff.ExecutionID) (sum counts, err error) {
	results := make([]counts, len(ids))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i, id := range ids {
		group.Go(func() error {
			data, err := b.ExecutionResult(ctx, id)
			if err == nil {
				err = json.Unmarshal(data, &results[i])
			}
			if err != nil {
				return errors.Join(fmt.Errorf("the result of %s", id), err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return sum, err
	}
	for _, c := range results {
		sum.add(c)
	}
	return sum, nil
}
