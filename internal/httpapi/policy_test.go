package httpapi

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	ff "github.com/flowfabric/flowfabric"
)

func TestMisspeltFieldsOfAPolicyAreRefused(t *testing.T) {
	for policy, says := range map[string]string{
		`{"retry_polcy":{}}`:                              `field policy: "retry_polcy" is unknown; the fields are budget_ids, `,
		`{"Retry_policy":{}}`:                             `"Retry_policy" is unknown`,
		`{"retry_policy":{"retries":3}}`:                  `"retry_policy.retries" is unknown; the fields are backoff, max_retries, retryable_categories`,
		`{"retry_policy":{"backoff":{"typ":"fixed"}}}`:    `"retry_policy.backoff.typ" is unknown`,
		`{"fallback_policy":{"tiers":[{},{"modell":1}]}}`: `"fallback_policy.tiers.modell" is unknown`,
		`{"timeout_policy":7}`:                            "timeout_policy",
		`[]`:                                              "field policy",
	} {
		_, err := Decode[Submit]([]byte(`{"kind":"k","policy":`+policy+`}`), RefuseUnknown, "kind")
		expect(t, err, ErrShape, says)
	}
	_, err := Decode[CreateExecutionArgs]([]byte(goodCreate+`,"policy":{"retry_polcy":{}}}`), IgnoreUnknown)
	expect(t, err, nil, "")
}

func TestEveryFieldOfAPolicyIsKnown(t *testing.T) {
	caps, err := ff.NewCapabilitySet("gpu")
	if err != nil {
		t.Fatal(err)
	}
	full := ff.ExecutionPolicy{Priority: 1, DelayUntil: time.UnixMilli(1).UTC(), Retry: ff.ExponentialRetry(3, time.Second, time.Minute), MaxReclaims: 2, MaxReplays: 3, MaxSignals: 4,
		Timeout:    &ff.TimeoutPolicy{Attempt: time.Second, Deadline: time.Minute, MaxReclaims: 5},
		Suspension: &ff.SuspensionPolicy{DefaultTimeout: time.Second, TimeoutBehavior: "fail"},
		Fallback:   &ff.FallbackPolicy{Tiers: []ff.FallbackTier{{Provider: "p", Model: "m", Timeout: time.Second}}},
		BudgetIDs:  []ff.BudgetID{ff.NewBudgetID()}, DedupWindow: time.Hour, Stream: &ff.StreamPolicy{DurabilityMode: "buffered", RetentionMaxLen: 7, RetentionTTL: time.Hour},
		Routing: &ff.RoutingRequirements{RequiredCapabilities: caps, PreferredLocality: "l", IsolationLevel: "i"}}
	for _, backoff := range []*ff.RetryPolicy{full.Retry, ff.FixedRetry(2, time.Second)} {
		full.Retry = backoff
		back := overTheWire(t, Submit{Kind: "k", Policy: (*Policy)(&full)})
		if d := cmp.Diff(full, ff.ExecutionPolicy(*back.Policy), same); d != "" {
			t.Error(d)
		}
	}
	data, err := json.Marshal(&full)
	if err != nil || strings.Count(string(data), ":") < 25 {
		t.Errorf("not a full policy: %s, %v", data, err)
	}
}

func TestShortFormsLeaveTheRestOfAPolicy(t *testing.T) {
	body := `{"kind":"k","max_retries":7,"timeout_ms":1000,"requires":["gpu"],"policy":{"max_replay_count":1,"retry_policy":{"backoff":{"type":"fixed","delay_ms":5}},
		"timeout_policy":{"execution_deadline_ms":9000},"routing_requirements":{"required_capabilities":["cpu"],"preferred_locality":"here"}}}`
	s, err := Decode[Submit]([]byte(body), RefuseUnknown, "kind")
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Command("l")
	if err != nil {
		t.Fatal(err)
	}
	p := c.Policy
	if p.MaxReplays != 1 || p.Retry.MaxRetries != 7 || p.Retry.Backoff.Delay != 5*time.Millisecond || p.Timeout.Attempt != time.Second || p.Timeout.Deadline != 9*time.Second ||
		p.Routing.RequiredCapabilities.CSV() != "gpu" || p.Routing.PreferredLocality != "here" {
		t.Errorf("%+v %+v %+v %+v", p, p.Retry, p.Timeout, p.Routing)
	}
	if s.Policy.Retry.MaxRetries == 7 || s.Policy.Timeout.Attempt != 0 {
		t.Error("the policy of the body was changed")
	}
}
