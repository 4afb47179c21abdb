package flowfabric

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPolicyJSONHasTheDefaultsOfTheSpec(t *testing.T) {
	data, err := json.Marshal(DefaultExecutionPolicy())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"priority":0,"max_reclaim_count":100,"max_replay_count":10,"budget_ids":[],"max_signals_per_execution":10000}`
	if string(data) != want {
		t.Errorf("default policy: %s", data)
	}
	p, err := ParseExecutionPolicy([]byte(`{"retry_policy":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	data, _ = json.Marshal(p)
	const retry = `{"priority":0,"retry_policy":{"max_retries":3,"backoff":{"type":"exponential","initial_delay_ms":1000,"max_delay_ms":60000,"multiplier":2,"jitter":false},"retryable_categories":[]},"max_reclaim_count":100,"max_replay_count":10,"budget_ids":[],"max_signals_per_execution":10000}`
	if string(data) != retry {
		t.Errorf("policy with retries: %s", data)
	}
}

func TestAFullPolicySurvivesTheRoundTrip(t *testing.T) {
	caps, _ := NewCapabilitySet("gpu", "cuda")
	budget, _ := ParseBudgetID("550e8400-e29b-41d4-a716-446655440000")
	want := &ExecutionPolicy{
		Priority: 5, DelayUntil: time.UnixMilli(1795476796000).UTC(), Retry: ExponentialRetry(7, time.Second, time.Hour),
		Timeout: &TimeoutPolicy{Attempt: time.Minute, Deadline: time.Hour, MaxReclaims: 3}, MaxReclaims: 4,
		Suspension: &SuspensionPolicy{DefaultTimeout: time.Hour, TimeoutBehavior: "cancel"},
		Fallback:   &FallbackPolicy{Tiers: []FallbackTier{{Provider: "p", Model: "m", Timeout: time.Second}}},
		MaxReplays: 2, BudgetIDs: []BudgetID{budget}, DedupWindow: time.Hour, MaxSignals: 9,
		Routing: &RoutingRequirements{RequiredCapabilities: caps, PreferredLocality: "eu", IsolationLevel: "vm"},
		Stream:  &StreamPolicy{DurabilityMode: "x", RetentionMaxLen: 3, RetentionTTL: time.Minute},
	}
	want.Retry.RetryableCategories = []string{"timeout"}
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseExecutionPolicy(data)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(CapabilitySet{})); d != "" {
		t.Errorf("policy changed (-want +got):\n%s", d)
	}
	if strings.Contains(string(data), "null") {
		t.Errorf("an unset option is null: %s", data)
	}
}

func TestBadPoliciesAreRefusedNamingFieldValueAndLimit(t *testing.T) {
	for in, want := range map[string]string{
		`{`:                                              "invalid_policy_json: malformed",
		`"x"`:                                            "invalid_policy_json: policy: must be an object (got string)",
		`{"routing_requirements":null}`:                  "invalid_policy_json: routing_requirements:not_object",
		`{"routing_requirements":[]}`:                    "invalid_policy_json: routing_requirements:not_object",
		`{"max_reclaim_count":-1}`:                       "invalid_policy_json: policy.max_reclaim_count: must be a whole number from 0 to 4294967295 (got number -1)",
		`{"max_reclaim_count":4294967295}`:               "invalid_policy_json: policy.max_reclaim_count: must be 0 to 2147483647 (got 4294967295)",
		`{"retry_policy":{"max_retries":"3"}}`:           "invalid_policy_json: policy.retry_policy.max_retries: must be a whole number from 0 to 4294967295 (got string)",
		`{"retry_policy":{"max_retries":1000001}}`:       "invalid_policy_json: policy.retry_policy.max_retries: must be 0 to 1000000 (got 1000001)",
		`{"retry_policy":{"backoff":{"type":"linear"}}}`: `invalid_policy_json: policy.retry_policy.backoff.type: must be "fixed" or "exponential" (got "linear")`,
		`{"retry_policy":{"backoff":{"type":"fixed"}}}`:  "invalid_policy_json: policy.retry_policy.backoff.delay_ms: is missing",
		`{"retry_policy":{"backoff":{"type":"exponential","initial_delay_ms":1,"max_delay_ms":1,"multiplier":0.5}}}`: "invalid_policy_json: policy.retry_policy.backoff.multiplier: must be 1 to 1000 (got 0.5)",
		`{"timeout_policy":{"attempt_timeout_ms":18446744073709551615}}`:                                             "invalid_policy_json: policy.timeout_policy.attempt_timeout_ms: must be 0 to 315360000000 ms (got 18446744073709551615)",
		`{"delay_until":-5}`:                                          "invalid_policy_json: policy.delay_until: must be 0 to 253402300799999 (got -5)",
		`{"priority":2147483648}`:                                     "invalid_policy_json: policy.priority: must be a whole number from -2147483648 to 2147483647 (got number 2147483648)",
		`{"dedup_window_ms":-1}`:                                      "invalid_policy_json: policy.dedup_window_ms: must be a whole number of milliseconds from 0 to 315360000000 (got number -1)",
		`{"stream_policy":{"retention_maxlen":-1}}`:                   "invalid_policy_json: policy.stream_policy.retention_maxlen: must be a whole number from 0 to 18446744073709551615 (got number -1)",
		`{"max_replay_count":` + strings.Repeat("9", 100) + `}`:       "invalid_policy_json: policy.max_replay_count: must be a whole number from 0 to 4294967295 (got number " + strings.Repeat("9", 57) + "…)",
		`{"fallback_policy":{}}`:                                      "invalid_policy_json: policy.fallback_policy.tiers: is missing",
		`{"budget_ids":["x"]}`:                                        `invalid_policy_json: policy.budget_ids: "x" is not a UUID`,
		`{"budget_ids":[7]}`:                                          "invalid_policy_json: policy.budget_ids: must be a string (got number)",
		`{"budget_ids":[""]}`:                                         "invalid_policy_json: policy.budget_ids[0]: must be the id of a budget (got none)",
		`{"fallback_policy":{"tiers":[{"timeout_ms":315360000001}]}}`: "invalid_policy_json: policy.fallback_policy.tiers[0].timeout_ms: must be 0 to 315360000000 ms (got 315360000001)",
		`{"retry_policy":{"backoff":{"type":"exponential","initial_delay_ms":1,"max_delay_ms":1,"multiplier":1e999}}}`: "invalid_policy_json: policy.retry_policy.backoff.multiplier: must be a number from 1 to 1000 (got number 1e999)",
		strings.Repeat(" ", MaxPolicyBytes) + `{}`:                                                 "invalid_policy_json: policy: exceeds 65536 bytes (got 65538)",
		`{"routing_requirements":{"required_capabilities":["` + strings.Repeat("x", 4097) + `"]}}`: "invalid_capabilities: policy.routing_requirements.required_capabilities: required:too_many_bytes",
		`{"routing_requirements":{"required_capabilities":[` + manyTokens(257) + `]}}`:             "invalid_capabilities: policy.routing_requirements.required_capabilities: required:too_many_tokens",
		`{"routing_requirements":{"required_capabilities":null}}`:                                  "invalid_capabilities: policy.routing_requirements.required_capabilities: required:not_array",
		`{"routing_requirements":{"required_capabilities":"gpu"}}`:                                 "invalid_capabilities: policy.routing_requirements.required_capabilities: required:not_array",
		`{"routing_requirements":{"required_capabilities":[1]}}`:                                   "invalid_capabilities: policy.routing_requirements.required_capabilities: required:non_string_token",
		`{"routing_requirements":{"required_capabilities":[""]}}`:                                  "invalid_capabilities: policy.routing_requirements.required_capabilities: required:empty_token",
		`{"routing_requirements":{"required_capabilities":["a,b"]}}`:                               "invalid_capabilities: policy.routing_requirements.required_capabilities: required:comma_in_token",
		`{"routing_requirements":{"required_capabilities":["a b"]}}`:                               "invalid_capabilities: policy.routing_requirements.required_capabilities: required:control_or_whitespace",
	} {
		if _, err := ParseExecutionPolicy([]byte(in)); err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", in, err, want)
		}
	}
}

// manyTokens is n distinct tokens as members of a JSON list.
func manyTokens(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`"t%d"`, i)
	}
	return strings.Join(list, ",")
}

func TestRequiredCapabilitiesMayHaveAnyByteAboveASCII(t *testing.T) {
	p, err := ParseExecutionPolicy([]byte(`{"routing_requirements":{"required_capabilities":["b","a\u00a0b","b"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := p.Routing.RequiredCapabilities
	if want.CSV() != "a\u00a0b,b" {
		t.Errorf("required %q", want.CSV())
	}
	if stored, err := ParseCapabilityCSV(want.CSV()); err != nil || stored != want {
		t.Errorf("read back from a store as %q, %v", stored.CSV(), err)
	}
	if p, err = ParseExecutionPolicy([]byte(`{"routing_requirements":{"required_capabilities":[` + manyTokens(256) + `,"t0"]}}`)); err != nil || p.Routing.RequiredCapabilities.Len() != 256 {
		t.Errorf("256 distinct tokens: %v", err)
	}
}

func TestAPolicyOutOfRangeIsNotWritten(t *testing.T) {
	for field, p := range map[string]*ExecutionPolicy{
		"policy.max_reclaim_count":                 {MaxReclaims: -1},
		"policy.priority":                          {Priority: 1 << 31},
		"policy.dedup_window_ms":                   {DedupWindow: -time.Second},
		"policy.timeout_policy.attempt_timeout_ms": {Timeout: &TimeoutPolicy{Attempt: MaxDelay + 1}},
		"policy.retry_policy.backoff.type":         {Retry: &RetryPolicy{}},
		"policy.retry_policy.backoff.multiplier":   {Retry: &RetryPolicy{Backoff: Backoff{Type: BackoffExponential, Multiplier: math.NaN()}}},
		"policy.budget_ids[1]":                     {BudgetIDs: []BudgetID{NewBudgetID(), {}}},
	} {
		data, err := json.Marshal(p)
		if e, ok := AsError(err); !ok || e.Field != field || e.Code != CodeInvalidPolicyJSON {
			t.Errorf("%s: written as %s, %v", field, data, err)
		}
	}
}

func TestAShortBoundDoesNotBecomeNone(t *testing.T) {
	p := DefaultExecutionPolicy()
	p.Timeout = &TimeoutPolicy{Attempt: time.Microsecond}
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if p, err = ParseExecutionPolicy(data); err != nil || p.Timeout.Attempt != time.Millisecond {
		t.Errorf("%s is read as %+v, %v", data, p.Timeout, err)
	}
}

// The table of spec 03 §29.2.
func TestRetryDelays(t *testing.T) {
	for _, c := range []struct {
		policy *RetryPolicy
		want   []int64
	}{
		{ExponentialRetry(9, time.Second, time.Minute), []int64{1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000}},
		{&RetryPolicy{Backoff: Backoff{Type: BackoffExponential, Initial: 500 * time.Millisecond, Max: 5 * time.Second, Multiplier: 3}}, []int64{500, 1500, 4500, 5000, 5000}},
		{&RetryPolicy{Backoff: Backoff{Type: BackoffExponential, Initial: 100 * time.Millisecond, Max: time.Minute, Multiplier: 1.5}}, []int64{100, 150, 225, 337, 506}},
		{FixedRetry(3, 250*time.Millisecond), []int64{250, 250, 250}},
	} {
		for i, want := range c.want {
			if got := c.policy.Delay(i).Milliseconds(); got != want {
				t.Errorf("%+v: delay %d is %d ms, want %d", c.policy.Backoff, i, got, want)
			}
		}
	}
	if got := ExponentialRetry(1, time.Second, time.Hour).Delay(1 << 40); got != time.Hour {
		t.Errorf("a huge retry count gives %s", got)
	}
	if got := ExponentialRetry(1, 0, time.Hour).Delay(5000); got != 0 {
		t.Errorf("no initial delay grows to %s", got)
	}
}

func FuzzParseExecutionPolicy(f *testing.F) {
	for _, s := range []string{`{}`, `{"retry_policy":{"backoff":{"type":"fixed","delay_ms":5}}}`, `{"budget_ids":["x"]}`, `null`, `[]`,
		`{"routing_requirements":{"required_capabilities":["a"]}}`, `{"stream_policy":{"retention_ttl_ms":1}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParseExecutionPolicy(data)
		if err != nil {
			if _, ok := AsError(err); !ok {
				t.Fatalf("%q is refused with an error without a code: %v", data, err)
			}
			return
		}
		out, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseExecutionPolicy(out)
		if err != nil {
			t.Fatalf("%q is written as %s, which is refused: %v", data, out, err)
		}
		if d := cmp.Diff(p, again, cmp.AllowUnexported(CapabilitySet{})); d != "" {
			t.Fatalf("%q changed on the way:\n%s", data, d)
		}
	})
}
