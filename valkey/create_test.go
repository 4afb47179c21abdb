package valkey_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	valkeygo "github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

const wholeUser = "on >secret ~ff:* ~ffx:* &ff:* &ffx:* +@all -@admin -@dangerous +info +role +config|get"

// userServer is a server with a user app who may do what is needed, and its URL.
func userServer(t *testing.T) (*valkeytest.Server, string) {
	t.Helper()
	server := valkeytest.Start(t)
	allow(t, server, wholeUser)
	return server, "valkey://app:secret@" + server.Addr
}

// allow changes what the user app may do, also on the connections that there are.
func allow(t *testing.T, server *valkeytest.Server, rules string) {
	t.Helper()
	if err := server.Do("ACL", append([]string{"SETUSER", "app"}, strings.Fields(rules)...)...).Error(); err != nil {
		t.Fatal(err)
	}
}

// kinds of stores on a server: with the extensions and without.
var kinds = map[string]valkey.ExtensionUse{"with extensions": valkey.ExtensionsRequired, "without extensions": valkey.ExtensionsOff}

func TestAUserWhoLacksAPermissionIsRefusedBeforeAnythingIsWritten(t *testing.T) {
	server, url := userServer(t)
	for name, rules := range map[string]string{
		"no keys of ours":             "resetkeys ~ff:*",
		"no keys of the reference":    "resetkeys ~ffx:*",
		"keys that may only be read":  "resetkeys %R~ff:* %R~ffx:*",
		"no channels":                 "resetchannels",
		"no channels of ours":         "resetchannels &ff:*",
		"no functions":                "-fcall",
		"no commands of sorted sets":  "-zadd",
		"no removal of what is there": "-del",
	} {
		for kind, use := range kinds {
			allow(t, server, "reset "+wholeUser)
			allow(t, server, rules)
			_, err := valkey.Open(t.Context(), url, valkey.Options{Extensions: use})
			if ff.CodeOf(err) != ff.CodeUnsupportedStore || !strings.Contains(err.Error(), "ACL SETUSER app ~ff:* ~ffx:* &ff:* &ffx:*") {
				t.Errorf("%s, %s: %v", name, kind, err)
			}
		}
		if n, err := server.Do("DBSIZE").AsInt64(); n != 0 || err != nil {
			t.Fatalf("%s: the server has %d keys, %v", name, n, err)
		}
	}
}

// What the user may do can change while the store is open: what is then refused has
// not happened, or is whole.
func TestACreateThatThePermissionsStopCanBeRepeated(t *testing.T) {
	for name, rules := range map[string]string{"keys": "resetkeys ~ff:*", "channels": "resetchannels"} {
		for kind, use := range kinds {
			t.Run(name+" "+kind, func(t *testing.T) {
				server, url := userServer(t)
				b := openBackend(t, url, valkey.Options{Partitions: fewPartitions, Extensions: use})
				commands := []ff.CreateExecution{{Lane: "now", Kind: "k", Payload: []byte("in"), Tags: map[string]string{"a.b": "c"}}, {Lane: "later", Kind: "k", Delay: time.Hour}}
				for i := range commands {
					commands[i].ID = ff.NewExecutionID(commands[i].Lane, fewPartitions)
				}
				// A worker waits, so that there is something to publish.
				if _, err := b.Claim(t.Context(), ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{"now"}, Wait: time.Millisecond}); err != nil {
					t.Fatal(err)
				}
				allow(t, server, rules)
				for _, c := range commands {
					// The server ends the connections of subscribers who may not any more.
					if _, err := b.CreateExecution(t.Context(), c); err != nil && ff.CodeOf(err) != ff.CodeUnsupportedStore && ff.CodeOf(err) != ff.CodeTransport {
						t.Errorf("%s: %v", c.Lane, err)
					}
				}
				allow(t, server, wholeUser)
				for _, c := range commands {
					r, err := b.CreateExecution(t.Context(), c)
					for ff.CodeOf(err) == ff.CodeTransport {
						r, err = b.CreateExecution(t.Context(), c)
					}
					if err != nil || r.ID != c.ID {
						t.Errorf("%s again: %+v, %v", c.Lane, r, err)
					}
					if x, err := b.Execution(t.Context(), c.ID); err != nil || len(x.Tags) != len(c.Tags) {
						t.Errorf("%s is %+v, %v", c.Lane, x, err)
					}
				}
				got, err := b.Claim(t.Context(), ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{"now"}, Wait: 10 * time.Second})
				if err != nil || len(got.Claimed) != 1 || string(got.Claimed[0].Payload) != "in" {
					t.Errorf("claimed %+v, %v", got.Claimed, err)
				}
				if s, ok := b.(*valkey.Store); ok {
					if r, err := s.ListExecutions(t.Context(), ff.ListExecutions{Lane: "later", State: ff.StateDelayed}); err != nil || len(r.Executions) != 1 {
						t.Errorf("delayed are %+v, %v", r.Executions, err)
					}
				}
			})
		}
	}
}

func TestABatchIsStoredWholeOrNotAtAll(t *testing.T) {
	for kind, use := range kinds {
		t.Run(kind, func(t *testing.T) {
			server := valkeytest.Start(t)
			b := openBackend(t, server.URL(), valkey.Options{Partitions: fewPartitions, Extensions: use})
			first, second := ff.NewExecutionID("l", fewPartitions), ff.NewExecutionID("l", fewPartitions)
			tag := strings.TrimSuffix(key(second, ""), ":"+second.String()+":")
			tag = strings.TrimPrefix(tag, "ff:exec:")
			for _, broken := range []string{
				"ff:idem:" + tag + ":ns:once",
				key(second, "core"),
				key(second, "tags"),
				"ff:idx:" + tag + ":all_executions",
				"ff:idx:" + tag + ":execution_deadline",
				"ff:idx:" + tag + ":lane:l:delayed",
			} {
				if err := server.Do("RPUSH", broken, "something else").Error(); err != nil {
					t.Fatal(err)
				}
				batch := ff.CreateExecutions{Executions: []ff.CreateExecution{
					{ID: first, Lane: "l", Kind: "k", Namespace: "ns"},
					{ID: second, Lane: "l", Kind: "k", Namespace: "ns", IdempotencyKey: "once", Delay: time.Hour, Deadline: time.Now().Add(2 * time.Hour), Tags: map[string]string{"a.b": "c"}},
				}}
				if _, err := b.CreateExecutions(t.Context(), batch); ff.CodeOf(err) != ff.CodeCorruption {
					t.Errorf("%s: %v", broken, err)
				}
				for _, id := range []ff.ExecutionID{first, second} {
					if n, err := server.Do("EXISTS", key(id, "core")).AsInt64(); (n != 0 && key(id, "core") != broken) || err != nil {
						t.Errorf("%s: the core of %s is there (%v)", broken, id, err)
					}
				}
				if err := server.Do("DEL", broken).Error(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestABatchThatNamesAnExecutionTwiceStoresItOnce(t *testing.T) {
	for kind, use := range kinds {
		t.Run(kind, func(t *testing.T) {
			server := valkeytest.Start(t)
			b := openBackend(t, server.URL(), valkey.Options{Partitions: fewPartitions, Extensions: use})
			id, other := ff.NewExecutionID("l", fewPartitions), ff.NewExecutionID("l", fewPartitions)
			r, err := b.CreateExecutions(t.Context(), ff.CreateExecutions{Executions: []ff.CreateExecution{
				{ID: id, Lane: "l", Kind: "first", IdempotencyKey: "once", Delay: time.Hour},
				{ID: id, Lane: "l", Kind: "second"},
				{ID: other, Lane: "l", Kind: "third", IdempotencyKey: "once"},
				{ID: other, Lane: "l", Kind: "fourth"},
			}})
			if err != nil {
				t.Fatal(err)
			}
			want := []ff.CreateExecutionResult{{ID: id, State: ff.StateDelayed}, {ID: id, State: ff.StateDelayed, Duplicate: true},
				{ID: id, State: ff.StateDelayed, Duplicate: true}, {ID: other, State: ff.StateWaiting}}
			for i, got := range r.Results {
				if got != want[i] {
					t.Errorf("item %d: %+v, want %+v", i, got, want[i])
				}
			}
			if x, err := b.Execution(t.Context(), other); err != nil || x.Kind != "fourth" {
				t.Errorf("%+v, %v", x, err)
			}
		})
	}
}

// due hears what the loops of engines hear, and what is published to test:end.
func due(t *testing.T, server *valkeytest.Server) <-chan string {
	t.Helper()
	client, err := valkeygo.NewClient(valkeygo.ClientOption{InitAddress: []string{server.Addr}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	messages, ready, ended := make(chan string, 1000), make(chan struct{}, 2), make(chan struct{})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(func() { cancel(); <-ended; client.Close() })
	subscribed := valkeygo.WithOnSubscriptionHook(ctx, func(valkeygo.PubSubSubscription) { ready <- struct{}{} })
	go func() {
		defer close(ended)
		_ = client.Receive(subscribed, client.B().Subscribe().Channel("ffx:due", "test:end").Build(), func(m valkeygo.PubSubMessage) { messages <- m.Message })
	}()
	<-ready
	<-ready
	return messages
}

func TestABatchOfDelayedExecutionsIsPublishedOnce(t *testing.T) {
	server := valkeytest.Start(t)
	s := openStore(t, server.URL(), valkey.Options{Partitions: fewPartitions})
	heard := due(t, server)
	var batch ff.CreateExecutions
	for i := range 100 {
		batch.Executions = append(batch.Executions, ff.CreateExecution{Lane: "l", Kind: "k", Delay: time.Duration(100-i) * time.Hour})
	}
	r, err := s.CreateExecutions(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	last, err := s.Execution(t.Context(), r.Results[99].ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Do("PUBLISH", "test:end", "end").Error(); err != nil {
		t.Fatal(err)
	}
	if first, second := <-heard, <-heard; first != "delayed_promoter "+strconv.FormatInt(last.DelayUntil.UnixMilli(), 10) || second != "end" {
		t.Errorf("published %q, then %q", first, second)
	}
}

func TestErrorsOfFunctionsSayWhatIsWrong(t *testing.T) {
	server, url := userServer(t)
	b := openBackend(t, url, valkey.Options{Partitions: fewPartitions})
	allow(t, server, "-hset")
	_, err := b.CreateExecution(t.Context(), ff.CreateExecution{Lane: "l", Kind: "k"})
	if !errors.Is(err, ff.ErrUnsupportedStore) || !strings.Contains(err.Error(), "permission") {
		t.Errorf("without a permission: %v", err)
	}
}

func TestAClaimThatGetsNoAnswerEndsWithTheTimeoutOfTheStore(t *testing.T) {
	for kind, use := range kinds {
		t.Run(kind, func(t *testing.T) {
			server := valkeytest.Start(t)
			b := openBackend(t, server.URL()+"?timeout=300ms", valkey.Options{Partitions: fewPartitions, Extensions: use})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			server.Pause()
			defer server.Resume()
			_, err := b.Claim(ctx, ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{"l"}})
			if ff.CodeOf(err) != ff.CodeTransport || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer within 300ms") {
				t.Errorf("the claim: %v", err)
			}
		})
	}
}
