package valkey

import (
	"maps"
	"strings"
	"testing"

	ff "github.com/flowfabric/flowfabric"
)

// soundParts are the parts of a record that is leased, with a policy, tags, an
// attempt and a grant.
func soundParts(id ff.ExecutionID) parts {
	lease, attempt := ff.NewLeaseID().String(), ff.NewAttemptID().String()
	return parts{
		core: map[string]string{"namespace": "default", "lane_id": "default", "execution_kind": "k", "priority": "0", "lifecycle_phase": "active",
			"ownership_state": "leased", "eligibility_state": "not_applicable", "blocking_reason": "none", "terminal_outcome": "none",
			"attempt_state": "running_attempt", "public_state": "active", "current_attempt_index": "0", "current_attempt_id": attempt,
			"total_attempt_count": "1", "current_lease_id": lease, "current_lease_epoch": "1", "current_worker_id": "w",
			"current_worker_instance_id": "i", "lease_acquired_at": "1750000000000", "lease_expires_at": "1750000030000",
			"created_at": "1750000000000", "started_at": "1750000000000", "progress_pct": "50", "required_capabilities": "a,b"},
		policy:  `{"priority":0,"max_reclaim_count":100,"retry_policy":{"max_retries":3,"backoff":{"type":"fixed","delay_ms":1}}}`,
		tags:    map[string]string{"a.b": "c"},
		attempt: map[string]string{"attempt_id": attempt, "attempt_index": "0", "attempt_type": "initial", "attempt_state": "started", "created_at": "1750000000000", "lease_id": lease, "lease_epoch": "1"},
		grant:   map[string]string{"worker_id": "w", "created_at": "1", "grant_expires_at": "2"},
	}
}

// FuzzRecord gives the decoder of records hashes in which some fields have any
// value: it answers a record or corruption that names the execution.
func FuzzRecord(f *testing.F) {
	id := ff.MakeExecutionID(0, ff.NewExecutionID("default", ff.DefaultPartitionConfig).UUID())
	sound := soundParts(id)
	if _, err := sound.execution(id); err != nil {
		f.Fatalf("the sound record: %v", err)
	}
	for field := range soundParts(id).core {
		for _, v := range []string{"", "garbage", "-5", "9223372036854775807", "1e999", "nan", "0x10", "1.5", "active", "\x00"} {
			f.Add(field, v, "", "", "", "", "", "", "", "")
			f.Add(field, v, "retry_count", v, "attempt_index", v, "grant_expires_at", v, "{}", v)
		}
	}
	f.Add("", "", "", "", "lease_epoch", "-1", "created_at", "x", `{"retry_policy":[]}`, "-1")
	f.Add("", "", "", "", "", "", "", "", strings.Repeat("[", 10000), "99999999999999999999")
	f.Fuzz(func(t *testing.T, one, a, two, b, attemptField, c, grantField, d, policy, deadline string) {
		damaged := func() parts {
			p := soundParts(id)
			p.core[one], p.core[two] = a, b
			p.attempt[attemptField], p.grant[grantField] = c, d
			p.policy, p.deadline, p.attemptTimeout = policy, deadline, deadline
			return p
		}
		check := func(what string, x ff.Execution, err error) {
			if err != nil && (ff.CodeOf(err) != ff.CodeCorruption || !strings.Contains(err.Error(), id.String())) {
				t.Errorf("%s: %v is no corruption that names the execution", what, err)
			}
			if err == nil && (x.LeaseEpoch > 1<<53 || x.TotalAttempts < 0 || x.Lane == "" || x.CreatedAt.IsZero()) {
				t.Errorf("%s: a record that cannot be: %+v", what, x)
			}
			_ = x.PublicState()
		}
		p := damaged()
		x, err := p.execution(id)
		check("reading", x, err)
		for _, how := range []string{"fresh", "resumed", "reclaimed"} {
			p := damaged()
			x, err := p.before(id, how)
			check(how, x, err)
		}
		if _, err := attemptOf("execution "+id.String(), maps.Clone(p.attempt)); err != nil && ff.CodeOf(err) != ff.CodeCorruption {
			t.Errorf("the attempt: %v", err)
		}
	})
}
