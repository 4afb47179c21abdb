package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/server"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

// Refusals by the rules are typed (spec 08 §4.4): a status below 500, with the
// kind and whether to retry, and the code in the text.
func TestRefusalsByTheRulesAreTyped(t *testing.T) {
	store := storetest.Open(t, sqlite.Options{})
	s, err := server.New(store, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	submit := func() ff.ExecutionID {
		got, err := store.CreateExecution(t.Context(), ff.CreateExecution{Lane: "default", Kind: "job"})
		if err != nil {
			t.Fatal(err)
		}
		return got.ID
	}
	active, missing := submit(), ff.NewExecutionID("default", ff.DefaultPartitionConfig)
	if got, err := store.Claim(t.Context(), ff.Claim{Claimant: ff.Claimant{Worker: "w", Instance: "i"}, Lanes: []ff.LaneID{"default"}, LeaseTTL: time.Hour}); err != nil || len(got.Claimed) != 1 {
		t.Fatal(got, err)
	}
	cancelled := submit()
	if _, err := store.CancelExecution(t.Context(), ff.CancelExecution{ID: cancelled}); err != nil {
		t.Fatal(err)
	}
	waiting := submit()
	if _, err := store.GrantNext(t.Context(), ff.GrantNext{Claimant: ff.Claimant{Worker: "w", Instance: "i"}, Lane: "default", TTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	reclaim := `{"worker_id":"w","worker_instance_id":"i","lane_id":"default","grant_ttl_ms":60000}`
	for _, c := range []struct {
		name, method, call string
		id                 ff.ExecutionID
		body               string
		status             int
		want               string
	}{
		{"cancel, missing", "POST", "cancel", missing, "", 404, `{"error":"not found: execution","code":"execution_not_found"}`},
		{"cancel, cancelled", "POST", "cancel", cancelled, "", 409, `"kind":"contention","retryable":true,"code":"execution_not_active"`},
		{"priority, missing", "PUT", "priority", missing, `{"new_priority":1}`, 404, "not found: execution"},
		{"priority, active", "PUT", "priority", active, `{"new_priority":1}`, 409, `"kind":"contention","retryable":true,"code":"execution_not_eligible"`},
		{"priority, too high for its type", "PUT", "priority", waiting, `{"new_priority":2147483648}`, 422, "new_priority"},
		{"replay, missing", "POST", "replay", missing, "", 404, "not found: execution"},
		{"replay, waiting", "POST", "replay", waiting, "", 409, `"kind":"execution_not_terminal","retryable":false`},
		{"revoke, missing", "POST", "revoke-lease", missing, "", 200, `{"AlreadySatisfied":{"reason":"no_active_lease"}}`},
		{"revoke, waiting", "POST", "revoke-lease", waiting, "", 200, `{"AlreadySatisfied":{"reason":"no_active_lease"}}`},
		{"revoke, cancelled", "POST", "revoke-lease", cancelled, "", 200, `{"AlreadySatisfied":{"reason":"no_active_lease"}}`},
		{"reclaim, missing", "POST", "reclaim", missing, reclaim, 404, "not found: execution"},
		{"reclaim, waiting", "POST", "reclaim", waiting, reclaim, 200, fmt.Sprintf(`{"status":"not_reclaimable","execution_id":"%s","detail":"execution_not_reclaimable"}`, waiting)},
		{"reclaim, ttl", "POST", "reclaim", waiting, strings.Replace(reclaim, "60000", "60001", 1), 400, "grant_ttl_ms must be in 1..=60000"},
		{"reclaim, lane", "POST", "reclaim", waiting, strings.Replace(reclaim, "default", "", 1), 400, "lane_id: lane_id is empty"},
		{"state, missing", "GET", "state", missing, "", 404, "not found: execution"},
		{"result, waiting", "GET", "result", waiting, "", 404, "execution result not found: " + waiting.String()},
		{"revoke, active", "POST", "revoke-lease", active, "", 200, `"lease_epoch":"1"}}`},
		{"revoke, revoked", "POST", "revoke-lease", active, "", 200, `{"AlreadySatisfied":{"reason":"already_revoked"}}`},
		{"reclaim, revoked", "POST", "reclaim", active, reclaim, 200, fmt.Sprintf(`{"status":"granted","execution_id":"%s","partition_key":"{fp:%d}","grant_key":"ff:exec:{fp:%[2]d}:%[1]s:claim_grant","expires_at_ms":`, active, active.Partition())},
		{"reclaim, granted", "POST", "reclaim", active, reclaim, 409, `"kind":"state_conflict","retryable":false,"code":"grant_already_exists"`},
	} {
		body := c.body
		if c.call == "cancel" {
			body = fmt.Sprintf(`{"execution_id":"%s","reason":"r","now":1795476796000}`, c.id)
		}
		w := ask(t, s.Handler(), c.method, "/v1/executions/"+escaped(c.id)+"/"+c.call, jsonType, body)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %d %s, want %d %s", c.name, w.Code, w.Body, c.status, c.want)
		}
	}
}

// escaped is an id for a path.
func escaped(id ff.ExecutionID) string {
	return strings.NewReplacer("{", "%7B", "}", "%7D").Replace(id.String())
}

// Every endpoint that reads a body refuses what is no body of its own.
func TestEveryEndpointRefusesBodiesThatAreNone(t *testing.T) {
	h := handler(t, server.Options{})
	bodies := []struct {
		name, body string
		statuses   []int
	}{
		{"nothing", "", []int{400}},
		{"half an object", `{"a":`, []int{400}},
		{"two objects", `{}{}`, []int{400, 422}},
		{"invalid UTF-8", "{\"\xff\":1}", []int{400}},
		{"null", "null", []int{422}},
		{"a list", "[]", []int{422}},
		{"a number that overflows", "1e999", []int{422}},
		{"deep nesting", `{"a":` + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000) + `}`, []int{422}},
		{"nesting beyond any parser", strings.Repeat("[", 30_000), []int{400}},
		{"ten megabytes", `{"reason":"` + strings.Repeat("x", 10<<20) + `"}`, []int{400, 413, 422}},
	}
	operations := 0
	for path, byMethod := range readDocument(t, h).Paths {
		for method, op := range byMethod {
			if op.RequestBody == nil {
				continue
			}
			operations++
			for _, b := range bodies {
				w := ask(t, h, strings.ToUpper(method), fill(path), jsonType, b.body)
				if !slices.Contains(b.statuses, w.Code) {
					t.Errorf("%s, %s: %d %.200s, want one of %v", op.OperationID, b.name, w.Code, w.Body, b.statuses)
				}
				var p struct{ Error string }
				if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Error == "" {
					t.Errorf("%s, %s: the answer is no error: %.200s", op.OperationID, b.name, w.Body)
				}
			}
			for _, contentType := range []string{"", "text/plain", "application/jsonx", "json", "application/", "multipart/form-data; boundary=x"} {
				if w := ask(t, h, strings.ToUpper(method), fill(path), map[string]string{"Content-Type": contentType}, "{}"); w.Code != http.StatusUnsupportedMediaType {
					t.Errorf("%s, type %q: %d %s", op.OperationID, contentType, w.Code, w.Body)
				}
			}
		}
	}
	if operations < 25 {
		t.Errorf("only %d operations read a body", operations)
	}
}

// Every endpoint of an execution refuses ids that are none, and does not find
// those of partitions that the store does not have.
func TestEveryEndpointRefusesIDsThatAreNone(t *testing.T) {
	h := handler(t, server.Options{})
	for path, byMethod := range readDocument(t, h).Paths {
		if !strings.Contains(path, "{id}") {
			continue
		}
		for method, op := range byMethod {
			body := ""
			if op.RequestBody != nil {
				body = string(op.RequestBody.Content["application/json"].Example)
			}
			for id, want := range map[string][]int{
				"x":            {400},
				"%ff":          {400},
				"%00":          {400},
				"%7Bfp:1%7D:x": {400},
				"%7Bfp:65536%7D:550e8400-e29b-41d4-a716-446655440000": {400},
				"%7Bfp:-1%7D:550e8400-e29b-41d4-a716-446655440000":    {400},
				"%7Bfp:86%7D:550e8400-e29b-41d4-a716-44665544000g":    {400},
				"%7Bfp:86%7D:550e8400-e29b-41d4-a716-446655440000%2F": {400},
				"550e8400-e29b-41d4-a716-446655440000":                {400},
				strings.Repeat("x", 4000):                             {400},
				"%7Bfp:65535%7D:550e8400-e29b-41d4-a716-446655440000": {200, 400, 404},
				"%7Bfp:85%7D:550e8400-e29b-41d4-a716-446655440000":    {200, 400, 404},
			} {
				if op.OperationID == "append-frames" && slices.Contains(want, 404) {
					want = append(want, http.StatusConflict) // nothing that runs is there (spec 04c §2)
				}
				if w := ask(t, h, strings.ToUpper(method), fill(strings.Replace(path, "{id}", id, 1)), jsonType, body); !slices.Contains(want, w.Code) {
					t.Errorf("%s of %.60s: %d %.200s, want one of %v", op.OperationID, id, w.Code, w.Body, want)
				}
			}
		}
	}
}
