package server

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// waitpointRoutes are the endpoints of waitpoints and of the secrets of their tokens.
func waitpointRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/executions/{id}/pending-waitpoints", id: "list-pending-waitpoints", tag: "reference", summary: "List the open waitpoints of an execution",
			query:   []param{{name: "after", doc: "Waitpoint id after which to go on"}, {name: "limit", doc: "Page size; 100 when absent", number: true, max: ff.MaxPageLimit}},
			answers: map[int]any{200: []httpapi.PendingWaitpoint{}}, serve: (*Server).pendingWaitpoints},
		{method: "GET", path: "/v1/executions/{id}/waitpoints/{waitpoint_id}/token", id: "get-waitpoint-token", tag: "reference", summary: "Read the token of a waitpoint",
			answers: map[int]any{200: httpapi.Token{}}, serve: (*Server).waitpointToken},
		{method: "POST", path: "/v1/admin/rotate-waitpoint-secret", id: "rotate-secret", tag: "reference", summary: "Sign waitpoint tokens with another secret", limit: limitControl,
			body: httpapi.RotateSecretArgs{}, required: []string{"new_kid", "new_secret_hex"}, answers: map[int]any{200: httpapi.RotateSecretAnswer{}}, serve: (*Server).rotateSecret},

		{method: "POST", path: "/v1/executions/{id}/waitpoints", id: "create-waitpoint", tag: "workers", summary: "Create a waitpoint ahead of its suspension", limit: limitControl,
			body: httpapi.CreateWaitpoint{}, required: []string{"fence"}, answers: map[int]any{200: httpapi.CreatedWaitpoint{}}, serve: (*Server).createWaitpoint},
		{method: "GET", path: "/v1/executions/{id}/waitpoints", id: "list-waitpoints", tag: "people", summary: "List the waitpoints of an execution",
			query: []param{{name: "closed", doc: "Closed ones as well", enum: []any{"true", "false"}}, {name: "cursor", doc: "Where the last page ended"},
				{name: "limit", doc: "Page size", number: true, max: ff.MaxPageLimit}},
			answers: map[int]any{200: httpapi.Waitpoints{}}, serve: (*Server).listWaitpoints},
		{method: "POST", path: "/v1/executions/{id}/waitpoints/{waitpoint_id}/close", id: "close-waitpoint", tag: "workers", summary: "Close a waitpoint at which nobody will wait", limit: limitControl,
			body: httpapi.CloseWaitpoint{}, answers: map[int]any{200: httpapi.ClosedWaitpoint{}}, serve: (*Server).closeWaitpoint},

		{method: "GET", path: "/v1/admin/waitpoint-secrets", id: "list-secrets", tag: "people", summary: "List the ids of the secrets of waitpoint tokens",
			answers: map[int]any{200: httpapi.Secrets{}}, serve: (*Server).listSecrets},
		{method: "POST", path: "/v1/admin/waitpoint-secrets/rotate", id: "rotate-secret-with", tag: "people", summary: "Sign waitpoint tokens with another secret, keeping old tokens for a while", limit: limitControl,
			body: httpapi.RotateSecret{}, required: []string{"key_id", "secret"}, answers: map[int]any{200: httpapi.RotatedSecret{}}, serve: (*Server).rotateSecretWith},
		{method: "POST", path: "/v1/admin/waitpoint-secrets/seed", id: "seed-secret", tag: "workers", summary: "Install the first secret of waitpoint tokens", limit: limitControl,
			body: httpapi.SeedSecret{}, required: []string{"key_id", "secret"}, answers: map[int]any{200: httpapi.SeededSecret{}}, serve: (*Server).seedSecret},
	}
}

// noStore keeps secrets out of caches.
var noStore = http.Header{"Cache-Control": {"no-store"}}

// secret is an answer that must not be kept.
func secret(v any) (answer, error) {
	return answer{status: http.StatusOK, json: v, header: noStore}, nil
}

// waitpointRef reads the ids of the path.
func (r *request) waitpointRef() (ref ff.WaitpointRef, err error) {
	if ref.ID, err = r.executionID(); err != nil {
		return ref, err
	}
	ref.WaitpointID, err = ff.ParseWaitpointID(r.PathValue("waitpoint_id"))
	return ref, err
}

// pendingPage is how many waitpoints the reference lists (spec 08 §3.7).
const pendingPage = 100

func (s *Server) pendingWaitpoints(r *request) (answer, error) {
	q := r.query()
	c := ff.ListWaitpoints{Limit: int(q.number("limit", pendingPage, ff.MaxPageLimit)), After: q.waitpoint("after")}
	id, err := r.executionID()
	if err = cmp.Or(q.err, err); err != nil {
		return answer{}, err
	}
	c.ID, c.Limit = id, max(1, c.Limit)
	got, err := s.store.ListWaitpoints(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	out := make([]httpapi.PendingWaitpoint, len(got.Waitpoints))
	for i := range got.Waitpoints {
		out[i] = httpapi.PendingWaitpointOf(&got.Waitpoints[i])
	}
	return ok(out)
}

// waitpoint reads a waitpoint id.
func (q *query) waitpoint(name string) (id ff.WaitpointID) {
	if s := q.text(name); s != "" && q.err == nil {
		if id, q.err = ff.ParseWaitpointID(s); q.err != nil {
			q.err = ff.InvalidInput(name, "%.80q is not a waitpoint id", s)
		}
	}
	return id
}

// waitpointToken is for operators. Whoever may not know is not told what is missing
// (spec 08 §3.8).
func (s *Server) waitpointToken(r *request) (answer, error) {
	ref, err := r.waitpointRef()
	if err != nil {
		return answer{}, err
	}
	token, err := s.store.WaitpointToken(r.Context(), ref)
	if errors.Is(err, ff.ErrWaitpointNotFound) || errors.Is(err, ff.ErrExecutionNotFound) {
		return answer{status: http.StatusNotFound, header: noStore, json: ff.PublicError{
			Error: "waitpoint token not found (consumed, expired, or unknown id)", Code: string(ff.CodeWaitpointNotFound)}}, nil
	}
	if err != nil {
		return answer{}, err
	}
	return secret(httpapi.Token{Token: token})
}

func (s *Server) createWaitpoint(r *request) (answer, error) {
	b, id, err := withID[httpapi.CreateWaitpoint](r)
	if err != nil {
		return answer{}, err
	}
	c := ff.CreateWaitpoint{LeaseRef: ff.LeaseRef{ID: id, Fence: b.Fence}, WaitpointID: b.WaitpointID, Key: b.Key}
	if c.TTL, err = b.TTLMS.Duration("expires_in_ms"); err != nil {
		return answer{}, err
	}
	got, err := s.store.CreateWaitpoint(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	return secret(httpapi.CreatedWaitpoint{WaitpointID: got.ID, Key: got.Key, Token: got.Token, ExpiresAt: httpapi.At(got.ExpiresAt)})
}

func (s *Server) listWaitpoints(r *request) (answer, error) {
	id, err := r.executionID()
	if err != nil {
		return answer{}, err
	}
	q := r.query()
	c := ff.ListWaitpoints{ID: id, After: q.waitpoint("cursor"), Closed: q.flag("closed"), Limit: int(q.number("limit", 0, ff.MaxPageLimit))}
	if q.err != nil {
		return answer{}, q.err
	}
	got, err := s.store.ListWaitpoints(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	out := httpapi.Waitpoints{Waitpoints: make([]httpapi.Waitpoint, len(got.Waitpoints)), NextCursor: got.Next}
	for i := range got.Waitpoints {
		out.Waitpoints[i] = httpapi.WaitpointOf(&got.Waitpoints[i])
	}
	return ok(out)
}

// flag reads true or false.
func (q *query) flag(name string) bool {
	s := q.text(name)
	if s != "" && s != "true" && s != "false" && q.err == nil {
		q.err = ff.InvalidInput(name, "must be true or false (got %.40q)", s)
	}
	return s == "true"
}

func (s *Server) closeWaitpoint(r *request) (answer, error) {
	b, err := decode[httpapi.CloseWaitpoint](r)
	if err != nil {
		return answer{}, err
	}
	ref, err := r.waitpointRef()
	if err != nil {
		return answer{}, err
	}
	got, err := s.store.CloseWaitpoint(r.Context(), ff.CloseWaitpoint{ID: ref.ID, WaitpointID: ref.WaitpointID, Reason: b.Reason})
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.ClosedWaitpoint{AlreadyClosed: got.AlreadyClosed})
}

func (s *Server) listSecrets(r *request) (answer, error) {
	got, err := s.store.WaitpointSecrets(r.Context())
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.SecretsOf(&got))
}

func (s *Server) seedSecret(r *request) (answer, error) {
	b, err := decode[httpapi.SeedSecret](r)
	if err != nil {
		return answer{}, err
	}
	got, err := s.store.SeedWaitpointSecret(r.Context(), ff.SeedWaitpointSecret{KeyID: b.KeyID, Secret: b.Secret})
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.SeededSecret{Seeded: got.Seeded, KeyID: got.KeyID, Same: got.Same})
}

func (s *Server) rotateSecret(r *request) (answer, error) {
	b, err := decode[httpapi.RotateSecretArgs](r)
	if err != nil {
		return answer{}, err
	}
	got, err := s.rotate(r.Context(), ff.RotateWaitpointSecret{KeyID: b.NewKid, Secret: b.NewSecretHex, Grace: s.grace()})
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.RotateSecretAnswer{Rotated: got.Rotated, Failed: append([]int{}, got.Failed...), NewKid: b.NewKid})
}

func (s *Server) rotateSecretWith(r *request) (answer, error) {
	b, err := decode[httpapi.RotateSecret](r)
	if err != nil {
		return answer{}, err
	}
	c := ff.RotateWaitpointSecret{KeyID: b.KeyID, Secret: b.Secret, Grace: s.grace()}
	if b.GraceMS != nil {
		if c.Grace, err = b.GraceMS.Duration("grace_ms"); err != nil {
			return answer{}, err
		}
	}
	got, err := s.rotate(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.RotatedSecret{Rotated: got.Rotated, Failed: got.Failed, Previous: got.Previous, Unchanged: got.Unchanged, Collected: got.Collected})
}

// grace is how long tokens of a replaced secret stay valid.
func (s *Server) grace() time.Duration {
	if s.opts.SecretGrace == nil {
		return ff.DefaultSecretGrace
	}
	return *s.opts.SecretGrace
}

// rotationLimit bounds one rotation (spec 08 §3.26).
const rotationLimit = 120 * time.Second

// rotate rotates the secret, one call at a time. Its outcome is logged for audits, never
// the secret (spec 09 §5.2).
func (s *Server) rotate(ctx context.Context, c ff.RotateWaitpointSecret) (r ff.RotateWaitpointSecretResult, err error) {
	if err := c.Validate(); err != nil {
		return r, err
	}
	if !s.rotating.TryLock() {
		return r, ff.NewError(ff.CodeResourceExhausted, "too many concurrent admin_rotate calls (server max: 1); retry with backoff")
	}
	defer s.rotating.Unlock()
	limited, cancel := context.WithTimeout(ctx, rotationLimit)
	defer cancel()
	r, err = s.store.RotateWaitpointSecret(limited, c)
	audit := s.log.With("target", "audit", "new_kid", c.KeyID)
	if ff.WeakSecret(c.Secret) {
		audit.WarnContext(ctx, "the new secret of waitpoint tokens is short: they may be forged", "hex_digits", len(c.Secret), "want", 2*ff.MinSecretBytes)
	}
	switch {
	case err != nil && limited.Err() != nil && ctx.Err() == nil:
		audit.ErrorContext(ctx, "waitpoint_hmac_rotation_timeout_http_504", "timeout_s", int(rotationLimit.Seconds()))
		err = ff.NewError(ff.CodeTimeout, "rotation exceeded 120s server-side timeout; retry is safe (per-partition rotation is idempotent on the same new_kid + secret_hex)")
	case err == nil && r.Rotated == 0:
		err = ff.NewError(ff.CodeUnavailable, "rotation failed on all partitions: check that the store can be reached, then repeat the call")
	}
	if err != nil {
		audit.ErrorContext(ctx, "waitpoint_hmac_rotation_failed", "partitions", r.Failed, "err", err)
		return r, err
	}
	audit.InfoContext(ctx, "waitpoint_hmac_rotation_complete", "total_partitions", r.Rotated+len(r.Failed), "rotated", r.Rotated,
		"failed_count", len(r.Failed), "failed", slices.Clone(r.Failed))
	return r, nil
}
