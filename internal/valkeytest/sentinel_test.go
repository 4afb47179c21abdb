package valkeytest_test

import (
	"context"
	"testing"
	"time"

	"github.com/flowfabric/flowfabric/internal/valkeytest"
)

func TestSentinelFailsOver(t *testing.T) {
	t.Parallel()
	s := valkeytest.StartSentinel(t, valkeytest.WithSentinels(3))
	client := s.Client()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := client.Do(ctx, client.B().Set().Key("k").Value("v").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		n, err := s.Replica.Do("DBSIZE").AsInt64()
		return err == nil && n == 1
	})
	if now := s.Failover(); now != s.Replica {
		t.Errorf("the primary is %s", now.Addr)
	}
	client = s.Client()
	if v, err := client.Do(ctx, client.B().Get().Key("k").Build()).ToString(); err != nil || v != "v" {
		t.Errorf("after the failover GET = %q, %v", v, err)
	}
}
