package worker_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"strings"

	"github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/worker"
)

// printOutput prints the frames of the first attempt.
func (b *workbench) printOutput(id flowfabric.ExecutionID) {
	page, err := b.store.ReadFrames(context.Background(), flowfabric.ReadFrames{StreamRef: flowfabric.StreamRef{ID: id}})
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range page.Frames {
		fmt.Printf("%s: %s\n", f.Type, strings.TrimSpace(string(f.Payload)))
	}
	fmt.Println("closed:", page.ClosedReason)
}

// What a handler writes can be followed while it runs: tokens of a model, lines of a
// command, records of a logger.
func ExampleTask_Stream() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	worker.Handle(b.Worker, "answer", func(ctx context.Context, question string) (string, error) {
		out := worker.TaskFrom(ctx).Stream()
		answer := strings.Fields("it depends on " + question)
		for _, token := range answer {
			if err := out.Append(ctx, flowfabric.NewFrame{Type: "token", Payload: []byte(token)}); err != nil {
				return "", err
			}
		}
		return strings.Join(answer, " "), nil
	})
	id := b.submit("answer", `"you"`)
	b.work()
	b.printOutput(id)
	// Output:
	// token: it
	// token: depends
	// token: on
	// token: you
	// closed: attempt_success
}

// Everything that takes a writer or a logger can write into the output.
func ExampleStream_Writer() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	b.HandleTask("build", func(_ context.Context, t *worker.Task) ([]byte, error) {
		stdout := t.Stream().Writer(flowfabric.NewFrame{Type: "stdout"})
		fmt.Fprintln(stdout, "compiling") // or exec.Cmd.Stdout
		withoutTime := func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
		logger := slog.New(t.Stream().Handler(&slog.HandlerOptions{ReplaceAttr: withoutTime}))
		logger.Info("compiled", "files", 3)
		return nil, nil
	})
	id := b.submit("build", "")
	b.work()
	b.printOutput(id)
	// Output:
	// stdout: compiling
	// log: {"level":"INFO","msg":"compiled","files":3}
	// closed: attempt_success
}

// A summary says where an attempt is, however long its output was. Each patch is
// merged into it.
func ExampleStream_Patch() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	worker.Handle(b.Worker, "import", func(ctx context.Context, rows int) (int, error) {
		out := worker.TaskFrom(ctx).Stream()
		for n := 1; n <= rows; n++ {
			if err := out.Patch(ctx, map[string]any{"rows": n, "state": "reading"}); err != nil {
				return n, err
			}
		}
		return rows, out.Patch(ctx, map[string]any{"state": nil})
	})
	id := b.submit("import", "3")
	b.work()
	summary, err := b.store.Summary(context.Background(), flowfabric.StreamRef{ID: id})
	fmt.Println(string(summary.Document), "is version", summary.Version, err)
	// Output:
	// {"rows":3} is version 4 <nil>
}
