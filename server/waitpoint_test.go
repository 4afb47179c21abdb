package server_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/server"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

// suspended is an execution that waits, with its waitpoints.
func suspended(t *testing.T, store ff.Backend, c ff.SuspendExecution) (ff.ExecutionID, []ff.IssuedWaitpoint) {
	t.Helper()
	if _, err := store.CreateExecution(t.Context(), ff.CreateExecution{Lane: "default", Kind: "job"}); err != nil {
		t.Fatal(err)
	}
	got, err := store.Claim(t.Context(), ff.Claim{Claimant: ff.Claimant{Worker: "w", Instance: "i"}, Lanes: []ff.LaneID{"default"}, LeaseTTL: time.Hour})
	if err != nil || len(got.Claimed) != 1 {
		t.Fatal(got, err)
	}
	c.LeaseRef = got.Claimed[0].Ref()
	r, err := store.SuspendExecution(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return c.ID, r.Waitpoints
}

// clocked is a store in memory whose clock stands still.
func clocked(t *testing.T) *sqlite.Store {
	t.Helper()
	return storetest.Open(t, sqlite.Options{Clock: func() time.Time { return time.UnixMilli(1795476800000) }})
}

func handlerOf(t *testing.T, store ff.Backend, o server.Options) http.Handler {
	t.Helper()
	s, err := server.New(store, o)
	if err != nil {
		t.Fatal(err)
	}
	return s.Handler()
}

func TestPendingWaitpointsAreListedAsTheReferenceDoes(t *testing.T) {
	store := clocked(t)
	h := handlerOf(t, store, server.Options{})
	id, at := suspended(t, store, ff.SuspendExecution{Condition: ff.AwaitSignal("approved")})
	path := "/v1/executions/" + escaped(id) + "/pending-waitpoints"
	want := fmt.Sprintf(`[{"waitpoint_id":"%s","waitpoint_key":"wpk:%[1]s","state":"active","required_signal_names":["approved"],"created_at":1795476800000,"activated_at":1795476800000,"execution_id":"%s","token_kid":"k1","token_fingerprint":"%s"}]`,
		at[0].ID, id, at[0].Token.Fingerprint())
	if w := ask(t, h, "GET", path, nil, ""); w.Code != 200 || w.Body.String() != want {
		t.Errorf("%d %s\nwant %s", w.Code, w.Body, want)
	}
	if w := ask(t, h, "GET", path+"?after="+at[0].ID.String(), nil, ""); w.Body.String() != "[]" {
		t.Errorf("after the last: %s", w.Body)
	}
	if w := ask(t, h, "GET", path+"?after=x", nil, ""); w.Code != 400 || !strings.Contains(w.Body.String(), "after") {
		t.Errorf("after nonsense: %d %s", w.Code, w.Body)
	}
}

func TestPendingWaitpointsAreUpToAHundredAtATime(t *testing.T) {
	store := clocked(t)
	h := handlerOf(t, store, server.Options{})
	if _, err := store.CreateExecution(t.Context(), ff.CreateExecution{Lane: "default", Kind: "job"}); err != nil {
		t.Fatal(err)
	}
	got, err := store.Claim(t.Context(), ff.Claim{Claimant: ff.Claimant{Worker: "w", Instance: "i"}, Lanes: []ff.LaneID{"default"}})
	if err != nil {
		t.Fatal(err)
	}
	for range 103 {
		if _, err := store.CreateWaitpoint(t.Context(), ff.CreateWaitpoint{LeaseRef: got.Claimed[0].Ref()}); err != nil {
			t.Fatal(err)
		}
	}
	path := "/v1/executions/" + escaped(got.Claimed[0].Execution.ID) + "/pending-waitpoints"
	for query, want := range map[string]int{"": 100, "?limit=1": 1, "?limit=0": 1, "?limit=1000": 103} {
		if w := ask(t, h, "GET", path+query, nil, ""); strings.Count(w.Body.String(), `"waitpoint_id"`) != want {
			t.Errorf("%q: %d waitpoints, want %d", query, strings.Count(w.Body.String(), `"waitpoint_id"`), want)
		}
	}
}

func TestATokenIsReadOnceAndKeptByNobody(t *testing.T) {
	store := clocked(t)
	h := handlerOf(t, store, server.Options{})
	id, at := suspended(t, store, ff.SuspendExecution{Condition: ff.AwaitSignal("approved")})
	other, _ := suspended(t, store, ff.SuspendExecution{Condition: ff.AwaitSignal("approved")})
	missing := ff.NewExecutionID("default", ff.DefaultPartitionConfig)
	const notFound = `{"error":"waitpoint token not found (consumed, expired, or unknown id)","code":"waitpoint_not_found"}`
	for _, c := range []struct {
		name   string
		id     ff.ExecutionID
		at     string
		status int
		want   string
	}{
		{"its own", id, at[0].ID.String(), 200, `{"token":"` + at[0].Token.Reveal() + `"}`},
		{"of another execution", other, at[0].ID.String(), 404, notFound},
		{"of no execution", missing, at[0].ID.String(), 404, notFound},
		{"of no waitpoint", id, ff.NewWaitpointID().String(), 404, notFound},
	} {
		w := ask(t, h, "GET", "/v1/executions/"+escaped(c.id)+"/waitpoints/"+c.at+"/token", nil, "")
		if w.Code != c.status || w.Body.String() != c.want || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v %s", c.name, w.Code, w.Header(), w.Body)
		}
	}
	w := ask(t, h, "GET", "/v1/executions/"+escaped(id)+"/waitpoints/nope/token", nil, "")
	if w.Code != 400 || !strings.Contains(w.Body.String(), "waitpoint_id") || w.Header().Get("Cache-Control") != "" {
		t.Errorf("an id that is none: %d %v %s", w.Code, w.Header(), w.Body)
	}
}

const newSecret = `00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff`

func rotate(t *testing.T, h http.Handler, kid, secret string) *httptest.ResponseRecorder {
	t.Helper()
	return ask(t, h, "POST", "/v1/admin/rotate-waitpoint-secret", jsonType, fmt.Sprintf(`{"new_kid":%q,"new_secret_hex":%q}`, kid, secret))
}

func TestARotationIsAnsweredAndLoggedWithoutTheSecret(t *testing.T) {
	var log bytes.Buffer
	store := clocked(t)
	grace := time.Minute
	h := handlerOf(t, store, server.Options{SecretGrace: &grace, Logger: slog.New(slog.NewJSONHandler(&log, nil))})
	suspended(t, store, ff.SuspendExecution{Condition: ff.AwaitSignal("")}) // makes the first secret
	for range 2 {
		if w := rotate(t, h, "k9", newSecret); w.Code != 200 || w.Body.String() != `{"rotated":1,"failed":[],"new_kid":"k9"}` {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	if w := ask(t, h, "GET", "/v1/admin/waitpoint-secrets", nil, ""); w.Body.String() != `{"current_key_id":"k9","verifying":[{"key_id":"k1","expires_at":1795476860000}]}` {
		t.Errorf("the secrets: %s", w.Body)
	}
	if w := rotate(t, h, "k9", strings.Repeat("ab", 32)); w.Code != 409 || !strings.Contains(w.Body.String(), `"kind":"rotation_conflict","retryable":false`) {
		t.Errorf("a key id with another secret: %d %s", w.Code, w.Body)
	}
	for _, want := range []string{`"msg":"waitpoint_hmac_rotation_complete","target":"audit","new_kid":"k9","total_partitions":1,"rotated":1,"failed_count":0`, `"msg":"waitpoint_hmac_rotation_failed","target":"audit","new_kid":"k9"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, &log)
		}
	}
	for _, secret := range []string{newSecret, strings.Repeat("ab", 32)} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log has a secret: %s", &log)
		}
	}
}

// rotating is a store whose rotations go as a test wants it.
type rotating struct {
	ff.Backend
	rotate func(context.Context) (ff.RotateWaitpointSecretResult, error)
}

func (r rotating) RotateWaitpointSecret(ctx context.Context, _ ff.RotateWaitpointSecret) (ff.RotateWaitpointSecretResult, error) {
	return r.rotate(ctx)
}

func TestOneRotationRunsAtATime(t *testing.T) {
	running, finish := make(chan struct{}), make(chan struct{})
	h := handlerOf(t, rotating{storetest.Open(t, sqlite.Options{}), func(context.Context) (r ff.RotateWaitpointSecretResult, err error) {
		close(running)
		<-finish
		return ff.RotateWaitpointSecretResult{Rotated: 3, Failed: []int{1}}, nil
	}}, server.Options{})
	first := make(chan *httptest.ResponseRecorder)
	go func() { first <- rotate(t, h, "k9", newSecret) }()
	<-running
	if w := rotate(t, h, "k9", newSecret); w.Code != 429 || !strings.Contains(w.Body.String(), `too many concurrent admin_rotate calls (server max: 1); retry with backoff","kind":"resource_exhausted","retryable":true`) {
		t.Errorf("the second: %d %s", w.Code, w.Body)
	}
	if w := rotate(t, h, "", newSecret); w.Code != 400 {
		t.Errorf("one that cannot be, meanwhile: %d %s", w.Code, w.Body)
	}
	close(finish)
	if w := <-first; w.Code != 200 || w.Body.String() != `{"rotated":3,"failed":[1],"new_kid":"k9"}` {
		t.Errorf("the first: %d %s", w.Code, w.Body)
	}
}

func TestARotationEndsAfterTwoMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := handlerOf(t, rotating{nil, func(ctx context.Context) (r ff.RotateWaitpointSecretResult, err error) {
			<-ctx.Done()
			return r, ctx.Err()
		}}, server.Options{})
		began := time.Now()
		w := rotate(t, h, "k9", newSecret)
		if w.Code != 504 || !strings.Contains(w.Body.String(), "rotation exceeded 120s server-side timeout; retry is safe") || time.Since(began) != 2*time.Minute {
			t.Errorf("after %s: %d %s", time.Since(began), w.Code, w.Body)
		}
	})
}

func TestARotationThatReachesNothingFails(t *testing.T) {
	h := handlerOf(t, rotating{nil, func(context.Context) (ff.RotateWaitpointSecretResult, error) {
		return ff.RotateWaitpointSecretResult{Failed: []int{0, 1}}, nil
	}}, server.Options{})
	if w := rotate(t, h, "k9", newSecret); w.Code != 503 || !strings.Contains(w.Body.String(), `"retryable":true`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
