package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"strings"

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
	// strictPolicyShape is the policy of our own bodies: unknown fields are refused.
	strictPolicyShape policyShape
	releasedShape     struct {
		Errors []errorOrNull `json:"errors"`
	}
	resumeConditionShape struct {
		Kind    string                 `json:"kind" enum:"Single,AllOf,Count,OperatorOnly,TimeoutOnly"`
		Key     string                 `json:"waitpoint_key,omitempty" maxLength:"256" doc:"Of Single: may be left out when there is one waitpoint"`
		Signal  string                 `json:"signal_name,omitempty" maxLength:"256" doc:"Name that a signal must have; any when absent"`
		Members []resumeConditionShape `json:"members,omitempty" doc:"Of AllOf"`
		N       int                    `json:"n,omitempty" minimum:"0" doc:"Of Count: how many"`
		Of      string                 `json:"count_kind,omitempty" enum:"DistinctWaitpoints,DistinctSignals,DistinctSources"`
		Keys    []string               `json:"waitpoints,omitempty" doc:"Of Count: keys of the waitpoints whose signals count"`
	}
	fenceShape struct {
		LeaseID    string `json:"lease_id"`
		LeaseEpoch int64  `json:"lease_epoch" minimum:"0"`
		AttemptID  string `json:"attempt_id"`
	}
)

// The schemas of texts with a form of their own.
type (
	executionIDText struct{}
	uuidText        struct{}
	flowIDText      struct{}
	laneText        struct{}
	instantNumber   struct{}
	errorOrNull     struct{}
	byteList        struct{}
	frameIDText     struct{}
)

func (executionIDText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: "string", Pattern: `^\{fp:\+?[0-9]+\}:.+$`, MaxLength: ptr(128), Examples: []any{exampleID}}
}

func (uuidText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: "string", Format: "uuid", Examples: []any{"550e8400-e29b-41d4-a716-446655440000"}}
}

func (flowIDText) Schema(huma.Registry) *huma.Schema {
	s := uuidText{}.Schema(nil)
	s.Nullable = true
	return s
}

func (laneText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: "string", Pattern: `^[ -~]+$`, MinLength: ptr(1), MaxLength: ptr(ff.MaxLaneIDBytes), Examples: []any{"default"}}
}

func (instantNumber) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: "integer", Format: "int64", Description: "Milliseconds since 1970 in UTC", Minimum: ptr(0.0), Maximum: ptr(253402300799999.0), Nullable: true}
}

func (errorOrNull) Schema(r huma.Registry) *huma.Schema {
	return &huma.Schema{AnyOf: []*huma.Schema{r.Schema(reflect.TypeFor[ff.PublicError](), true, ""), {Type: "null"}}}
}

func (byteList) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: "array", Description: "Bytes as numbers",
		Items: &huma.Schema{Type: "integer", Minimum: ptr(0.0), Maximum: ptr(255.0)}}
}

func (frameIDText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: "string", Pattern: `^[0-9]+-[0-9]+$`, Description: "Position of a frame: milliseconds and a number", Examples: []any{"1795476796000-0"}}
}

func ptr[T any](v T) *T { return &v }

// aliases says by which shape a type is described.
var aliases = map[reflect.Type]reflect.Type{
	reflect.TypeFor[ff.StateVector]():      reflect.TypeFor[stateVectorShape](),
	reflect.TypeFor[ff.ExecutionPolicy]():  reflect.TypeFor[policyShape](),
	reflect.TypeFor[httpapi.Released]():    reflect.TypeFor[releasedShape](),
	reflect.TypeFor[httpapi.Policy]():      reflect.TypeFor[strictPolicyShape](),
	reflect.TypeFor[ff.CapabilitySet]():    reflect.TypeFor[[]string](),
	reflect.TypeFor[ff.Fence]():            reflect.TypeFor[fenceShape](),
	reflect.TypeFor[ff.ExecutionID]():      reflect.TypeFor[executionIDText](),
	reflect.TypeFor[ff.LeaseID]():          reflect.TypeFor[uuidText](),
	reflect.TypeFor[ff.AttemptID]():        reflect.TypeFor[uuidText](),
	reflect.TypeFor[ff.FlowID]():           reflect.TypeFor[flowIDText](),
	reflect.TypeFor[ff.SuspensionID]():     reflect.TypeFor[uuidText](),
	reflect.TypeFor[ff.WaitpointID]():      reflect.TypeFor[uuidText](),
	reflect.TypeFor[ff.SignalID]():         reflect.TypeFor[uuidText](),
	reflect.TypeFor[ff.ResumeCondition]():  reflect.TypeFor[resumeConditionShape](),
	reflect.TypeFor[ff.LaneID]():           reflect.TypeFor[laneText](),
	reflect.TypeFor[httpapi.Time]():        reflect.TypeFor[instantNumber](),
	reflect.TypeFor[httpapi.Millis]():      reflect.TypeFor[int64](),
	reflect.TypeFor[ff.FrameID]():          reflect.TypeFor[frameIDText](),
	reflect.TypeFor[httpapi.Bytes]():       reflect.TypeFor[byteList](),
	reflect.TypeFor[httpapi.Tags]():        reflect.TypeFor[map[string]string](),
	reflect.TypeFor[json.RawMessage]():     reflect.TypeFor[any](),
	reflect.TypeFor[ff.LifecyclePhase]():   reflect.TypeFor[string](),
	reflect.TypeFor[ff.OwnershipState]():   reflect.TypeFor[string](),
	reflect.TypeFor[ff.EligibilityState](): reflect.TypeFor[string](),
	reflect.TypeFor[ff.WorkerInstanceID](): reflect.TypeFor[string](),
}

var pathParam = regexp.MustCompile(`\{(\w+)\}`)

// pathParams describe the parts of paths.
var pathParams = map[string]*huma.Param{
	"id":           {Example: exampleID, Schema: executionIDText{}.Schema(nil)},
	"idx":          {Example: 0, Description: "Index of the attempt, from 0", Schema: &huma.Schema{Type: "integer", Minimum: ptr(0.0), Maximum: ptr(4294967295.0)}},
	"lane":         {Example: "default", Schema: laneText{}.Schema(nil)},
	"waitpoint_id": {Example: exampleWaitpoint, Schema: uuidText{}.Schema(nil)},
	"worker_id":    {Example: "mailer", Schema: &huma.Schema{Type: "string", MinLength: ptr(1), MaxLength: ptr(ff.MaxIdentifierBytes)}},
}

// openAPI writes the document of the routes.
func openAPI(routes []route) ([]byte, error) {
	registry := huma.NewMapRegistry("#/components/schemas/", func(t reflect.Type, hint string) string {
		return strings.ReplaceAll(huma.DefaultSchemaNamer(t, hint), "Shape", "")
	})
	for t, alias := range aliases {
		registry.RegisterTypeAlias(t, alias)
	}
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{Title: "FlowFabric", Version: ff.Version,
			Description: "Durable execution: submit, steer and work on executions. Instants are milliseconds since 1970 in UTC. Endpoints tagged `reference` are those of the reference server; in their bodies unknown fields are ignored, in those of `people` and `workers` they are refused, as are unknown query parameters. Executions can wait for people and other systems: a worker suspends one, a signal to one of its waitpoints (with the token of the waitpoint), a decision or an operator lets it go on.",
			License:     &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}},
		Paths: map[string]*huma.PathItem{},
		Components: &huma.Components{Schemas: registry, SecuritySchemes: map[string]*huma.SecurityScheme{
			"token": {Type: "http", Scheme: "bearer", Description: "The token of the server; not needed when it has none"}}},
		Security: []map[string][]string{{"token": {}}, {}},
	}
	for i := range routes {
		doc.AddOperation(operation(registry, &routes[i]))
	}
	openSchemas(registry, routes)
	out, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	return out, nil
}

// openSchemas lets objects have more fields than they do today, except for
// bodies in which unknown fields are refused, and says which fields of bodies are
// required.
func openSchemas(registry huma.Registry, routes []route) {
	for _, s := range registry.Map() {
		if s.AdditionalProperties == false {
			s.AdditionalProperties = nil
		}
	}
	for i := range routes {
		rt := &routes[i]
		if rt.body == nil {
			continue
		}
		s := registry.Schema(reflect.TypeOf(rt.body), true, rt.id)
		registry.SchemaFromRef(s.Ref).Required = rt.required
		if rt.unknown() == httpapi.RefuseUnknown {
			closeSchema(registry, s)
		}
	}
}

func closeSchema(registry huma.Registry, s *huma.Schema) {
	if s == nil {
		return
	}
	if s.Ref != "" {
		s = registry.SchemaFromRef(s.Ref)
		if s.AdditionalProperties != nil {
			return
		}
		s.AdditionalProperties = false
		if s == registry.Map()["StrictPolicy"] {
			return // its parts are those of the open one too
		}
	}
	for _, p := range s.Properties {
		closeSchema(registry, p)
	}
	closeSchema(registry, s.Items)
}

func operation(registry huma.Registry, rt *route) *huma.Operation {
	op := &huma.Operation{Method: rt.method, Path: strings.TrimSuffix(rt.path, "{$}"), OperationID: rt.id, Summary: rt.summary, Tags: []string{rt.tag}, Responses: map[string]*huma.Response{}}
	if openPath(rt.path) {
		op.Security = []map[string][]string{}
	}
	for _, m := range pathParam.FindAllStringSubmatch(rt.path, -1) {
		p := *pathParams[m[1]]
		p.Name, p.In, p.Required = m[1], "path", true
		op.Parameters = append(op.Parameters, &p)
	}
	for _, q := range rt.query {
		op.Parameters = append(op.Parameters, &huma.Param{Name: q.name, In: "query", Required: q.required, Description: q.doc, Schema: q.schema()})
	}
	if rt.body != nil {
		content := &huma.MediaType{Schema: registry.Schema(reflect.TypeOf(rt.body), true, rt.id), Example: examples[rt.id]}
		op.RequestBody = &huma.RequestBody{Required: true, Description: fmt.Sprintf("At most %d bytes", rt.limit), Content: map[string]*huma.MediaType{"application/json": content}}
	}
	for status, body := range rt.answers {
		op.Responses[strconv.Itoa(status)] = response(registry, status, body)
	}
	for _, status := range refusals(rt) {
		op.Responses[strconv.Itoa(status)] = response(registry, status, ff.PublicError{})
	}
	if rt.limit > 0 {
		op.Responses["413"] = response(registry, http.StatusRequestEntityTooLarge, tooLarge{})
	}
	if rt.textErrors {
		op.Responses["400"] = response(registry, http.StatusBadRequest, media("text/plain"))
		op.Responses["400"].Content["application/json"] = response(registry, http.StatusBadRequest, ff.PublicError{}).Content["application/json"]
	}
	op.Responses["default"] = response(registry, 0, ff.PublicError{})
	op.Responses["default"].Description = "Refused for another reason, or failed: the error says why"
	return op
}

// refusals are the statuses with which an endpoint refuses what a caller may get
// wrong; faults of the server come on top.
func refusals(rt *route) []int {
	var list []int
	if !openPath(rt.path) {
		list = append(list, http.StatusUnauthorized)
	}
	if rt.body != nil || rt.query != nil || strings.Contains(rt.path, "{id}") {
		list = append(list, http.StatusBadRequest)
	}
	if rt.body != nil {
		list = append(list, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity)
	}
	if strings.Contains(rt.path, "{id}") {
		if !rt.unchecked {
			list = append(list, http.StatusNotFound)
		}
		if rt.method != http.MethodGet {
			list = append(list, http.StatusConflict)
		}
	}
	return list
}

func response(registry huma.Registry, status int, body any) *huma.Response {
	r := &huma.Response{Description: http.StatusText(status)}
	switch body := body.(type) {
	case nil:
	case media:
		schema := &huma.Schema{Type: "string"}
		switch body {
		case octets:
			schema.Format = "binary"
		case "application/json":
			schema.Type = "object"
		}
		r.Content = map[string]*huma.MediaType{string(body): {Schema: schema}}
	default:
		r.Content = map[string]*huma.MediaType{"application/json": {Schema: registry.Schema(reflect.TypeOf(body), true, ""), Example: errorExamples[status]}}
	}
	return r
}

func (p *param) schema() *huma.Schema {
	if !p.number {
		s := &huma.Schema{Type: "string", Enum: p.enum}
		if p.max > 0 {
			s.MaxLength = &p.max
		}
		return s
	}
	low := 0.0
	s := &huma.Schema{Type: "integer", Minimum: &low}
	if p.max > 0 {
		high := float64(p.max)
		s.Maximum = &high
	}
	return s
}
