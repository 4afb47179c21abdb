package worker_test

import (
	"context"
	"fmt"
	"time"

	"github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/worker"
)

// Await makes a handler wait for a person, for days if need be, while nothing runs and
// nothing is held in memory. The token that Waitpoint gives lets its owner answer; it
// belongs in a mail or behind a button.
func ExampleTask_Await() {
	b := newWorkbench(worker.Config{})
	defer b.close()
	var mail flowfabric.DeliverSignal
	b.HandleTask("deploy", func(ctx context.Context, t *worker.Task) ([]byte, error) {
		wp, err := t.Waitpoint(ctx, "approval", 0)
		if err != nil {
			return nil, err
		}
		if wp.Pending {
			fmt.Println("asking ann for her approval")
			mail = flowfabric.DeliverSignal{ID: t.ID(), WaitpointID: wp.ID, Token: wp.Token}
		}
		answers, err := t.Await(ctx, "approval", worker.WaitForSignal("").Within(72*time.Hour).OrFail().Because(flowfabric.SuspendedForApproval))
		if err != nil {
			return nil, err
		}
		fmt.Println(answers[0].SourceIdentity, "says", answers[0].Name)
		return []byte("deployed"), nil
	})
	id := b.submit("deploy", "")
	b.work()
	b.print(id)

	b.advance(48 * time.Hour)
	mail.Name, mail.SourceIdentity = "approved", "ann"
	answer, err := b.store.DeliverSignal(context.Background(), mail)
	fmt.Println(answer.Effect, err)
	b.work()
	b.print(id)
	// Output:
	// asking ann for her approval
	// suspended
	// resume_condition_satisfied <nil>
	// ann says approved
	// completed with deployed
}
