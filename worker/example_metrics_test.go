package worker_test

import (
	"context"
	"fmt"
	"log"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/flowfabric/flowfabric/worker"
)

// The Meter of the configuration counts what the worker does with leases and
// attempts; the middleware Metrics counts tasks by kind.
func ExampleMetrics() {
	reader := metric.NewManualReader()
	meter := metric.NewMeterProvider(metric.WithReader(reader)).Meter("example")
	b := newWorkbench(worker.Config{Meter: meter})
	defer b.close()
	tasks, err := worker.Metrics(meter)
	if err != nil {
		log.Fatal(err)
	}
	b.Use(tasks)
	worker.Handle(b.Worker, "job", func(context.Context, []byte) ([]byte, error) { return nil, nil })
	b.submit("job", "")
	b.submit("job", "")
	b.work()

	var all metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &all); err != nil {
		log.Fatal(err)
	}
	for _, m := range all.ScopeMetrics[0].Metrics {
		if sum, ok := m.Data.(metricdata.Sum[int64]); ok {
			fmt.Println(m.Name, sum.DataPoints[0].Value)
		}
	}
	// Unordered output:
	// ff_attempt_outcome_total 2
	// ff_claimed_executions_total 2
	// ff_worker_tasks_total 2
}
