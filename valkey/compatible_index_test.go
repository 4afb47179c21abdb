package valkey_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

// What is missing in an index is put back where it belongs, whatever lost it.
func TestRepairOfIndexesWithoutExtensions(t *testing.T) {
	server := valkeytest.Start(t)
	b := without(server.URL())(t)
	lane, tag := ff.LaneID("main"), fmt.Sprintf("ff:idx:{fp:%d}:", fewPartitions.LanePartition("main"))
	p := &pair{T: t, one: b, two: b, clock: valkeytest.NewClock(t)}
	active := p.submit(b, ff.CreateExecution{})
	c := p.claim(b, active)
	done := p.submit(b, ff.CreateExecution{})
	ended := p.claim(b, done)
	check(b.CompleteExecution(t.Context(), ff.CompleteExecution{LeaseRef: ended.Ref()}))(p)
	waiting := p.submit(b, ff.CreateExecution{Priority: 3})
	delayed := p.submit(b, ff.CreateExecution{Delay: time.Hour})
	places := map[string]ff.ExecutionID{"active": active, "terminal": done, "eligible": waiting, "delayed": delayed}
	scores := map[string]float64{}
	for index, id := range places {
		key := tag + "lane:" + string(lane) + ":" + index
		score, err := server.Do("ZSCORE", key, id.String()).AsFloat64()
		if err != nil {
			t.Fatalf("%s: %v", index, err)
		}
		scores[key] = score
		if err := server.Do("ZREM", key, id.String()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	gone := ff.MakeExecutionID(fewPartitions.LanePartition(lane), uuid.New())
	if err := server.Do("SADD", tag+"all_executions", gone.String()).Error(); err != nil {
		t.Fatal(err)
	}
	p.sweep(b, ff.SweepIndex, len(places)+1)
	p.sweep(b, ff.SweepIndex, 0)
	for index, id := range places {
		key := tag + "lane:" + string(lane) + ":" + index
		if score, err := server.Do("ZSCORE", key, id.String()).AsFloat64(); err != nil || score != scores[key] {
			t.Errorf("%s has the score %f, want %f (%v)", index, score, scores[key], err)
		}
	}
	p.claim(b, waiting)

	// A peer revokes a lease: claims find it at the latest after the repair.
	peer := newPeer(t, server)
	peer.good(peer.fcall("ff_revoke_lease", []string{peer.key(active.String(), "core"), peer.key(active.String(), "lease:current"),
		peer.key(active.String(), "lease:history"), peer.index(active.String(), "lease_expiry"), peer.leases(active.String(), "i")},
		active.String(), c.Execution.Lease.ID.String(), "peer"))
	key := tag + "lane:" + string(lane) + ":active"
	if err := server.Do("ZADD", key, "1", active.String()).Error(); err != nil { // as if its first end had passed
		t.Fatal(err)
	}
	p.sweep(b, ff.SweepIndex, 1)
	if again := p.claim(b, active); again.Execution.ReclaimCount != 1 {
		t.Errorf("claimed %+v", again.Execution)
	}
}

// Sweeps look at all partitions of all lanes, in turns when there are many.
func TestSweepsOfManyLanesWithoutExtensions(t *testing.T) {
	clock := valkeytest.NewClock(t)
	server := valkeytest.Start(t, valkeytest.WithClock(clock))
	b := openBackend(t, server.URL(), valkey.Options{Partitions: ff.PartitionConfig{Flow: 256, Budget: 2, Quota: 2}, Extensions: valkey.ExtensionsOff})
	const lanes, each = 20, 16
	var batch ff.CreateExecutions
	for i := range lanes {
		for j := range each {
			batch.Executions = append(batch.Executions, ff.CreateExecution{ID: ff.MakeExecutionID(uint16(j*256/each), uuid.New()),
				Lane: ff.LaneID(fmt.Sprintf("lane %d", i)), Kind: "k", Delay: time.Minute})
		}
	}
	if _, err := b.CreateExecutions(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	clock.Advance(time.Minute)
	promoted := 0
	for range 1 + lanes*256/2048 {
		r, err := b.Sweep(t.Context(), ff.Sweep{Kind: ff.SweepDelayed})
		if err != nil {
			t.Fatal(err)
		}
		promoted += r.Processed
	}
	if promoted != lanes*each {
		t.Errorf("%d of %d were promoted", promoted, lanes*each)
	}
}
