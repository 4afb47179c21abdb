package worker_test

import (
	"context"

	"github.com/flowfabric/flowfabric/worker"
)

// Payloads and results are JSON of the handler's own types. A payload that does
// not fit the type fails at once: no retry could help.
func ExampleHandle() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	worker.Handle(b.Worker, "area", func(_ context.Context, in struct{ Width, Height float64 }) (float64, error) {
		return in.Width * in.Height, nil
	})
	good := b.submit("area", `{"Width": 2, "Height": 2.5}`)
	bad := b.submit("area", `{"Width": "wide"}`)
	b.work()
	b.print(good)
	b.print(bad)
	// Output:
	// completed with 5
	// failed after 1 attempts: extractor: payload decode failed: json: cannot unmarshal string into Go struct field .Width of type float64 (extractor_payload_decode)
}
