package valkey_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

func clusterURL(c *valkeytest.Cluster) string {
	return "valkey://" + strings.Join(c.Addrs(), ",") + "?cluster=true&timeout=2s"
}

func sentinelURL(s *valkeytest.Sentinel) string {
	return "valkey://" + strings.Join(s.Addrs(), ",") + "?sentinel=" + s.Name + "&timeout=2s"
}

// replicated waits until the replica of a primary has all that the primary has
// answered so far. Replication is asynchronous: what was acknowledged without that
// may be lost with the primary, and then these tests could not tell a loss that is
// a defect from one that is to be expected.
func replicated(t *testing.T, primary *valkeytest.Server, key string) {
	t.Helper()
	client, release := primary.Client().Dedicate() // WAIT is about the writes of its connection
	defer release()
	b := client.B()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	results := client.DoMulti(ctx, b.Set().Key(key).Value("1").Build(), b.Del().Key(key).Build(), b.Wait().Numreplicas(1).Timeout(20_000).Build())
	if n, err := results[2].AsInt64(); err != nil || n < 1 {
		t.Fatalf("the replica does not follow: %d, %v, %v", n, err, results[0].Error())
	}
}

// resumes makes calls until one succeeds again and says which error came last.
func resumes(t *testing.T, s *valkey.Store, lane ff.LaneID, partition uint16) {
	t.Helper()
	began, failures := time.Now(), 0
	var last error
	eventually(t, "commands resume", func() bool {
		id := ff.MakeExecutionID(partition, ff.NewExecutionID(lane, fewPartitions).UUID())
		_, err := s.CreateExecution(t.Context(), ff.CreateExecution{ID: id, Lane: lane, Kind: "other"})
		if err != nil {
			last, failures = err, failures+1
			if !ff.IsRetryable(err) {
				t.Errorf("a call during the failover: %v, which says that it is of no use to repeat it", err)
			}
		}
		return err == nil
	})
	t.Logf("commands resumed after %s; %d failed, the last with: %v", time.Since(began).Round(time.Millisecond), failures, last)
}

// The primary of a partition in use is killed while workers hold executions of it.
// The replica takes over, and everybody goes on by himself.
func TestACommandResumesAfterAFailoverOfTheCluster(t *testing.T) {
	cluster := valkeytest.StartCluster(t, valkeytest.WithReplicas(1))
	l := newLoad(t, clusterURL(cluster), 2)
	l.submit(60)()
	eventually(t, "the workers hold what they can", func() bool { return l.running.Load() == 2*loadSlots })
	partition := fewPartitions.LanePartition("default")
	key := fmt.Sprintf("ffx:test:{fp:%d}", partition)
	primary := cluster.Primary(key)
	replicated(t, primary, key)

	var failover sync.WaitGroup
	failover.Go(func() { cluster.Failover(key) })
	eventually(t, "the primary is gone", func() bool { return primary.Do("PING").Error() != nil })
	resumes(t, l.backend, "other", partition)
	failover.Wait()
	if _, err := l.backend.Info(t.Context()); err != nil {
		t.Error(err)
	}
	// The functions came with the data. A primary without them gets them, and the
	// caller's command is made.
	for range 3 {
		if err := cluster.Primary(key).Do("FUNCTION", "FLUSH", "SYNC").Error(); err != nil {
			t.Fatal(err)
		}
		id := ff.MakeExecutionID(partition, ff.NewExecutionID("other", fewPartitions).UUID())
		r, err := l.backend.CreateExecution(t.Context(), ff.CreateExecution{ID: id, Lane: "other", Kind: "k"})
		if err != nil || r.Duplicate {
			t.Errorf("a command to a primary without functions: %+v, %v", r, err)
		}
	}
	l.open()
	l.finish()
}

// As with a cluster, with a primary that sentinels watch.
func TestACommandResumesAfterAFailoverBySentinels(t *testing.T) {
	sentinel := valkeytest.StartSentinel(t)
	l := newLoad(t, sentinelURL(sentinel), 2)
	l.submit(60)()
	eventually(t, "the workers hold what they can", func() bool { return l.running.Load() == 2*loadSlots })
	replicated(t, sentinel.Primary, "ffx:test")

	var failover sync.WaitGroup
	failover.Go(func() { sentinel.Failover() })
	eventually(t, "the primary is gone", func() bool { return sentinel.Primary.Do("PING").Error() != nil })
	resumes(t, l.backend, "other", 0)
	failover.Wait()
	if err := sentinel.Replica.Do("FUNCTION", "FLUSH", "SYNC").Error(); err != nil {
		t.Fatal(err)
	}
	if r, err := l.backend.CreateExecution(t.Context(), ff.CreateExecution{Lane: "other", Kind: "k"}); err != nil || r.Duplicate {
		t.Errorf("a command to a primary without functions: %+v, %v", r, err)
	}
	l.open()
	l.finish()
}

// A primary that hangs, instead of ending, is replaced as well; calls to it end in
// time, and calls about the partitions of other primaries go on meanwhile.
func TestAHangingPrimaryHoldsUpOnlyItsOwnPartitions(t *testing.T) {
	cluster := valkeytest.StartCluster(t, valkeytest.WithReplicas(1))
	s := openStore(t, clusterURL(cluster), valkey.Options{Partitions: fewPartitions})
	tag := func(p uint16) string { return fmt.Sprintf("{fp:%d}", p) }
	hanging := cluster.Primary(tag(0))
	var mine, other uint16
	for p := range fewPartitions.Flow {
		if cluster.Primary(tag(p)) == hanging {
			mine = p
		} else {
			other = p
		}
	}
	create := func(p uint16) (time.Duration, error) {
		began := time.Now()
		id := ff.MakeExecutionID(p, ff.NewExecutionID("other", fewPartitions).UUID())
		_, err := s.CreateExecution(t.Context(), ff.CreateExecution{ID: id, Lane: "other", Kind: "k"})
		return time.Since(began), err
	}
	for _, p := range []uint16{mine, other} {
		if _, err := create(p); err != nil {
			t.Fatal(err)
		}
	}
	hanging.Pause()
	defer hanging.Resume()
	for range 20 {
		if took, err := create(other); err != nil || took > time.Second {
			t.Errorf("another partition: %v after %s", err, took)
		}
	}
	if took, err := create(mine); took > 3*time.Second || err != nil && !ff.IsRetryable(err) {
		t.Errorf("a partition of the hanging primary: %v after %s", err, took)
	}
	eventually(t, "its partition resumes", func() bool { _, err := create(mine); return err == nil })
}
