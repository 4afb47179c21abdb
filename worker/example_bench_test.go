package worker_test

import (
	"context"
	"fmt"
	"log"
	"sync/atomic"
	"time"

	"github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
	"github.com/flowfabric/flowfabric/worker"
)

// workbench is what the examples share: a store in memory, whose clock the
// example moves, with one worker. See the example of the package for the parts of
// a real service.
type workbench struct {
	*worker.Worker
	store  *sqlite.Store
	passed atomic.Int64
}

var noon = time.Date(2030, time.January, 1, 12, 0, 0, 0, time.UTC)

func newWorkbench(cfg worker.Config) *workbench {
	ctx := context.Background()
	b := &workbench{}
	var err error
	b.store, err = sqlite.Open(ctx, ":memory:", sqlite.Options{Clock: func() time.Time { return noon.Add(time.Duration(b.passed.Load())) }})
	if err != nil {
		log.Fatal(err)
	}
	cfg.Worker, cfg.Lanes = "example", []flowfabric.LaneID{"default"}
	if b.Worker, err = worker.Connect(ctx, b.store, cfg); err != nil {
		log.Fatal(err)
	}
	return b
}

func (b *workbench) close() {
	if err := b.Close(context.Background()); err != nil {
		log.Fatal(err)
	}
	if err := b.store.Close(); err != nil {
		log.Fatal(err)
	}
}

// submit submits an execution that may fail twice; edit changes it before.
func (b *workbench) submit(kind, payload string, edit ...func(*flowfabric.CreateExecution)) flowfabric.ExecutionID {
	policy := flowfabric.DefaultExecutionPolicy()
	policy.Retry = flowfabric.FixedRetry(2, 0)
	c := flowfabric.CreateExecution{Lane: "default", Kind: kind, Payload: []byte(payload), Policy: policy}
	for _, f := range edit {
		f(&c)
	}
	r, err := b.store.CreateExecution(context.Background(), c)
	if err != nil {
		log.Fatal(err)
	}
	return r.ID
}

// work runs what is due.
func (b *workbench) work() {
	for ran := true; ran; {
		var err error
		if ran, err = b.RunOne(context.Background()); err != nil {
			log.Fatal(err)
		}
	}
}

// advance moves the clock and does what becomes due.
func (b *workbench) advance(d time.Duration) {
	b.passed.Add(int64(d))
	for _, kind := range flowfabric.SweepKinds {
		if _, err := b.store.Sweep(context.Background(), flowfabric.Sweep{Kind: kind}); err != nil {
			log.Fatal(err)
		}
	}
}

func (b *workbench) execution(id flowfabric.ExecutionID) flowfabric.Execution {
	x, err := b.store.Execution(context.Background(), id)
	if err != nil {
		log.Fatal(err)
	}
	return x
}

// print prints what became of an execution.
func (b *workbench) print(id flowfabric.ExecutionID) {
	x := b.execution(id)
	result, err := b.store.ExecutionResult(context.Background(), id)
	if err != nil {
		log.Fatal(err)
	}
	switch {
	case x.FailureReason != "":
		fmt.Printf("%s after %d attempts: %s (%s)\n", x.PublicState(), x.TotalAttempts, x.FailureReason, x.FailureCategory)
	case x.CancellationReason != "":
		fmt.Printf("%s by the %s: %s\n", x.PublicState(), x.CancelledBy, x.CancellationReason)
	case len(result) > 0:
		fmt.Printf("%s with %s\n", x.PublicState(), result)
	default:
		fmt.Println(x.PublicState())
	}
}
