package worker_test

import (
	"context"
	"fmt"

	"github.com/flowfabric/flowfabric/worker"
)

// Progress tells people how far an attempt is. It fails, and the context of the
// task ends, when the execution is no longer this worker's.
func ExampleTask_Progress() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	id := b.submit("convert", `["a.png", "b.png"]`)
	worker.Handle(b.Worker, "convert", func(ctx context.Context, files []string) (int, error) {
		for i, file := range files {
			percent := 100 * (i + 1) / len(files)
			if err := worker.TaskFrom(ctx).Progress(ctx, percent, "converted "+file); err != nil {
				return 0, err
			}
			p := b.execution(id).Progress
			fmt.Printf("%d%% %s\n", *p.Percent, p.Message)
		}
		return len(files), nil
	})
	b.work()
	b.print(id)
	// Output:
	// 50% converted a.png
	// 100% converted b.png
	// completed with 2
}
