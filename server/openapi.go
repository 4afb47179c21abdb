package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// The shapes of types whose JSON form is not that of their fields.
type (
	stateVectorShape struct {
		Phase       ff.LifecyclePhase   `json:"lifecycle_phase"`
		Ownership   ff.OwnershipState   `json:"ownership_state"`
		Eligibility ff.EligibilityState `json:"eligibility_state"`
		Blocking    ff.BlockingReason   `json:"blocking_reason"`
		Outcome     ff.TerminalOutcome  `json:"terminal_outcome"`
		Attempt     ff.AttemptPhase     `json:"attempt_state"`
		Public      ff.PublicState      `json:"public_state"`
	}
	retryShape struct {
		MaxRetries int `json:"max_retries,omitempty" minimum:"0" maximum:"1000000"`
		Backoff    struct {
			Type       string  `json:"type" enum:"fixed,exponential"`
			Delay      int64   `json:"delay_ms,omitempty" minimum:"0"`
			Initial    int64   `json:"initial_delay_ms,omitempty" minimum:"0"`
			Max        int64   `json:"max_delay_ms,omitempty" minimum:"0"`
			Multiplier float64 `json:"multiplier,omitempty" minimum:"1" maximum:"1000"`
			Jitter     bool    `json:"jitter,omitempty"`
		} `json:"backoff,omitempty"`
		Categories []string `json:"retryable_categories,omitempty"`
	}
	policyShape struct {
		Priority   int        `json:"priority,omitempty"`
		DelayUntil int64      `json:"delay_until,omitempty" minimum:"0"`
		Retry      retryShape `json:"retry_policy,omitempty"`
		Timeout    struct {
			Attempt     int64 `json:"attempt_timeout_ms,omitempty" minimum:"0"`
			Deadline    int64 `json:"execution_deadline_ms,omitempty" minimum:"0"`
			MaxReclaims int   `json:"max_reclaim_count,omitempty" minimum:"0"`
		} `json:"timeout_policy,omitempty"`
		MaxReclaims int `json:"max_reclaim_count,omitempty" minimum:"0"`
		Suspension  struct {
			DefaultTimeout  int64  `json:"default_timeout_ms,omitempty" minimum:"0"`
			TimeoutBehavior string `json:"timeout_behavior,omitempty"`
		} `json:"suspension_policy,omitempty"`
		Fallback struct {
			Tiers []struct {
				Provider string `json:"provider"`
				Model    string `json:"model"`
				Timeout  int64  `json:"timeout_ms,omitempty" minimum:"0"`
			} `json:"tiers"`
		} `json:"fallback_policy,omitempty"`
		MaxReplays int      `json:"max_replay_count,omitempty" minimum:"0"`
		BudgetIDs  []string `json:"budget_ids,omitempty"`
		Routing    struct {
			Required  []string `json:"required_capabilities,omitempty"`
			Locality  string   `json:"preferred_locality,omitempty"`
			Isolation string   `json:"isolation_level,omitempty"`
		} `json:"routing_requirements,omitempty"`
		DedupWindow int64 `json:"dedup_window_ms,omitempty" minimum:"0"`
		Stream      struct {
			Durability string `json:"durability_mode,omitempty"`
			MaxLen     int64  `json:"retention_maxlen,omitempty" minimum:"0"`
			TTL        int64  `json:"retention_ttl_ms,omitempty" minimum:"0"`
		} `json:"stream_policy,omitempty"`
		MaxSignals int `json:"max_signals_per_execution,omitempty" minimum:"0"`
	}
	fenceShape struct {
		LeaseID    string `json:"lease_id"`
		LeaseEpoch int64  `json:"lease_epoch" minimum:"0"`
		AttemptID  string `json:"attempt_id"`
	}
)

// aliases says by which shape a type is described.
var aliases = map[reflect.Type]reflect.Type{
	reflect.TypeFor[ff.StateVector]():      reflect.TypeFor[stateVectorShape](),
	reflect.TypeFor[ff.ExecutionPolicy]():  reflect.TypeFor[policyShape](),
	reflect.TypeFor[httpapi.Policy]():      reflect.TypeFor[policyShape](),
	reflect.TypeFor[ff.CapabilitySet]():    reflect.TypeFor[[]string](),
	reflect.TypeFor[ff.Fence]():            reflect.TypeFor[fenceShape](),
	reflect.TypeFor[ff.ExecutionID]():      reflect.TypeFor[string](),
	reflect.TypeFor[ff.LeaseID]():          reflect.TypeFor[string](),
	reflect.TypeFor[ff.AttemptID]():        reflect.TypeFor[string](),
	reflect.TypeFor[ff.FlowID]():           reflect.TypeFor[string](),
	reflect.TypeFor[ff.LaneID]():           reflect.TypeFor[string](),
	reflect.TypeFor[httpapi.Time]():        reflect.TypeFor[int64](),
	reflect.TypeFor[httpapi.Millis]():      reflect.TypeFor[int64](),
	reflect.TypeFor[httpapi.Bytes]():       reflect.TypeFor[[]int](),
	reflect.TypeFor[httpapi.Tags]():        reflect.TypeFor[map[string]string](),
	reflect.TypeFor[json.RawMessage]():     reflect.TypeFor[any](),
	reflect.TypeFor[ff.LifecyclePhase]():   reflect.TypeFor[string](),
	reflect.TypeFor[ff.OwnershipState]():   reflect.TypeFor[string](),
	reflect.TypeFor[ff.EligibilityState](): reflect.TypeFor[string](),
	reflect.TypeFor[ff.WorkerInstanceID](): reflect.TypeFor[string](),
}

var pathParam = regexp.MustCompile(`\{(\w+)\}`)

// pathExamples are values with which a reader can try an endpoint.
var pathExamples = map[string]string{
	"id": "{fp:86}:550e8400-e29b-41d4-a716-446655440000", "lane": "default", "worker_id": "mailer",
}

// openAPI writes the document of the routes.
func openAPI(routes []route) ([]byte, error) {
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	for t, alias := range aliases {
		registry.RegisterTypeAlias(t, alias)
	}
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{Title: "FlowFabric", Version: ff.Version,
			Description: "Durable execution: submit, steer and work on executions. Instants are milliseconds since 1970 in UTC. Endpoints tagged `reference` are those of the reference server; in their bodies unknown fields are ignored, in all others they are refused.",
			License:     &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}},
		Paths: map[string]*huma.PathItem{},
		Components: &huma.Components{Schemas: registry, SecuritySchemes: map[string]*huma.SecurityScheme{
			"token": {Type: "http", Scheme: "bearer", Description: "The token of the server; not needed when it has none"}}},
		Security: []map[string][]string{{"token": {}}, {}},
	}
	for i := range routes {
		doc.AddOperation(operation(registry, &routes[i]))
	}
	out, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	return out, nil
}

func operation(registry huma.Registry, rt *route) *huma.Operation {
	op := &huma.Operation{Method: rt.method, Path: rt.path, OperationID: rt.id, Summary: rt.summary, Tags: []string{rt.tag}, Responses: map[string]*huma.Response{}}
	if openPath(rt.path) {
		op.Security = []map[string][]string{}
	}
	for _, m := range pathParam.FindAllStringSubmatch(rt.path, -1) {
		op.Parameters = append(op.Parameters, &huma.Param{Name: m[1], In: "path", Required: true, Example: pathExamples[m[1]], Schema: &huma.Schema{Type: "string"}})
	}
	for _, q := range rt.query {
		op.Parameters = append(op.Parameters, &huma.Param{Name: q.name, In: "query", Required: q.required, Description: q.doc, Schema: q.schema()})
	}
	if rt.body != nil {
		media := &huma.MediaType{Schema: registry.Schema(reflect.TypeOf(rt.body), true, rt.id)}
		if example, found := examples[rt.id]; found {
			media.Example = example
		}
		op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": media}}
	}
	for status, body := range rt.answers {
		op.Responses[strconv.Itoa(status)] = response(registry, status, body)
	}
	failure := registry.Schema(reflect.TypeFor[ff.PublicError](), true, "Error")
	op.Responses["default"] = &huma.Response{Description: "Refused, or failed: the error says why", Content: map[string]*huma.MediaType{"application/json": {Schema: failure}}}
	return op
}

func response(registry huma.Registry, status int, body any) *huma.Response {
	r := &huma.Response{Description: http.StatusText(status)}
	switch body.(type) {
	case nil:
	case octets:
		r.Content = map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}}}
	default:
		r.Content = map[string]*huma.MediaType{"application/json": {Schema: registry.Schema(reflect.TypeOf(body), true, "")}}
	}
	return r
}

func (p *param) schema() *huma.Schema {
	if !p.number {
		return &huma.Schema{Type: "string", Enum: p.enum}
	}
	low := 0.0
	s := &huma.Schema{Type: "integer", Minimum: &low}
	if p.max > 0 {
		high := float64(p.max)
		s.Maximum = &high
	}
	return s
}

// examples are bodies that work as they stand.
var examples = map[string]any{
	"submit":       map[string]any{"kind": "send-mail", "payload": map[string]any{"to": "ann@example.com"}, "max_retries": 3},
	"submit-batch": map[string]any{"executions": []any{map[string]any{"kind": "send-mail", "payload": 1}, map[string]any{"kind": "send-mail", "payload": 2}}},
	"create-execution": map[string]any{"execution_id": pathExamples["id"], "namespace": "", "lane_id": "default", "execution_kind": "send-mail",
		"input_payload": []int{104, 105}, "priority": 0, "creator_identity": "me", "partition_id": 86, "now": 1795476796000},
	"cancel-execution": map[string]any{"execution_id": pathExamples["id"], "reason": "not needed", "now": 1795476796000},
	"change-priority":  map[string]any{"new_priority": 5},
	"grant-claim":      map[string]any{"lane_id": "default", "worker_instance_id": "mailer-1", "capabilities": []string{"gpu"}, "grant_ttl_ms": 30000},
	"claim":            map[string]any{"worker_id": "mailer", "worker_instance_id": "mailer-1", "lanes": []string{"default"}, "max": 1, "lease_ttl_ms": 30000, "wait_ms": 0},
	"register-worker":  map[string]any{"worker_id": "mailer", "worker_instance_id": "mailer-1", "lanes": []string{"default"}, "liveness_ttl_ms": 60000},
	"sweep":            map[string]any{"kind": "lease_expiry"},
}
