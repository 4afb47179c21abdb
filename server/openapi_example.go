package server

import (
	ff "github.com/flowfabric/flowfabric"
)

const (
	exampleID        = "{fp:86}:550e8400-e29b-41d4-a716-446655440000"
	exampleWaitpoint = "3b241101-e2bb-4255-8caf-4136c566a962"
	exampleSecret    = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
)

// errorExamples are answers by status.
var errorExamples = map[int]any{
	400: ff.InvalidInput("priority", "must be 0 to %d (got -1)", ff.MaxPriority).Public(),
	401: ff.PublicError{Error: "missing or invalid Authorization header"},
	404: ff.NewError(ff.CodeExecutionNotFound, "").Public(),
	409: ff.NewError(ff.CodeStaleLease, "").Public(),
	413: tooLarge{"payload_too_large", limitControl, "/v1/executions/{id}/cancel"},
	415: ff.PublicError{Error: "invalid JSON: Unsupported Media Type: send Content-Type: application/json"},
	422: ff.PublicError{Error: "invalid JSON: Unprocessable Entity: JSON of the wrong shape: field kind is missing", Code: string(ff.CodeInvalidInput)},
}

// exampleFence is a fence of nobody's: calls with it are refused.
var exampleFence = map[string]any{"lease_id": "550e8400-e29b-41d4-a716-446655440000", "lease_epoch": 1, "attempt_id": "6ba7b810-9dad-41d1-80b4-00c04fd430c8"}

// claimantAnd is a body that names the example worker.
func claimantAnd(more map[string]any) map[string]any {
	more["worker_id"], more["worker_instance_id"] = "mailer", "mailer-1"
	return more
}

// examples are bodies that work as they stand, if the execution is there.
var examples = map[string]any{
	"create-execution": map[string]any{"execution_id": exampleID, "namespace": "", "lane_id": "default", "execution_kind": "send-mail",
		"input_payload": []int{104, 105}, "priority": 0, "creator_identity": "me", "partition_id": 86, "now": 1795476796000},
	"cancel-execution": map[string]any{"execution_id": exampleID, "reason": "not needed", "now": 1795476796000},
	"change-priority":  map[string]any{"new_priority": 5},
	"grant-reclaim":    claimantAnd(map[string]any{"lane_id": "default", "grant_ttl_ms": 30000}),
	"grant-claim":      map[string]any{"lane_id": "default", "worker_instance_id": "mailer-1", "capabilities": []string{"gpu"}, "grant_ttl_ms": 30000},

	"deliver-signal": map[string]any{"execution_id": exampleID, "waitpoint_id": exampleWaitpoint, "signal_id": "44444444-4444-4444-8444-444444444444",
		"signal_name": "approved", "signal_category": "approval", "source_type": "user", "source_identity": "ann", "target_scope": "waitpoint",
		"payload": []int{123, 125}, "waitpoint_token": "k1:0123456789abcdef0123456789abcdef01234567", "now": 1795476796000},
	"rotate-secret": map[string]any{"new_kid": "k9", "new_secret_hex": exampleSecret},

	"submit":               map[string]any{"kind": "send-mail", "payload": map[string]any{"to": "ann@example.com"}, "max_retries": 3},
	"submit-batch":         map[string]any{"executions": []any{map[string]any{"kind": "send-mail", "payload": 1}, map[string]any{"kind": "send-mail", "payload": 2}}},
	"cancel-with":          map[string]any{"reason": "not needed"},
	"replay-with":          map[string]any{"reason": "the address is corrected", "payload": map[string]any{"to": "ann@example.org"}},
	"change-priority-with": map[string]any{"new_priority": 5},
	"set-tags":             map[string]any{"tags": map[string]any{"customer.id": "4711"}},
	"revoke-with":          map[string]any{"reason": "the machine is gone"},
	"resume":               map[string]any{"delay_ms": 60000},
	"deliver-signal-with": map[string]any{"signal_name": "paid", "waitpoint_token": "k1:0123456789abcdef0123456789abcdef01234567", "source_type": "webhook",
		"source_identity": "shop", "payload": map[string]any{"amount": 12}, "idempotency_key": "delivery 7"},
	"decide":             map[string]any{"decision": "approved", "by": "ann", "payload": map[string]any{"comment": "go ahead"}},
	"rotate-secret-with": map[string]any{"key_id": "k9", "secret": exampleSecret, "grace_ms": 86400000},

	"create-many":        map[string]any{"executions": []any{map[string]any{"lane_id": "default", "kind": "send-mail"}, map[string]any{"lane_id": "bulk", "kind": "report"}}},
	"claim":              claimantAnd(map[string]any{"lanes": []string{"default"}, "max": 1, "lease_ttl_ms": 30000, "wait_ms": 0}),
	"grant-next":         claimantAnd(map[string]any{"lane_id": "default", "grant_ttl_ms": 30000}),
	"grant-reclaim-with": claimantAnd(map[string]any{"execution_id": exampleID, "grant_ttl_ms": 30000}),
	"claim-granted":      claimantAnd(map[string]any{"execution_id": exampleID, "lease_ttl_ms": 30000}),
	"renew-leases":       map[string]any{"leases": []any{map[string]any{"execution_id": exampleID, "fence": exampleFence}}, "lease_ttl_ms": 30000},
	"release-leases":     map[string]any{"leases": []any{map[string]any{"execution_id": exampleID, "fence": exampleFence}}, "reason": "shutting down"},
	"append-frames":      map[string]any{"fence": exampleFence, "frames": []any{map[string]any{"frame_type": "stdout", "payload": "half of the mails are sent\n"}}},
	"progress":           map[string]any{"fence": exampleFence, "percent": 50, "message": "half of the mails are sent"},
	"complete":           map[string]any{"fence": exampleFence, "result": map[string]any{"sent": 100}, "next": claimantAnd(map[string]any{"lanes": []string{"default"}})},
	"fail":               map[string]any{"fence": exampleFence, "reason": "the mail server is down", "category": "transient"},
	"delay":              map[string]any{"fence": exampleFence, "delay_ms": 60000},
	"register-worker":    claimantAnd(map[string]any{"lanes": []string{"default"}, "liveness_ttl_ms": 60000}),
	"heartbeat-worker":   map[string]any{"worker_instance_id": "mailer-1"},
	"mark-worker-dead":   map[string]any{"worker_instance_id": "mailer-1", "reason": "the machine is gone"},
	"suspend": map[string]any{"fence": exampleFence, "resume_condition": map[string]any{"kind": "Single", "signal_name": "approved"},
		"reason_code": "waiting_for_approval", "timeout_after_ms": 86400000, "timeout_behavior": "fail"},
	"create-waitpoint": map[string]any{"fence": exampleFence, "waitpoint_key": "payment", "expires_in_ms": 3600000},
	"close-waitpoint":  map[string]any{"reason": "paid in cash"},
	"seed-secret":      map[string]any{"key_id": "k9", "secret": exampleSecret},
	"sweep":            map[string]any{"kind": "lease_expiry"},
}
