package valkeytest_test

import (
	"context"
	"testing"
	"time"

	"github.com/flowfabric/flowfabric/internal/valkeytest"
)

func TestClusterFailsOver(t *testing.T) {
	t.Parallel()
	c := valkeytest.StartCluster(t, valkeytest.WithReplicas(1))
	failOver(t, c)
}

func TestClusterOfAClockFailsOver(t *testing.T) {
	t.Parallel()
	clock := valkeytest.NewClock(t)
	before := clock.Now()
	c := valkeytest.StartCluster(t, valkeytest.WithReplicas(1), valkeytest.WithClock(clock))
	if passed := clock.Now().Sub(before); passed > 30*time.Second {
		t.Errorf("forming the cluster moved the clock by %v", passed)
	}
	for range 3 {
		clock.Advance(month)
	}
	failOver(t, c)
	clock.Advance(month)
	c.Nodes[1].Restart()
	c.Wait()
}

func TestClusterWithPasswordAndNoReplicas(t *testing.T) {
	t.Parallel()
	c := valkeytest.StartCluster(t, valkeytest.WithPassword("a b"))
	if c.Replica("k") != nil || c.Primary("k") != c.PrimaryOfSlot(c.Slot("k")) {
		t.Error("the cluster has a replica, or two primaries for a key")
	}
	client := c.Client()
	if err := client.Do(context.Background(), client.B().Set().Key("k").Value("v").Build()).Error(); err != nil {
		t.Error(err)
	}
}

// failOver kills the primary of a key and uses the key before and after.
func failOver(t *testing.T, c *valkeytest.Cluster) {
	t.Helper()
	client := c.Client()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := client.Do(ctx, client.B().Set().Key("k").Value("v").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	old, replica := c.Primary("k"), c.Replica("k")
	eventually(t, func() bool {
		n, err := replica.Do("DBSIZE").AsInt64()
		return err == nil && n == 1
	})
	if now := c.Failover("k"); now != replica || c.Primary("k") != now || c.Replica("k") != nil {
		t.Errorf("the primary is %s, the replica was %s", now.Addr, replica.Addr)
	}
	for _, cl := range []string{"old", "new"} {
		if cl == "new" {
			client = c.Client()
		}
		if v, err := client.Do(ctx, client.B().Get().Key("k").Build()).ToString(); err != nil || v != "v" {
			t.Errorf("%s client: after the failover GET = %q, %v", cl, v, err)
		}
		if err := client.Do(ctx, client.B().Set().Key("k").Value("v").Build()).Error(); err != nil {
			t.Errorf("%s client: after the failover SET = %v", cl, err)
		}
	}
	old.Restart()
	c.Wait()
	if c.Replica("k") != old {
		t.Error("the old primary did not become a replica")
	}
}
