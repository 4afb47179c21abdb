package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/server"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

var jsonType = map[string]string{"Content-Type": "application/json"}

// Bad input is refused with an error that names the field, the value and the
// limit, and nothing is stored.
func TestBadInputIsRefusedNamingTheField(t *testing.T) {
	store := storetest.Open(t, sqlite.Options{})
	s, err := server.New(store, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const submit = "/v1/lanes/default/executions"
	const id = "/v1/executions/%7Bfp:86%7D:550e8400-e29b-41d4-a716-446655440000"
	fence := `"fence":{"lease_id":"550e8400-e29b-41d4-a716-446655440000","lease_epoch":1,"attempt_id":"550e8400-e29b-41d4-a716-446655440000"}`
	for _, c := range []struct {
		path, body string
		status     int
		says       string
	}{
		{submit, `{"kind":"x","prioritty":1}`, 422, `"prioritty"`},
		{submit, `{}`, 422, "field kind is missing"},
		{submit, `{"kind":null}`, 422, "field kind must not be null"},
		{submit, `{"kind":""}`, 400, "kind: must not be empty"},
		{submit, `{"kind":"x","kind":"y"}`, 422, "field kind is repeated"},
		{submit, `[]`, 422, "must be an object"},
		{submit, `{"kind":"x"} {}`, 400, "something follows"},
		{submit, `{"kind":"x"`, 400, "malformed JSON"},
		{submit, ``, 400, "the body is empty"},
		{submit, "{\"kind\":\"\xff\"}", 400, "not valid UTF-8"},
		{submit, `{"kind":"a\u0000b"}`, 400, "kind: must not contain a NUL byte"},
		{submit, `{"kind":"x","priority":-1}`, 400, "priority: must be 0 to 9000 (got -1)"},
		{submit, `{"kind":"x","priority":1.5}`, 422, "field priority"},
		{submit, `{"kind":"x","priority":99999999999999999999}`, 422, "field priority"},
		{submit, `{"kind":"x","delay_ms":-5}`, 400, "delay_ms: must be 0 to 315360000000 (got -5)"},
		{submit, `{"kind":"x","delay_ms":99999999999999}`, 400, "delay_ms: must be 0 to 315360000000 (got 99999999999999)"},
		{submit, `{"kind":"x","delay_until":-1}`, 422, "an instant must be 0 to 253402300799999 milliseconds (got -1)"},
		{submit, `{"kind":"x","delay_ms":5,"delay_until":1795476796000}`, 400, "give either delay or delay_until"},
		{submit, `{"kind":"x","payload":1,"payload_base64":"eA=="}`, 400, "either payload or payload_base64"},
		{submit, `{"kind":"x","payload_base64":"!"}`, 422, "base64"},
		{submit, `{"kind":"x","max_retries":-1}`, 400, "max_retries: must be 0 to 1000000 (got -1)"},
		{submit, `{"kind":"x","requires":["a b"]}`, 400, `"a b"`},
		{submit, `{"kind":"x","policy":{"max_reclaim_count":-1}}`, 422, "policy.max_reclaim_count"},
		{submit, `{"kind":"x","policy":{"routing_requirements":{"required_capabilities":["a,b"]}}}`, 422, "required:comma_in_token"},
		{submit, `{"kind":"x","execution_id":"{fp:86}:nope"}`, 422, "not a valid UUID: nope"},
		{submit, `{"kind":"x","execution_id":"{fp:300}:550e8400-e29b-41d4-a716-446655440000"}`, 400, "300"},
		{submit, `{"kind":"x","execution_id":"{fp:086}:550e8400-e29b-41d4-a716-446655440000"}`, 400, "canonical"},
		{submit, `{"kind":"` + strings.Repeat("k", 257) + `"}`, 400, "kind: exceeds 256 bytes (got 257)"},
		{submit, `{"kind":"x","tags":{"` + strings.Repeat("k", 129) + `":""}}`, 400, "exceeds 128 bytes (got 129)"},
		{submit, `{"kind":"x","payload":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`, 422, "nested deeper than 64 levels"},
		{"/v1/lanes/b%C3%A4d/executions", `{"kind":"x"}`, 400, "lane_id contains non-ASCII-printable byte at index 1"},
		{submit + "/batch", `{"executions":[]}`, 400, "executions: must hold 1 to 1000 items (got 0)"},
		{submit + "/batch", `{"executions":[{"kind":"x"},{"kind":""}]}`, 400, "executions[1].kind: must not be empty"},
		{"/v1/claims", `{"worker_id":"w","worker_instance_id":"i","lanes":[]}`, 400, "lanes: must hold 1 to 64 lanes (got 0)"},
		{"/v1/claims", `{"worker_id":"w 1","worker_instance_id":"i","lanes":["a"]}`, 400, "worker_id: must not contain whitespace"},
		{"/v1/claims", `{"worker_id":"w","worker_instance_id":"i","lanes":["a"],"max":257}`, 400, "max: must be 1 to 256 (got 257)"},
		{"/v1/claims", `{"worker_id":"w","worker_instance_id":"i","lanes":["a"],"lease_ttl_ms":5}`, 400, "lease_ttl_ms: must be 100ms to 24h0m0s (got 5ms)"},
		{"/v1/claims", `{"worker_id":"w","worker_instance_id":"i","lanes":["a"],"wait_ms":60001}`, 400, "wait: must be 0 to 1m0s (got 1m0.001s)"},
		{"/v1/leases/renew", `{"leases":[{"execution_id":"{fp:86}:550e8400-e29b-41d4-a716-446655440000","fence":{"lease_epoch":1}}],"lease_ttl_ms":1000}`, 400, "leases[0]"},
		{id + "/complete", `{}`, 400, "fence_required"},
		{id + "/complete", `{` + fence + `,"result":1,"result_base64":"eA=="}`, 400, "either result or result_base64"},
		{id + "/progress", `{` + fence + `,"percent":101}`, 400, "percent: must be 0 to 100 (got 101)"},
		{id + "/delay", `{` + fence + `}`, 400, "until: must be set"},
		{id + "/tags", `{"tags":{"Bad.Key":"x"}}`, 400, "invalid_tag_key: Bad.Key"},
		{id + "/complete", `{` + fence + `}`, 404, "not found: execution"},
		{"/v1/workers", `{"worker_id":"w","worker_instance_id":"i","liveness_ttl_ms":1}`, 400, "liveness_ttl_ms: must be 1s to"},
		{"/v1/admin/sweep", `{"kind":"dust"}`, 400, `unknown sweep "dust"`},
	} {
		w := ask(t, s.Handler(), "POST", c.path, jsonType, c.body)
		if w.Code != c.status || !strings.Contains(w.Body.String(), strings.ReplaceAll(c.says, `"`, `\"`)) {
			t.Errorf("%s %.120s:\n got %d %s\nwant %d …%s…", c.path, c.body, w.Code, w.Body, c.status, c.says)
		}
	}
	got, err := store.ListExecutions(t.Context(), ff.ListExecutions{})
	if err != nil || len(got.Executions) > 0 {
		t.Errorf("%d executions were stored, %v", len(got.Executions), err)
	}
}

func TestBadQueriesAreRefusedNamingTheParameter(t *testing.T) {
	h := handler(t, server.Options{})
	for path, says := range map[string]string{
		"/v1/query/executions?limit=x":               "limit: must be a whole number from 0 to 1000",
		"/v1/query/executions?limit=1001":            "limit: must be a whole number from 0 to 1000",
		"/v1/query/executions?limit=-1":              "limit: must be a whole number from 0 to 1000",
		"/v1/query/executions?state=asleep":          "state: unknown state",
		"/v1/query/executions?state=waiting&state=x": "state: is given 2 times",
		"/v1/query/executions?order=up":              "order: must be newest or oldest",
		"/v1/query/executions?cursor=zzz":            "cursor",
		"/v1/query/executions?lane=b%C3%A4d":         "lane_id contains",
		"/v1/events?after=zzz":                       "cursor",
		"/v1/events?execution_id=zzz":                "hash-tag prefix",
		"/v1/events?family=x":                        "family: must be one of [lease completion signal]",
		"/v1/events?wait_ms=60001":                   "wait_ms: must be a whole number from 0 to 60000",
		"/v1/workers?cursor=%zz":                     "query: is malformed",
		"/v1/leases/expired?as_of=x":                 "as_of: must be a whole number",
	} {
		if w := ask(t, h, "GET", path, nil, ""); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%s: %d %s, want %q", path, w.Code, w.Body, says)
		}
	}
}

func TestBodiesOverTheLimitAreRefusedWithTheLimit(t *testing.T) {
	h := handler(t, server.Options{})
	for path, limit := range map[string]int{
		"/v1/executions": 1 << 20, "/v1/executions/x/cancel": 64 << 10, "/v1/executions/x/replay": 64 << 10,
		"/v1/workers/w/claim": 64 << 10, "/v1/claims": 64 << 10, "/v1/lanes/default/executions": ff.MaxPayloadBytes/3*4 + 1<<20,
	} {
		w := ask(t, h, "POST", path, jsonType, strings.Repeat(" ", limit+1))
		var p struct {
			Error string `json:"error"`
			Limit int    `json:"limit_bytes"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusRequestEntityTooLarge || p.Limit != limit || p.Error != "payload_too_large" {
			t.Errorf("%s: %d %.100s, %v", path, w.Code, w.Body, err)
		}
		if w := ask(t, h, "POST", path, jsonType, strings.Repeat(" ", limit)); w.Code == http.StatusRequestEntityTooLarge {
			t.Errorf("%s: a body of exactly the limit is refused", path)
		}
	}
}

func TestABatchOfTheLargestSizeFitsAndOneByteMoreDoesNot(t *testing.T) {
	h := handler(t, server.Options{})
	body := func(more int) string {
		var b strings.Builder
		for i := range ff.MaxBatchBytes / ff.MaxPayloadBytes {
			fmt.Fprintf(&b, `,{"kind":"x","payload":"%s"}`, strings.Repeat("p", ff.MaxPayloadBytes-2-i%2+more*(i%2)))
		}
		fmt.Fprintf(&b, `,{"kind":"x","payload":"%s"}`, strings.Repeat("p", ff.MaxBatchBytes/ff.MaxPayloadBytes/2-2))
		return `{"executions":[` + b.String()[1:] + `]}`
	}
	const path = "/v1/lanes/default/executions/batch"
	if w := ask(t, h, "POST", path, jsonType, body(0)); w.Code != http.StatusCreated {
		t.Errorf("%d %.200s", w.Code, w.Body)
	}
	if w := ask(t, h, "POST", path, jsonType, body(1)); w.Code < 400 || w.Code >= 500 || !strings.Contains(w.Body.String(), "executions: exceeds 67108864 bytes (got 67108868)") {
		t.Errorf("%d %.200s", w.Code, w.Body)
	}
}

func TestTheLargestPayloadFitsAndOneByteMoreDoesNot(t *testing.T) {
	h := handler(t, server.Options{})
	body := func(n int) string { return fmt.Sprintf(`{"kind":"x","payload":"%s"}`, strings.Repeat("p", n-2)) }
	if w := ask(t, h, "POST", "/v1/lanes/default/executions", jsonType, body(ff.MaxPayloadBytes)); w.Code != http.StatusCreated {
		t.Errorf("the largest payload: %d %.200s", w.Code, w.Body)
	}
	w := ask(t, h, "POST", "/v1/lanes/default/executions", jsonType, body(ff.MaxPayloadBytes+1))
	if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "payload: exceeds 8388608 bytes (got 8388609)") {
		t.Errorf("one byte more: %d %.200s", w.Code, w.Body)
	}
}
