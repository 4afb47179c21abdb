package valkey_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

// referenceLike is the library without what ours does beyond that of the reference:
// it publishes no wake-ups, trusts the keys that it is given (quirks 03 Q1, Q6), keeps
// the marks of earlier leases when it claims (Q15), and grants that have lapsed (Q7).
func referenceLike(t *testing.T) string {
	text := valkey.Library()
	for _, change := range [][2]string{
		{"  if redis.call('DEL', 'ffx:idx:' .. tag .. ':lane:' .. lane .. ':waiting') == 1 then", "  if false then"},
		{"redis.call('PUBSUB', 'NUMSUB', 'ffx:wake')[2] > 0", "false"},
		{"  if delayed then\n    return (string.gsub(key, ':eligible$', ':delayed'))\n  end\n  return (string.gsub(key, ':delayed$', ':eligible'))", "  return key"},
		{"local function current_keys(core, id, x, attempt, stream, leases)\n", "local function current_keys(core, id, x, attempt, stream, leases)\n  do return attempt, stream, leases end\n"},
		{"    'lease_expired_at', '', 'lease_revoked_at', '', 'lease_revoke_reason', '',\n    'last_transition_at', l.now", "    'last_transition_at', l.now"},
		{"give_lease(core, keys[8], l, 'current_attempt_index'", "give_lease(core, keys[8], l, 'lease_expired_at', '', 'lease_revoked_at', '', 'lease_revoke_reason', '', 'current_attempt_index'"},
		{"  if expires and expires < now then", "  if false then"},
		{"-- flowfabric for Go, build", "-- flowfabric for tests, build"},
	} {
		if !strings.Contains(text, change[0]) {
			t.Fatalf("the library has no more %q: adapt the test", change[0])
		}
		text = strings.Replace(text, change[0], change[1], 1)
	}
	return text
}

func TestConformanceWithoutExtensionsOnTheReferencesLibrary(t *testing.T) {
	clock := valkeytest.NewClock(t)
	server := valkeytest.Start(t, valkeytest.WithClock(clock))
	if err := server.Do("FUNCTION", "LOAD", referenceLike(t)).Error(); err != nil {
		t.Fatal(err)
	}
	lacks := map[string]string{"a waiting claim returns within milliseconds after a submit": "that library publishes nothing: who waits looks twice a second"}
	for name, reason := range withoutExtensions {
		lacks[name] = reason
	}
	modelRuns(t, 30)
	exercise(t, clock, without(server.URL()), lacks, server)
}

// A user who may do everything but load functions works with the library that is
// there.
func TestUsersWhoMayNotLoadFunctions(t *testing.T) {
	server := valkeytest.Start(t)
	must := func(command string, args ...string) {
		t.Helper()
		if err := server.Do(command, args...).Error(); err != nil {
			t.Fatal(err)
		}
	}
	must("ACL", "SETUSER", "worker", "on", ">secret", "~ff:*", "~ffx:*", "&ff:*", "&ffx:*", "+@all", "-@admin", "-@dangerous", "+info", "+role", "-function|load")
	url := strings.Replace(server.URL(), "valkey://", "valkey://worker:secret@", 1)

	_, err := valkey.Open(t.Context(), url, valkey.Options{})
	if !errors.Is(err, ff.ErrUnsupportedStore) {
		t.Errorf("without a library: %v", err)
	}
	must("FUNCTION", "LOAD", referenceLike(t))
	_, err = valkey.Open(t.Context(), url+"?extensions=required", valkey.Options{})
	if !errors.Is(err, ff.ErrUnsupportedStore) || !strings.Contains(err.Error(), "+function|load") || !strings.Contains(err.Error(), "extensions=auto") {
		t.Errorf("with the extensions required: %v", err)
	}

	var log bytes.Buffer
	b := openBackend(t, url, valkey.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if _, extended := b.(*valkey.Store); extended {
		t.Errorf("the store has the extensions")
	}
	if n := strings.Count(log.String(), "through the compatible functions"); n != 1 {
		t.Errorf("the log says %d times that the store does without the extensions:\n%s", n, log.String())
	}
	runOne(t, b)

	// What an administrator has loaded is used.
	must("FUNCTION", "LOAD", valkey.Extensions())
	runOne(t, openStore(t, url+"?extensions=required", valkey.Options{}))
}

// runOne submits while a claim waits, and completes what was claimed.
func runOne(t *testing.T, b ff.Backend) {
	t.Helper()
	claimed := make(chan ff.ClaimResult, 1)
	go func() {
		r, err := b.Claim(context.WithoutCancel(t.Context()), ff.Claim{Claimant: ff.Claimant{Worker: "w", Instance: "a"}, Lanes: []ff.LaneID{"main"}, Wait: 20 * time.Second})
		if err != nil {
			t.Error(err)
		}
		claimed <- r
	}()
	submitted, err := b.CreateExecution(t.Context(), ff.CreateExecution{Lane: "main", Kind: "k", Payload: []byte("in")})
	if err != nil {
		t.Fatal(err)
	}
	r := <-claimed
	if len(r.Claimed) != 1 || r.Claimed[0].Execution.ID != submitted.ID || string(r.Claimed[0].Payload) != "in" {
		t.Fatalf("claimed %+v, want %s", r.Claimed, submitted.ID)
	}
	if _, err := b.CompleteExecution(t.Context(), ff.CompleteExecution{LeaseRef: r.Claimed[0].Ref(), Result: []byte("out")}); err != nil {
		t.Fatal(err)
	}
	x, err := b.Execution(t.Context(), submitted.ID)
	if err != nil || x.PublicState() != ff.StateCompleted {
		t.Errorf("the execution is %s, %v", x.PublicState(), err)
	}
}

func TestExtensionUse(t *testing.T) {
	for text, want := range map[string]valkey.ExtensionUse{"": valkey.ExtensionsAuto, "auto": valkey.ExtensionsAuto, "off": valkey.ExtensionsOff,
		"false": valkey.ExtensionsOff, "TRUE": valkey.ExtensionsRequired, "required": valkey.ExtensionsRequired} {
		if got, err := valkey.ParseExtensionUse(text); got != want || err != nil {
			t.Errorf("%q is %q, %v, want %q", text, got, err, want)
		}
	}
	_, err := valkey.ParseURL("valkey://localhost?extensions=maybe")
	if !errors.Is(err, ff.ErrInvalidInput) || !strings.Contains(err.Error(), "maybe") {
		t.Errorf("extensions=maybe: %v", err)
	}
}
