package client

import (
	"context"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// Waitpoints lists the open waitpoints of an execution, without their tokens. Errors:
// execution_not_found.
func (c *Client) Waitpoints(ctx context.Context, id ff.ExecutionID) (all []ff.Waitpoint, err error) {
	for q := (ff.ListWaitpoints{ID: id, Limit: ff.MaxPageLimit}); ; {
		page, err := c.Backend().ListWaitpoints(ctx, q)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Waitpoints...)
		if q.After = page.Next; q.After.IsZero() {
			return all, nil
		}
	}
}

// WaitpointToken reads the token of a waitpoint, to give it to whoever is to answer there.
// Errors: waitpoint_not_found.
func (c *Client) WaitpointToken(ctx context.Context, at ff.WaitpointRef) (ff.WaitpointToken, error) {
	return c.Backend().WaitpointToken(ctx, at)
}

// Secrets lists the ids of the secrets that waitpoint tokens are checked with.
func (c *Client) Secrets(ctx context.Context) (ff.WaitpointSecrets, error) {
	return c.Backend().WaitpointSecrets(ctx)
}

// RotateSecret signs new waitpoint tokens with another secret; those of the one before
// stay valid for the grace period. It may be repeated. Errors: invalid_kid,
// invalid_secret_hex, invalid_grace_ms, rotation_conflict when the key id is known with
// another secret.
func (c *Client) RotateSecret(ctx context.Context, r ff.RotateWaitpointSecret) (ff.RotateWaitpointSecretResult, error) {
	return c.Backend().RotateWaitpointSecret(ctx, r)
}

func waitpointPath(at ff.WaitpointRef, rest string) string {
	return executionPath(at.ID, "/waitpoints/"+at.WaitpointID.String()+rest)
}

// CreateWaitpoint creates a waitpoint ahead of its suspension. A repetition carries the
// same id and answers the same.
func (r *Remote) CreateWaitpoint(ctx context.Context, c ff.CreateWaitpoint) (ff.CreateWaitpointResult, error) {
	if err := c.Validate(); err != nil {
		return ff.CreateWaitpointResult{}, err
	}
	var out httpapi.CreatedWaitpoint
	err := r.c.do(ctx, call{method: "POST", path: executionPath(c.ID, "/waitpoints"), out: &out,
		body: httpapi.CreateWaitpoint{Fence: c.Fence, WaitpointID: c.WaitpointID, Key: c.Key, TTLMS: httpapi.MillisOf(c.TTL)}})
	return ff.CreateWaitpointResult{IssuedWaitpoint: ff.IssuedWaitpoint{ID: out.WaitpointID, Key: out.Key, Token: out.Token}, ExpiresAt: out.ExpiresAt.Time}, err
}

// CloseWaitpoint closes a pending waitpoint.
func (r *Remote) CloseWaitpoint(ctx context.Context, c ff.CloseWaitpoint) (ff.CloseWaitpointResult, error) {
	if err := c.Validate(); err != nil {
		return ff.CloseWaitpointResult{}, err
	}
	var out httpapi.ClosedWaitpoint
	path := waitpointPath(ff.WaitpointRef{ID: c.ID, WaitpointID: c.WaitpointID}, "/close")
	err := r.c.do(ctx, call{method: "POST", path: path, body: httpapi.CloseWaitpoint{Reason: c.Reason}, out: &out})
	return ff.CloseWaitpointResult{AlreadyClosed: out.AlreadyClosed}, err
}

// ListWaitpoints lists the waitpoints of an execution.
func (r *Remote) ListWaitpoints(ctx context.Context, c ff.ListWaitpoints) (ff.ListWaitpointsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ListWaitpointsResult{}, err
	}
	var out httpapi.Waitpoints
	q := pageQuery("", c.Limit, "closed", yes(c.Closed))
	if !c.After.IsZero() {
		q.Set("cursor", c.After.String())
	}
	if err := r.c.do(ctx, call{method: "GET", path: executionPath(c.ID, "/waitpoints"), query: q, out: &out}); err != nil {
		return ff.ListWaitpointsResult{}, err
	}
	got := ff.ListWaitpointsResult{Next: out.NextCursor, Waitpoints: make([]ff.Waitpoint, len(out.Waitpoints))}
	for i := range out.Waitpoints {
		got.Waitpoints[i] = out.Waitpoints[i].Waitpoint()
	}
	return got, nil
}

// yes is the query value of a switch; a switch that is off is left out.
func yes(on bool) string {
	if on {
		return "true"
	}
	return ""
}

// WaitpointToken reads the token of a waitpoint.
func (r *Remote) WaitpointToken(ctx context.Context, ref ff.WaitpointRef) (ff.WaitpointToken, error) {
	if err := ref.Validate(); err != nil {
		return "", err
	}
	var out httpapi.Token
	err := r.c.do(ctx, call{method: "GET", path: waitpointPath(ref, "/token"), out: &out})
	return out.Token, err
}

// rotationWait is how long a server may take to rotate a secret, beyond the timeout of
// every call.
const rotationWait = 2 * time.Minute

// SeedWaitpointSecret installs the first secret.
func (r *Remote) SeedWaitpointSecret(ctx context.Context, c ff.SeedWaitpointSecret) (ff.SeedWaitpointSecretResult, error) {
	if err := c.Validate(); err != nil {
		return ff.SeedWaitpointSecretResult{}, err
	}
	var out httpapi.SeededSecret
	err := r.c.do(ctx, call{method: "POST", path: "/v1/admin/waitpoint-secrets/seed", once: true, body: httpapi.SeedSecret{KeyID: c.KeyID, Secret: c.Secret}, out: &out})
	return ff.SeedWaitpointSecretResult{Seeded: out.Seeded, KeyID: out.KeyID, Same: out.Same}, err
}

// RotateWaitpointSecret installs the secret that signs from now on. A repetition finds
// it in force.
func (r *Remote) RotateWaitpointSecret(ctx context.Context, c ff.RotateWaitpointSecret) (ff.RotateWaitpointSecretResult, error) {
	if err := c.Validate(); err != nil {
		return ff.RotateWaitpointSecretResult{}, err
	}
	grace := httpapi.MillisOf(c.Grace)
	var out httpapi.RotatedSecret
	err := r.c.do(ctx, call{method: "POST", path: "/v1/admin/waitpoint-secrets/rotate", out: &out, wait: rotationWait,
		body: httpapi.RotateSecret{KeyID: c.KeyID, Secret: c.Secret, GraceMS: &grace}})
	return ff.RotateWaitpointSecretResult{Rotated: out.Rotated, Failed: out.Failed, Previous: out.Previous, Unchanged: out.Unchanged, Collected: out.Collected}, err
}

// WaitpointSecrets lists the ids of the secrets in force.
func (r *Remote) WaitpointSecrets(ctx context.Context) (ff.WaitpointSecrets, error) {
	var out httpapi.Secrets
	if err := r.c.do(ctx, call{method: "GET", path: "/v1/admin/waitpoint-secrets", out: &out}); err != nil {
		return ff.WaitpointSecrets{}, err
	}
	return out.Secrets(), nil
}
