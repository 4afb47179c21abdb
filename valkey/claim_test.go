package valkey_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	valkeygo "github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

// A claim that waits leaves a mark per lane, not one per partition.
func TestClaimsOfManyLanesLeaveFewMarks(t *testing.T) {
	server := valkeytest.Start(t)
	s := openStore(t, server.URL(), valkey.Options{Partitions: ff.PartitionConfig{Flow: 64, Budget: 1, Quota: 1}})
	const lanes = 100
	for i := range lanes {
		_, err := s.Claim(t.Context(), ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{ff.LaneID(fmt.Sprintf("lane-%d", i))}, LeaseTTL: time.Second,
			Wait: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
	}
	if n, err := server.Do("DBSIZE").AsInt64(); err != nil || n > 2*lanes {
		t.Errorf("%d keys, %v", n, err)
	}
}

// Whoever waits for a lane hears of the first execution that it has on a partition,
// though the partition has no mark.
func TestAWaitingClaimHearsOfTheFirstExecutionOfItsLaneOnAPartition(t *testing.T) {
	for _, use := range []valkey.ExtensionUse{valkey.ExtensionsRequired, valkey.ExtensionsOff} {
		t.Run(string(use), func(t *testing.T) {
			server := valkeytest.Start(t)
			s := openBackend(t, server.URL(), valkey.Options{Partitions: fewPartitions, Extensions: use})
			other := openBackend(t, server.URL(), valkey.Options{Partitions: fewPartitions, Extensions: use})
			home := fewPartitions.LanePartition("main")
			away := (home + 1) % fewPartitions.Flow
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			heard, ready := make(chan string, 10), make(chan struct{})
			go func() {
				hooked := valkeygo.WithOnSubscriptionHook(ctx, func(valkeygo.PubSubSubscription) { close(ready) })
				_ = server.Client().Receive(hooked, server.Client().B().Subscribe().Channel("ffx:wake").Build(), func(m valkeygo.PubSubMessage) { heard <- m.Message })
			}()
			<-ready
			claimed := make(chan error, 1)
			go func() {
				r, err := s.Claim(ctx, ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{"main"}, LeaseTTL: time.Minute, Wait: time.Minute})
				if err == nil && len(r.Claimed) != 1 {
					err = fmt.Errorf("claimed %d", len(r.Claimed))
				}
				claimed <- err
			}()
			mark := fmt.Sprintf("ffx:idx:{fp:%d}:lane:main:waiting", home)
			eventually(t, "the claim waits", func() bool {
				n, err := server.Do("EXISTS", mark).AsInt64()
				return err == nil && n == 1
			})
			if n, _ := server.Do("EXISTS", fmt.Sprintf("ffx:idx:{fp:%d}:lane:main:waiting", away)).AsInt64(); n != 0 {
				t.Error("there is a mark on another partition")
			}
			if _, err := other.CreateExecution(t.Context(), ff.CreateExecution{ID: ff.MakeExecutionID(away, uuid.New()), Lane: "main", Kind: "k"}); err != nil {
				t.Fatal(err)
			}
			if m, want := <-heard, fmt.Sprintf("{fp:%d}main", away); m != want {
				t.Errorf("published %q, want %q", m, want)
			}
			if err := <-claimed; err != nil {
				t.Error(err)
			}
		})
	}
}

// A claimant that lacks a capability looks at a bounded number of executions each
// time, and in the end at all of them.
func TestAClaimWithoutACapabilityLooksAtSomeAndThenGoesOn(t *testing.T) {
	for use, many := range map[valkey.ExtensionUse]int{valkey.ExtensionsRequired: 20000, valkey.ExtensionsOff: 6000} {
		t.Run(string(use), func(t *testing.T) {
			server := valkeytest.Start(t)
			gpu, err := ff.NewCapabilitySet("gpu")
			if err != nil {
				t.Fatal(err)
			}
			batch(t, openStore(t, server.URL(), valkey.Options{Partitions: onePartition}), many+1, func(i int) ff.CreateExecution {
				c := ff.CreateExecution{Lane: "main", Kind: "k"}
				if i < many {
					c.Policy = &ff.ExecutionPolicy{Routing: &ff.RoutingRequirements{RequiredCapabilities: gpu}}
				}
				return c
			})
			s := openBackend(t, server.URL(), valkey.Options{Partitions: onePartition, Extensions: use})
			for round := 1; ; round++ {
				before := commandsOf(t, server, "zrange")
				r, err := s.Claim(t.Context(), ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{"main"}, LeaseTTL: time.Minute})
				if err != nil {
					t.Fatal(err)
				}
				if n := commandsOf(t, server, "zrange") - before; n > 1000 {
					t.Errorf("a claim read %d ranges", n)
				}
				if len(r.Claimed) == 1 {
					if round == 1 {
						t.Error("the first claim looked at all")
					}
					break
				}
				if round > 20 {
					t.Fatal("it is not found")
				}
			}
			// The same holds for a grant, which looks for another.
			g, err := s.GrantNext(t.Context(), ff.GrantNext{Claimant: claimant, Lane: "main", TTL: time.Minute})
			if err != nil || !g.ID.IsZero() {
				t.Errorf("granted %v, %v", g, err)
			}
		})
	}
}
