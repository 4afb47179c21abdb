package worker_test

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"github.com/flowfabric/flowfabric/worker"
)

// Logging writes one line for each task. (The id and the duration are left out
// here, as they differ each time.)
func ExampleLogging() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "took" || a.Key == "execution_id" {
			return slog.Attr{}
		}
		return a
	}}))
	b.Use(worker.Logging(log))
	worker.Handle(b.Worker, "good", func(context.Context, []byte) ([]byte, error) { return nil, nil })
	worker.Handle(b.Worker, "bad", func(context.Context, []byte) ([]byte, error) {
		return nil, worker.Permanent(errors.New("no such file"))
	})
	b.submit("good", "")
	b.submit("bad", "")
	b.work()
	// Output:
	// level=INFO msg=task kind=good attempt=0 outcome=ok
	// level=WARN msg=task kind=bad attempt=0 outcome=failed_permanently err="no such file"
}
