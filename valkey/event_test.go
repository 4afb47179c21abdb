package valkey_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

// A reader asks many partitions, and meanwhile events are added to those that it has
// asked and to those that it has not.
func TestAReaderOfManyPartitionsSeesEveryEventOfConcurrentCommands(t *testing.T) {
	server := valkeytest.Start(t)
	const lanes, writers, each = 256, 16, 600
	s := openStore(t, server.URL(), valkey.Options{Partitions: ff.PartitionConfig{Flow: 256}})
	readEveryEvent(t, s, lanes, writers, each)
}

// The same on a cluster, whose nodes are asked at once.
func TestAReaderOfManyPartitionsOfAClusterSeesEveryEvent(t *testing.T) {
	cluster := valkeytest.StartCluster(t)
	s := openStore(t, cluster.URL(), valkey.Options{Partitions: ff.PartitionConfig{Flow: 256}})
	readEveryEvent(t, s, 256, 8, 100)
}

// readEveryEvent has writers cancel executions of many lanes, each of which is an
// event, and reads all of these meanwhile.
func readEveryEvent(t *testing.T, s *valkey.Store, lanes, writers, each int) {
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				lane := ff.LaneID(fmt.Sprintf("lane-%d", (w*each+i)%lanes))
				r, err := s.CreateExecution(ctx, ff.CreateExecution{Lane: lane, Kind: "k"})
				if err == nil {
					_, err = s.CancelExecution(ctx, ff.CancelExecution{ID: r.ID})
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	written := make(chan struct{})
	go func() { writing.Wait(); close(written) }()
	seen, q, over := map[ff.ExecutionID]int{}, ff.ReadEvents{}, false
	for {
		r, err := s.ReadEvents(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range r.Events {
			seen[e.ID]++
		}
		q.After = r.Next
		if over && len(r.Events) == 0 {
			break
		}
		select {
		case <-written:
			over = true
		default:
		}
	}
	if len(seen) != writers*each {
		t.Errorf("%d of %d events were missed", writers*each-len(seen), writers*each)
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("the event of %s was read %d times", id, n)
		}
	}
}

// What is no event, written by whom ever, is left out; the reader goes on behind it
// and misses nothing of the other partitions.
func TestAPageOfUnreadableEventsIsPassed(t *testing.T) {
	d := newDamaged(t)
	lane := d.lane()
	var last ff.ExecutionID
	for i := range 30 {
		id := ff.MakeExecutionID(uint16(i%2), ff.NewExecutionID(lane, fewPartitions).UUID())
		if _, err := d.CreateExecution(t.Context(), ff.CreateExecution{ID: id, Lane: lane, Kind: "k"}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.CancelExecution(t.Context(), ff.CancelExecution{ID: id}); err != nil {
			t.Fatal(err)
		}
		d.do(t, "XADD", "ffx:part:{fp:0}:events", "*", "e", "nonsense")
		d.clock.Advance(time.Millisecond)
		last = id
	}
	seen, q := []ff.ExecutionID(nil), ff.ReadEvents{Limit: 3}
	for {
		r, err := d.ReadEvents(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if r.Next == q.After {
			break
		}
		for _, e := range r.Events {
			seen = append(seen, e.ID)
		}
		q.After = r.Next
	}
	if len(seen) != 30 || seen[29] != last {
		t.Errorf("%d events of 30 were read", len(seen))
	}
}
