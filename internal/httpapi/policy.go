package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	ff "github.com/flowfabric/flowfabric"
)

// Policy is a policy in a body of our own. The policy itself ignores unknown
// fields, as the reference does; here they are refused, so that a misspelt
// retry_policy does not become no retries.
type Policy ff.ExecutionPolicy

// names are the fields of an object and what is known of their values.
type names map[string]names

var policyNames = names{
	"priority": nil, "delay_until": nil, "max_reclaim_count": nil, "max_replay_count": nil, "budget_ids": nil, "dedup_window_ms": nil,
	"max_signals_per_execution": nil,
	"retry_policy": {"max_retries": nil, "retryable_categories": nil,
		"backoff": {"type": nil, "delay_ms": nil, "initial_delay_ms": nil, "max_delay_ms": nil, "multiplier": nil, "jitter": nil}},
	"timeout_policy":       {"attempt_timeout_ms": nil, "execution_deadline_ms": nil, "max_reclaim_count": nil},
	"suspension_policy":    {"default_timeout_ms": nil, "timeout_behavior": nil},
	"fallback_policy":      {"tiers": {"provider": nil, "model": nil, "timeout_ms": nil}},
	"routing_requirements": {"required_capabilities": nil, "preferred_locality": nil, "isolation_level": nil},
	"stream_policy":        {"durability_mode": nil, "retention_maxlen": nil, "retention_ttl_ms": nil},
}

// UnmarshalJSON reads a policy.
func (p *Policy) UnmarshalJSON(data []byte) error {
	if err := policyNames.check("", data); err != nil {
		return err
	}
	return (*ff.ExecutionPolicy)(p).UnmarshalJSON(data)
}

// MarshalJSON writes the policy.
func (p *Policy) MarshalJSON() ([]byte, error) { return json.Marshal((*ff.ExecutionPolicy)(p)) }

// check refuses unknown fields of an object, or of the objects of a list. What is
// neither is for the policy to refuse.
func (n names) check(path string, data json.RawMessage) error {
	var list []json.RawMessage
	if json.Unmarshal(data, &list) == nil {
		var errs []error
		for _, item := range list {
			errs = append(errs, n.check(path, item))
		}
		return errors.Join(errs...)
	}
	given, err := checkTree(data)
	if err != nil || given == nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		below, known := n[name]
		if !known {
			return fmt.Errorf("%q is unknown; the fields are %s", path+name, strings.Join(slices.Sorted(maps.Keys(n)), ", "))
		}
		if below != nil {
			if err := below.check(path+name+".", given[name]); err != nil {
				return err
			}
		}
	}
	return nil
}
