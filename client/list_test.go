package client_test

import (
	"context"
	"errors"
	"testing"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
)

func TestListingsGoThroughAllPages(t *testing.T) {
	c, ctx := connected(t), within(t, patience)
	items := make([]client.Item, 25)
	for i := range items {
		items[i] = client.Item{Kind: []string{"a", "b"}[i%2]}
	}
	submitted, err := c.SubmitMany(ctx, "l", items)
	if err != nil {
		t.Fatal(err)
	}
	count := func(q ff.ListExecutions, limit int) (n int) {
		seen := map[ff.ExecutionID]bool{}
		for x, err := range c.List(ctx, q) {
			if err != nil {
				t.Fatal(err)
			}
			if seen[x.ID] {
				t.Errorf("%s comes twice", x.ID)
			}
			seen[x.ID] = true
			if n++; n == limit {
				break
			}
		}
		return n
	}
	for _, q := range []struct {
		q     ff.ListExecutions
		limit int
		want  int
	}{
		{ff.ListExecutions{Lane: "l", Limit: 10}, 0, 25}, {ff.ListExecutions{Limit: 10, Oldest: true}, 0, 25}, {ff.ListExecutions{Kind: "a", Limit: 1}, 0, 13},
		{ff.ListExecutions{State: ff.StateCompleted}, 0, 0}, {ff.ListExecutions{Limit: 10}, 12, 12}, {ff.ListExecutions{Lane: "other"}, 0, 0},
	} {
		if got := count(q.q, q.limit); got != q.want {
			t.Errorf("%+v: %d, want %d", q.q, got, q.want)
		}
	}
	for x, err := range c.List(ctx, ff.ListExecutions{Oldest: true}) {
		if err != nil || x.ID != submitted[0].ID {
			t.Errorf("the oldest is %s, %v", x.ID, err)
		}
		break
	}
	for _, err := range c.List(ctx, ff.ListExecutions{State: "nonsense"}) {
		if e, ok := ff.AsError(err); !ok || e.Field != "state" {
			t.Errorf("an unknown state: %v", err)
		}
	}
}

func TestEventsAreFollowed(t *testing.T) {
	c := connected(t)
	ctx, cancel := context.WithCancel(within(t, patience))
	defer cancel()
	got, err := c.Submit(ctx, "l", "k", nil)
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range c.Events(ctx, ff.ReadEvents{}) {
		t.Errorf("nothing happened yet, but %+v, %v", e, err)
	}
	cancelled := make(chan error, 1)
	go func() {
		_, err := c.Cancel(ctx, got.ID, "")
		cancelled <- err
	}()
	for e, err := range c.Events(ctx, ff.ReadEvents{Wait: patience}) {
		if errors.Is(err, context.Canceled) {
			break
		}
		if err != nil || e.ID != got.ID || e.Outcome != ff.OutcomeCancelled {
			t.Fatalf("%+v, %v", e, err)
		}
		if err := <-cancelled; err != nil {
			t.Error(err)
		}
		cancel()
	}
}

func TestWorkersAreListed(t *testing.T) {
	c, ctx := connected(t), within(t, patience)
	for _, i := range []ff.WorkerInstanceID{"a", "b", "c"} {
		_, err := c.Backend().RegisterWorker(ctx, ff.RegisterWorker{Claimant: someone(i), Namespace: "ns", Lanes: []ff.LaneID{"l"}, LivenessTTL: patience})
		if err != nil {
			t.Fatal(err)
		}
	}
	var names []ff.WorkerInstanceID
	for w, err := range c.Workers(ctx, ff.ListWorkers{AllNamespaces: true, Limit: 2}) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, w.Instance)
	}
	if len(names) != 3 || names[0] != "a" || names[2] != "c" {
		t.Errorf("workers %v", names)
	}
}
