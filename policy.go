package flowfabric

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"
)

// Limits and defaults of policies (spec 01 §8).
const (
	MaxPolicyBytes        = 64 << 10
	MaxRetries            = 1_000_000
	DefaultRetries        = 3
	DefaultMaxReclaims    = 100
	DefaultMaxReplays     = 10
	DefaultMaxSignals     = 10_000
	DefaultRetentionLen   = 10_000
	DefaultDurabilityMode = "buffered"
	DefaultRetryInitial   = time.Second
	DefaultRetryMax       = time.Minute
	DefaultRetryFactor    = 2.0
	maxRetryFactor        = 1000.0
)

// ExecutionPolicy is how one execution is to be run. The zero value is not the
// default: start from DefaultExecutionPolicy.
type ExecutionPolicy struct {
	// Priority is informational: the priority of the submit counts.
	Priority int
	// DelayUntil holds the execution back when the submit has no delay.
	DelayUntil time.Time
	// Retry is nil for no retries.
	Retry   *RetryPolicy
	Timeout *TimeoutPolicy
	// MaxReclaims is how often it may be taken over from lost leases.
	MaxReclaims int
	Suspension  *SuspensionPolicy
	Fallback    *FallbackPolicy
	// MaxReplays is how often it may be replayed.
	MaxReplays int
	BudgetIDs  []BudgetID
	Routing    *RoutingRequirements
	// DedupWindow is how long its idempotency key counts; zero means
	// IdempotencyWindow.
	DedupWindow time.Duration
	Stream      *StreamPolicy
	// MaxSignals bounds the signals that it accepts.
	MaxSignals int
}

// RetryPolicy says whether and when a failed attempt is followed by another.
type RetryPolicy struct {
	// MaxRetries is the number of attempts after the first.
	MaxRetries int
	Backoff    Backoff
	// RetryableCategories limits retries to failures of these categories; empty
	// means all.
	RetryableCategories []string
}

// BackoffType is how the wait between attempts grows.
type BackoffType string

// The types.
const (
	BackoffFixed       BackoffType = "fixed"
	BackoffExponential BackoffType = "exponential"
)

// Backoff is the wait between attempts.
type Backoff struct {
	Type BackoffType
	// Delay is the wait of the fixed type.
	Delay time.Duration
	// Initial, Max, Multiplier and Jitter are of the exponential type. Jitter
	// takes up to half of each wait off.
	Initial, Max time.Duration
	Multiplier   float64
	Jitter       bool
}

// TimeoutPolicy bounds attempts and the whole execution; zero means no bound.
type TimeoutPolicy struct {
	Attempt     time.Duration
	Deadline    time.Duration
	MaxReclaims int
}

// SuspensionPolicy is what a suspension without its own timeout gets.
type SuspensionPolicy struct {
	DefaultTimeout  time.Duration
	TimeoutBehavior string
}

// FallbackPolicy lists providers to fall back to.
type FallbackPolicy struct{ Tiers []FallbackTier }

// FallbackTier is one provider.
type FallbackTier struct {
	Provider, Model string
	Timeout         time.Duration
}

// RoutingRequirements say which workers may claim.
type RoutingRequirements struct {
	RequiredCapabilities CapabilitySet
	PreferredLocality    string
	IsolationLevel       string
}

// StreamPolicy bounds what is kept. RetentionTTL, when not zero, is how long the
// whole execution is kept after it ended.
type StreamPolicy struct {
	DurabilityMode  string
	RetentionMaxLen uint64
	RetentionTTL    time.Duration
}

// DefaultExecutionPolicy has the defaults of spec 01 §8.1.
func DefaultExecutionPolicy() *ExecutionPolicy {
	return &ExecutionPolicy{MaxReclaims: DefaultMaxReclaims, MaxReplays: DefaultMaxReplays, MaxSignals: DefaultMaxSignals}
}

// FixedRetry retries up to limit times, each after the same delay.
func FixedRetry(limit int, delay time.Duration) *RetryPolicy {
	return &RetryPolicy{MaxRetries: limit, Backoff: Backoff{Type: BackoffFixed, Delay: delay}}
}

// ExponentialRetry retries up to limit times; the delay starts at initial and
// doubles up to ceiling.
func ExponentialRetry(limit int, initial, ceiling time.Duration) *RetryPolicy {
	return &RetryPolicy{MaxRetries: limit, Backoff: Backoff{
		Type: BackoffExponential, Initial: initial, Max: ceiling, Multiplier: DefaultRetryFactor}}
}

// Delay is the wait before the retry that follows retryCount earlier ones, in
// whole milliseconds (spec 01 §8.3; fractions are cut off, quirk Q15).
func (r RetryPolicy) Delay(retryCount int) time.Duration {
	b := r.Backoff
	switch b.Type {
	case BackoffFixed:
		return b.Delay.Truncate(time.Millisecond)
	case BackoffExponential:
		if b.Initial < time.Millisecond {
			return 0
		}
		d := float64(b.Initial.Milliseconds()) * math.Pow(b.Multiplier, float64(retryCount))
		if limit := float64(b.Max.Milliseconds()); !(d < limit) {
			return b.Max.Truncate(time.Millisecond)
		}
		return time.Duration(d) * time.Millisecond
	}
	return DefaultRetryInitial
}

// Validate checks every member against its limit. Errors: invalid_policy_json
// naming the field, the value and the limit; invalid_input for a bad instant.
func (p *ExecutionPolicy) Validate() error {
	if err := checkInstant("policy.delay_until", p.DelayUntil); err != nil {
		return err
	}
	if p.Priority < math.MinInt32 || p.Priority > math.MaxInt32 {
		return badPolicy("priority", "must be %d to %d (got %d)", math.MinInt32, math.MaxInt32, p.Priority)
	}
	for i, id := range p.BudgetIDs {
		if id.IsZero() {
			return badPolicy(fmt.Sprintf("budget_ids[%d]", i), "must be the id of a budget (got none)")
		}
	}
	counts := []policyCount{
		{"max_reclaim_count", p.MaxReclaims, math.MaxInt32},
		{"max_replay_count", p.MaxReplays, math.MaxInt32},
		{"max_signals_per_execution", p.MaxSignals, math.MaxInt32},
		{"budget_ids", len(p.BudgetIDs), MaxTags},
	}
	durations := []policyDuration{{"dedup_window_ms", p.DedupWindow}}
	if r := p.Retry; r != nil {
		counts = append(counts, policyCount{"retry_policy.max_retries", r.MaxRetries, MaxRetries},
			policyCount{"retry_policy.retryable_categories", len(r.RetryableCategories), MaxTags})
		durations = append(durations, policyDuration{"retry_policy.backoff.delay_ms", r.Backoff.Delay},
			policyDuration{"retry_policy.backoff.initial_delay_ms", r.Backoff.Initial},
			policyDuration{"retry_policy.backoff.max_delay_ms", r.Backoff.Max})
		if err := r.Backoff.validate(); err != nil {
			return err
		}
	}
	if t := p.Timeout; t != nil {
		counts = append(counts, policyCount{"timeout_policy.max_reclaim_count", t.MaxReclaims, math.MaxInt32})
		durations = append(durations, policyDuration{"timeout_policy.attempt_timeout_ms", t.Attempt},
			policyDuration{"timeout_policy.execution_deadline_ms", t.Deadline})
	}
	if s := p.Suspension; s != nil {
		durations = append(durations, policyDuration{"suspension_policy.default_timeout_ms", s.DefaultTimeout})
	}
	if f := p.Fallback; f != nil {
		counts = append(counts, policyCount{"fallback_policy.tiers", len(f.Tiers), MaxTags})
		for i, t := range f.Tiers {
			durations = append(durations, policyDuration{fmt.Sprintf("fallback_policy.tiers[%d].timeout_ms", i), t.Timeout})
		}
	}
	if s := p.Stream; s != nil {
		durations = append(durations, policyDuration{"stream_policy.retention_ttl_ms", s.RetentionTTL})
	}
	for _, c := range counts {
		if c.n < 0 || c.n > c.limit {
			return badPolicy(c.field, "must be 0 to %d (got %d)", c.limit, c.n)
		}
	}
	for _, d := range durations {
		if d.d < 0 || d.d > MaxDelay {
			return badPolicy(d.field, "must be 0 to %d ms (got %d)", MaxDelay.Milliseconds(), d.d.Milliseconds())
		}
	}
	return nil
}

type policyCount struct {
	field    string
	n, limit int
}

type policyDuration struct {
	field string
	d     time.Duration
}

func (b Backoff) validate() error {
	switch b.Type {
	case BackoffFixed:
		return nil
	case BackoffExponential:
		if !(b.Multiplier >= 1 && b.Multiplier <= maxRetryFactor) {
			return badPolicy("retry_policy.backoff.multiplier", "must be 1 to %g (got %g)", maxRetryFactor, b.Multiplier)
		}
		return nil
	}
	return badPolicy("retry_policy.backoff.type", "must be %q or %q (got %q)", BackoffFixed, BackoffExponential, b.Type)
}

func badPolicy(field, format string, args ...any) error {
	e := Errorf(CodeInvalidPolicyJSON, format, args...)
	e.Field = "policy"
	if field != "" {
		e.Field += "." + field
	}
	return e
}

// The JSON forms. Unset options are left out, never null (spec 01 §8).
type (
	policyJSON struct {
		Priority    int32           `json:"priority"`
		DelayUntil  *int64          `json:"delay_until,omitempty"`
		Retry       *retryJSON      `json:"retry_policy,omitempty"`
		Timeout     *timeoutJSON    `json:"timeout_policy,omitempty"`
		MaxReclaims uint32          `json:"max_reclaim_count"`
		Suspension  *suspensionJSON `json:"suspension_policy,omitempty"`
		Fallback    *fallbackJSON   `json:"fallback_policy,omitempty"`
		MaxReplays  uint32          `json:"max_replay_count"`
		BudgetIDs   []BudgetID      `json:"budget_ids"`
		Routing     *routingJSON    `json:"routing_requirements,omitempty"`
		DedupWindow *uint64         `json:"dedup_window_ms,omitempty"`
		Stream      *streamJSON     `json:"stream_policy,omitempty"`
		MaxSignals  uint32          `json:"max_signals_per_execution"`
	}
	retryJSON struct {
		MaxRetries uint32       `json:"max_retries"`
		Backoff    *backoffJSON `json:"backoff"`
		Categories []string     `json:"retryable_categories"`
	}
	backoffJSON struct {
		Type       BackoffType `json:"type"`
		Delay      *uint64     `json:"delay_ms,omitempty"`
		Initial    *uint64     `json:"initial_delay_ms,omitempty"`
		Max        *uint64     `json:"max_delay_ms,omitempty"`
		Multiplier *float64    `json:"multiplier,omitempty"`
		Jitter     *bool       `json:"jitter,omitempty"`
	}
	timeoutJSON struct {
		Attempt     *uint64 `json:"attempt_timeout_ms,omitempty"`
		Deadline    *uint64 `json:"execution_deadline_ms,omitempty"`
		MaxReclaims uint32  `json:"max_reclaim_count"`
	}
	suspensionJSON struct {
		DefaultTimeout  *uint64 `json:"default_timeout_ms,omitempty"`
		TimeoutBehavior string  `json:"timeout_behavior"`
	}
	fallbackJSON struct {
		Tiers []tierJSON `json:"tiers"`
	}
	tierJSON struct {
		Provider string  `json:"provider"`
		Model    string  `json:"model"`
		Timeout  *uint64 `json:"timeout_ms,omitempty"`
	}
	routingJSON struct {
		Required  json.RawMessage `json:"required_capabilities"`
		Locality  string          `json:"preferred_locality,omitempty"`
		Isolation string          `json:"isolation_level,omitempty"`
	}
	streamJSON struct {
		Durability string  `json:"durability_mode"`
		MaxLen     uint64  `json:"retention_maxlen"`
		TTL        *uint64 `json:"retention_ttl_ms,omitempty"`
	}
)

// msOf is an optional duration in whole milliseconds, rounded up, so that a short
// bound does not become none.
func msOf(d time.Duration) *uint64 {
	if d == 0 {
		return nil
	}
	n := uint64((d + time.Millisecond - 1).Milliseconds())
	return &n
}

func durationOf(field string, n *uint64) (time.Duration, error) {
	if n == nil {
		return 0, nil
	}
	if *n > uint64(MaxDelay.Milliseconds()) {
		return 0, badPolicy(field, "must be 0 to %d ms (got %d)", MaxDelay.Milliseconds(), *n)
	}
	return time.Duration(*n) * time.Millisecond, nil
}

// MarshalJSON writes the policy with its defaults filled in, in the order of
// spec 01 §8.1. Errors: those of Validate, because numbers out of range would be
// written as others.
func (p *ExecutionPolicy) MarshalJSON() ([]byte, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	j := policyJSON{
		Priority: int32(p.Priority), MaxReclaims: uint32(p.MaxReclaims), MaxReplays: uint32(p.MaxReplays),
		BudgetIDs: append([]BudgetID{}, p.BudgetIDs...), DedupWindow: msOf(p.DedupWindow), MaxSignals: uint32(p.MaxSignals),
	}
	if !p.DelayUntil.IsZero() {
		n := p.DelayUntil.UnixMilli()
		j.DelayUntil = &n
	}
	if r := p.Retry; r != nil {
		j.Retry = &retryJSON{MaxRetries: uint32(r.MaxRetries), Backoff: r.Backoff.json(), Categories: append([]string{}, r.RetryableCategories...)}
	}
	if t := p.Timeout; t != nil {
		j.Timeout = &timeoutJSON{Attempt: msOf(t.Attempt), Deadline: msOf(t.Deadline), MaxReclaims: uint32(t.MaxReclaims)}
	}
	if s := p.Suspension; s != nil {
		j.Suspension = &suspensionJSON{DefaultTimeout: msOf(s.DefaultTimeout), TimeoutBehavior: s.TimeoutBehavior}
	}
	if f := p.Fallback; f != nil {
		j.Fallback = &fallbackJSON{Tiers: []tierJSON{}}
		for _, t := range f.Tiers {
			j.Fallback.Tiers = append(j.Fallback.Tiers, tierJSON{t.Provider, t.Model, msOf(t.Timeout)})
		}
	}
	if r := p.Routing; r != nil {
		caps, err := r.RequiredCapabilities.MarshalJSON()
		if err != nil {
			return nil, err
		}
		j.Routing = &routingJSON{Required: caps, Locality: r.PreferredLocality, Isolation: r.IsolationLevel}
	}
	if s := p.Stream; s != nil {
		j.Stream = &streamJSON{Durability: s.DurabilityMode, MaxLen: s.RetentionMaxLen, TTL: msOf(s.RetentionTTL)}
	}
	return json.Marshal(j)
}

func (b Backoff) json() *backoffJSON {
	n := func(d time.Duration) *uint64 { u := uint64(d.Milliseconds()); return &u }
	if b.Type == BackoffFixed {
		return &backoffJSON{Type: b.Type, Delay: n(b.Delay)}
	}
	return &backoffJSON{Type: b.Type, Initial: n(b.Initial), Max: n(b.Max), Multiplier: &b.Multiplier, Jitter: &b.Jitter}
}

// ParseExecutionPolicy reads and checks a policy. Errors: invalid_policy_json
// (`malformed`, `routing_requirements:not_object`, or the field with the value
// and the limit) and invalid_capabilities with the details of spec 01 §9.2.
func ParseExecutionPolicy(data []byte) (*ExecutionPolicy, error) {
	if n := len(data); n > MaxPolicyBytes {
		return nil, badPolicy("", "exceeds %d bytes (got %d)", MaxPolicyBytes, n)
	}
	var p ExecutionPolicy
	if err := json.Unmarshal(data, &p); err != nil {
		if e, ok := AsError(err); ok {
			return nil, e
		}
		return nil, NewError(CodeInvalidPolicyJSON, "malformed")
	}
	return &p, nil
}

// UnmarshalJSON reads a policy, fills in defaults and checks it.
func (p *ExecutionPolicy) UnmarshalJSON(data []byte) error {
	j := policyJSON{MaxReclaims: DefaultMaxReclaims, MaxReplays: DefaultMaxReplays, MaxSignals: DefaultMaxSignals}
	var raw struct {
		Routing json.RawMessage `json:"routing_requirements"`
	}
	if err := json.Unmarshal(data, &raw); err == nil && raw.Routing != nil {
		if t := bytes.TrimSpace(raw.Routing); t[0] != '{' {
			return NewError(CodeInvalidPolicyJSON, "routing_requirements:not_object")
		}
	}
	if err := json.Unmarshal(data, &j); err != nil {
		return policyTypeError(err)
	}
	read, err := j.policy()
	if err == nil {
		err = read.Validate()
	}
	if err == nil {
		*p = *read
	}
	return err
}

// policyTypeError names the member whose type or range is wrong.
func policyTypeError(err error) error {
	if e, ok := AsError(err); ok {
		if e.Code == CodeInvalidInput {
			return badPolicy("budget_ids", "%s", e.Detail)
		}
		return e
	}
	var t *json.UnmarshalTypeError
	if errors.As(err, &t) {
		return wrongType(t.Field, t)
	}
	return NewError(CodeInvalidPolicyJSON, "malformed")
}

// wrongType says what the field takes and what it was given, cut to maxShown bytes.
func wrongType(field string, t *json.UnmarshalTypeError) error {
	const maxShown = 64
	got := t.Value
	if len(got) > maxShown {
		got = got[:maxShown] + "…"
	}
	return badPolicy(field, "must be %s (got %s)", wireType(field, t.Type), got)
}

func wireType(field string, goType reflect.Type) string {
	switch goType.Kind() {
	case reflect.Int32:
		return fmt.Sprintf("a whole number from %d to %d", math.MinInt32, math.MaxInt32)
	case reflect.Int64:
		return fmt.Sprintf("a whole number of milliseconds from 0 to %d", int64(maxMillis))
	case reflect.Uint32:
		return fmt.Sprintf("a whole number from 0 to %d", uint32(math.MaxUint32))
	case reflect.Uint64:
		if strings.HasSuffix(field, "_ms") {
			return fmt.Sprintf("a whole number of milliseconds from 0 to %d", MaxDelay.Milliseconds())
		}
		return fmt.Sprintf("a whole number from 0 to %d", uint64(math.MaxUint64))
	case reflect.Float64:
		return fmt.Sprintf("a number from 1 to %g", maxRetryFactor)
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list"
	case reflect.String, reflect.Array: // an id is an array of bytes
		return "a string"
	}
	return "an object"
}

func (j *policyJSON) policy() (*ExecutionPolicy, error) {
	p := &ExecutionPolicy{
		Priority: int(j.Priority), MaxReclaims: int(j.MaxReclaims), MaxReplays: int(j.MaxReplays),
		BudgetIDs: j.BudgetIDs, MaxSignals: int(j.MaxSignals),
	}
	if len(p.BudgetIDs) == 0 {
		p.BudgetIDs = nil
	}
	if j.DelayUntil != nil {
		if *j.DelayUntil < 0 || *j.DelayUntil > maxMillis {
			return nil, badPolicy("delay_until", "must be 0 to %d (got %d)", int64(maxMillis), *j.DelayUntil)
		}
		p.DelayUntil = time.UnixMilli(*j.DelayUntil).UTC()
	}
	var err error
	d := func(field string, n *uint64) (v time.Duration) {
		if err == nil {
			v, err = durationOf(field, n)
		}
		return v
	}
	p.DedupWindow = d("dedup_window_ms", j.DedupWindow)
	if t := j.Timeout; t != nil {
		p.Timeout = &TimeoutPolicy{
			Attempt:     d("timeout_policy.attempt_timeout_ms", t.Attempt),
			Deadline:    d("timeout_policy.execution_deadline_ms", t.Deadline),
			MaxReclaims: int(t.MaxReclaims)}
	}
	if s := j.Suspension; s != nil {
		p.Suspension = &SuspensionPolicy{DefaultTimeout: d("suspension_policy.default_timeout_ms", s.DefaultTimeout), TimeoutBehavior: s.TimeoutBehavior}
	}
	if f := j.Fallback; f != nil {
		if f.Tiers == nil && err == nil {
			err = badPolicy("fallback_policy.tiers", "is missing")
		}
		p.Fallback = &FallbackPolicy{}
		for i, t := range f.Tiers {
			p.Fallback.Tiers = append(p.Fallback.Tiers, FallbackTier{t.Provider, t.Model, d(fmt.Sprintf("fallback_policy.tiers[%d].timeout_ms", i), t.Timeout)})
		}
	}
	if s := j.Stream; s != nil {
		p.Stream = &StreamPolicy{DurabilityMode: s.Durability, RetentionMaxLen: s.MaxLen, RetentionTTL: d("stream_policy.retention_ttl_ms", s.TTL)}
	}
	if j.Retry != nil && err == nil {
		p.Retry, err = j.Retry.policy()
	}
	if j.Routing != nil && err == nil {
		p.Routing = &RoutingRequirements{PreferredLocality: j.Routing.Locality, IsolationLevel: j.Routing.Isolation}
		p.Routing.RequiredCapabilities, err = parseRequired(j.Routing.Required)
	}
	return p, err
}

// maxMillis is the end of the year 9999.
const maxMillis = 253402300799999

// UnmarshalJSON of the parts that have defaults.
func (j *retryJSON) UnmarshalJSON(data []byte) error {
	type plain retryJSON
	v := plain{MaxRetries: DefaultRetries}
	err := json.Unmarshal(data, &v)
	*j = retryJSON(v)
	return prefixed(err, "retry_policy")
}

func (j *timeoutJSON) UnmarshalJSON(data []byte) error {
	type plain timeoutJSON
	v := plain{MaxReclaims: DefaultMaxReclaims}
	err := json.Unmarshal(data, &v)
	*j = timeoutJSON(v)
	return prefixed(err, "timeout_policy")
}

func (j *suspensionJSON) UnmarshalJSON(data []byte) error {
	type plain suspensionJSON
	v := plain{TimeoutBehavior: "fail"}
	err := json.Unmarshal(data, &v)
	*j = suspensionJSON(v)
	return prefixed(err, "suspension_policy")
}

func (j *streamJSON) UnmarshalJSON(data []byte) error {
	type plain streamJSON
	v := plain{Durability: DefaultDurabilityMode, MaxLen: DefaultRetentionLen}
	err := json.Unmarshal(data, &v)
	*j = streamJSON(v)
	return prefixed(err, "stream_policy")
}

// prefixed turns a type error inside a part into one that names the part.
func prefixed(err error, part string) error {
	if err == nil {
		return nil
	}
	var t *json.UnmarshalTypeError
	if errors.As(err, &t) {
		field := part
		if t.Field != "" {
			field += "." + t.Field
		}
		return wrongType(field, t)
	}
	return err
}

func (j *retryJSON) policy() (*RetryPolicy, error) {
	r := &RetryPolicy{MaxRetries: int(j.MaxRetries), RetryableCategories: j.Categories}
	if len(r.RetryableCategories) == 0 {
		r.RetryableCategories = nil
	}
	b := j.Backoff
	if b == nil {
		r.Backoff = Backoff{Type: BackoffExponential, Initial: DefaultRetryInitial, Max: DefaultRetryMax, Multiplier: DefaultRetryFactor}
		return r, nil
	}
	const field = "retry_policy.backoff."
	need := func(name string, n *uint64) (time.Duration, error) {
		if n == nil {
			return 0, badPolicy(field+name, "is missing")
		}
		return durationOf(field+name, n)
	}
	r.Backoff.Type = b.Type
	var err error
	switch b.Type {
	case BackoffFixed:
		r.Backoff.Delay, err = need("delay_ms", b.Delay)
	case BackoffExponential:
		r.Backoff.Initial, err = need("initial_delay_ms", b.Initial)
		if err == nil {
			r.Backoff.Max, err = need("max_delay_ms", b.Max)
		}
		if err == nil && b.Multiplier == nil {
			err = badPolicy(field+"multiplier", "is missing")
		}
		if err == nil {
			r.Backoff.Multiplier, r.Backoff.Jitter = *b.Multiplier, b.Jitter != nil && *b.Jitter
		}
	default:
		err = r.Backoff.validate()
	}
	return r, err
}

// parseRequired reads the required capabilities by the rules of spec 01 §9.2.
// Duplicates are dropped.
func parseRequired(data json.RawMessage) (CapabilitySet, error) {
	bad := func(detail string) (CapabilitySet, error) {
		e := NewError(CodeInvalidCapabilities, "required:"+detail)
		e.Field = "policy.routing_requirements.required_capabilities"
		return CapabilitySet{}, e
	}
	if len(data) == 0 {
		return CapabilitySet{}, nil
	}
	var list []any
	if err := json.Unmarshal(data, &list); err != nil || list == nil {
		return bad("not_array")
	}
	tokens := make([]string, 0, len(list))
	for _, v := range list {
		t, ok := v.(string)
		switch {
		case !ok:
			return bad("non_string_token")
		case t == "":
			return bad("empty_token")
		case strings.Contains(t, ","):
			return bad("comma_in_token")
		case strings.ContainsFunc(t, func(r rune) bool { return r <= 0x20 || r == 0x7f }):
			return bad("control_or_whitespace")
		}
		tokens = append(tokens, t)
	}
	set, err := boundedSet(tokens)
	if e, ok := AsError(err); ok {
		if strings.Contains(e.Detail, "CAPS_MAX_TOKENS") {
			return bad("too_many_tokens")
		}
		return bad("too_many_bytes")
	}
	return set, nil
}
