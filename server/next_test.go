package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/server"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

// heldOf submits n executions and claims the first.
func heldOf(t *testing.T, store ff.Backend, n int) ff.Claimed {
	t.Helper()
	for range n {
		if _, err := store.CreateExecution(t.Context(), ff.CreateExecution{Lane: "default", Kind: "job", Payload: []byte("in")}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := store.Claim(t.Context(), ff.Claim{Claimant: ff.Claimant{Worker: "w", Instance: "i"}, Lanes: []ff.LaneID{"default"}})
	if err != nil || len(got.Claimed) != 1 {
		t.Fatalf("claimed %+v, %v", got, err)
	}
	return got.Claimed[0]
}

// completion is the path and the body of a completion with a claim, unless next is
// empty.
func completion(c *ff.Claimed, next string) (path, body string) {
	fence, _ := json.Marshal(c.Ref().Fence)
	if next != "" {
		next = `,"next":` + next
	}
	return "/v1/executions/" + httpapi.Escape(c.Execution.ID.String()) + "/complete", fmt.Sprintf(`{"fence":%s,"result":1%s}`, fence, next)
}

func TestACompletionAnswersWhatItHasClaimed(t *testing.T) {
	store := storetest.Open(t, sqlite.Options{})
	s, err := server.New(store, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	held := heldOf(t, store, 3)
	doc := readDocument(t, s.Handler())
	op := doc.Paths["/v1/executions/{id}/complete"]["post"]
	send := func(next string, status int) (answer map[string]any) {
		t.Helper()
		path, body := completion(&held, next)
		w := ask(t, s.Handler(), "POST", path, jsonType, body)
		if problem := doc.checkAnswer(&op, w); w.Code != status || problem != "" {
			t.Errorf("next %s: %d %s (%s)", next, w.Code, w.Body, problem)
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
		return answer
	}
	for next, says := range map[string]string{
		`{"worker_id":"w","worker_instance_id":"i","lanes":["default"],"wait_ms":1}`:       "next.wait",
		`{"worker_id":"w","worker_instance_id":"i","lanes":["default"],"lease_ttl_ms":-1}`: "next.lease_ttl_ms",
		`{"worker_id":"w","worker_instance_id":"i","lanes":[]}`:                            "next.lanes",
		`{"worker_instance_id":"i","lanes":["default"]}`:                                   "next.worker_id",
	} {
		if answer := send(next, http.StatusBadRequest); answer["field"] != says && !strings.Contains(fmt.Sprint(answer["error"]), says) {
			t.Errorf("next %s: %v", next, answer)
		}
	}
	answer := send(`{"worker_id":"w","worker_instance_id":"i","lanes":["default"]}`, http.StatusOK)
	claimed, ok := answer["claimed"].([]any)
	if !ok || len(claimed) != 1 || answer["now"] == nil || claimed[0].(map[string]any)["payload"] != "aW4=" || answer["repeated"] != false {
		t.Errorf("answer %v", answer)
	}
	answer = send(`{"worker_id":"w","worker_instance_id":"i","lanes":["empty"]}`, http.StatusOK)
	if claimed, ok := answer["claimed"].([]any); !ok || len(claimed) != 0 || answer["repeated"] != true {
		t.Errorf("answer %v", answer)
	}
	answer = send("", http.StatusOK)
	if len(answer) != 2 {
		t.Errorf("the answer to an older client has more fields: %v", answer)
	}
}

// lateEnd is a store whose completions come through just after the worker has left.
type lateEnd struct {
	ff.Backend
	completed chan struct{}
}

func (l lateEnd) CompleteExecution(ctx context.Context, c ff.CompleteExecution) (ff.CompleteExecutionResult, error) {
	r, err := l.Backend.CompleteExecution(context.WithoutCancel(ctx), c)
	l.completed <- struct{}{}
	<-ctx.Done()
	return r, err
}

func TestWhatCameWithACompletionForAWorkerThatLeftIsHandedBack(t *testing.T) {
	store := lateEnd{storetest.Open(t, sqlite.Options{}), make(chan struct{}, 1)}
	base := start(t, store, server.Options{})
	held := heldOf(t, store, 2)
	path, body := completion(&held, `{"worker_id":"w","worker_instance_id":"i","lanes":["default"]}`)
	ctx, leave := context.WithCancel(t.Context())
	results := make(chan pollResult, 1)
	go poll(ctx, "POST", base+path, body, results)
	<-store.completed
	leave()
	if r := <-results; r.err == nil {
		t.Fatalf("the worker was answered: %+v", r)
	}
	got, err := store.Claim(t.Context(), ff.Claim{Claimant: ff.Claimant{Worker: "w", Instance: "other"}, Lanes: []ff.LaneID{"default"}, Wait: 10 * time.Second})
	if err != nil || len(got.Claimed) != 1 || !got.Claimed[0].Resumed {
		t.Errorf("the execution is not given to another worker: %+v, %v", got, err)
	}
}
