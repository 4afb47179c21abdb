package worker_test

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/flowfabric/flowfabric/worker"
)

// Tracing runs each task in a span; what the handler traces with its context
// comes below it.
func ExampleTracing() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	spans := tracetest.NewSpanRecorder()
	provider := trace.NewTracerProvider(trace.WithSpanProcessor(spans))
	tracer := provider.Tracer("example")
	b.Use(worker.Tracing(tracer))
	worker.Handle(b.Worker, "sync", func(ctx context.Context, _ []byte) ([]byte, error) {
		_, span := tracer.Start(ctx, "query")
		span.End()
		return nil, worker.Permanent(errors.New("the database is gone"))
	})
	b.submit("sync", "")
	b.work()
	for _, span := range spans.Ended() {
		fmt.Printf("%s, below another: %v, status: %s\n", span.Name(), span.Parent().IsValid(), span.Status().Code)
	}
	// Output:
	// query, below another: true, status: Unset
	// task sync, below another: false, status: Error
}
