package valkey_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

// suspendIn suspends a new execution of a lane.
func suspendIn(t *testing.T, s ff.Backend, lane ff.LaneID) (ff.ExecutionID, ff.IssuedWaitpoint) {
	t.Helper()
	ctx := t.Context()
	must[ff.CreateExecutionResult](t)(s.CreateExecution(ctx, ff.CreateExecution{Lane: lane, Kind: "k"}))
	c := must[ff.ClaimResult](t)(s.Claim(ctx, ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{lane}, LeaseTTL: time.Minute}))
	r := must[ff.SuspendExecutionResult](t)(s.SuspendExecution(ctx, ff.SuspendExecution{LeaseRef: c.Claimed[0].Ref(), Condition: ff.AwaitSignal("")}))
	return c.Claimed[0].Execution.ID, r.Waitpoints[0]
}

// secretsOf are the current secrets of all partitions, each once.
func secretsOf(t *testing.T, server *valkeytest.Server) map[string]int {
	t.Helper()
	out := map[string]int{}
	for p := range fewPartitions.Flow {
		h, err := server.Do("HGETALL", fmt.Sprintf("ff:sec:{fp:%d}:waitpoint_hmac", p)).AsStrMap()
		if err != nil {
			t.Fatal(err)
		}
		out[h["secret:"+h["current_kid"]]]++
	}
	return out
}

func TestStoresThatSuspendFirstAtTheSameTimeHaveOneSecret(t *testing.T) {
	for _, extensions := range []valkey.ExtensionUse{valkey.ExtensionsAuto, valkey.ExtensionsOff} {
		server := valkeytest.Start(t)
		var all sync.WaitGroup
		for i := range 8 {
			s := openBackend(t, server.URL(), valkey.Options{Partitions: fewPartitions, Extensions: extensions})
			all.Go(func() { suspendIn(t, s, ff.LaneID(fmt.Sprintf("lane-%d", i))) })
		}
		all.Wait()
		if got := secretsOf(t, server); len(got) != 1 || got[""] > 0 {
			t.Errorf("extensions %s: %d secrets, %d partitions without one", extensions, len(got), got[""])
		}
	}
}

func TestAPartitionThatHasLostTheSecretGetsThatOfTheOthers(t *testing.T) {
	server := valkeytest.Start(t)
	secret := strings.Repeat("a1", 32)
	var log bytes.Buffer
	o := valkey.Options{Partitions: fewPartitions, WaitpointSecret: secret, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	s := openStore(t, server.URL(), o)
	id, w := suspendIn(t, s, "lane")
	server.Do("DEL", fmt.Sprintf("ff:sec:{fp:%d}:waitpoint_hmac", id.Partition()))
	if _, err := s.DeliverSignal(t.Context(), ff.DeliverSignal{ID: id, WaitpointID: w.ID, Token: w.Token, Name: "go"}); ff.CodeOf(err) != ff.CodeHMACSecretNotInitialized {
		t.Errorf("a signal where there is no secret: %v", err)
	}
	if _, other := suspendIn(t, s, "lane"); other.Token.KeyID() != w.Token.KeyID() {
		t.Errorf("the new token is of the secret %s", other.Token.KeyID())
	}
	r := must[ff.DeliverSignalResult](t)(s.DeliverSignal(t.Context(), ff.DeliverSignal{ID: id, WaitpointID: w.ID, Token: w.Token, Name: "go"}))
	if got := secretsOf(t, server); r.Effect != ff.EffectResumed || got[secret] != int(fewPartitions.Flow) {
		t.Errorf("the signal: %+v; %d of the partitions have the secret", r, got[secret])
	}
	// Another secret is not taken, and told.
	o.WaitpointSecret = strings.Repeat("b2", 32)
	openStore(t, server.URL(), o)
	if got := secretsOf(t, server); got[secret] != int(fewPartitions.Flow) || !strings.Contains(log.String(), "rotate") {
		t.Errorf("after opening with another secret %d partitions have the first; the log: %s", got[secret], log.String())
	}
	for _, private := range []string{secret, o.WaitpointSecret, w.Token.Reveal()} {
		if strings.Contains(log.String(), private) {
			t.Error("the log has a secret")
		}
	}
	o.WaitpointSecret = "xyz"
	if _, err := valkey.Open(t.Context(), server.URL(), o); err == nil || strings.Contains(err.Error(), "xyz") {
		t.Errorf("opened with a secret that is none: %v", err)
	}
}
