package client

import (
	"context"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// Remote is a store at the other end of a server. Commands are repeated when the
// server cannot be reached, if that is safe: reads are, terminal commands of a
// holder are, and submits are because each carries an id.
// A claim whose answer is lost is not: its lease runs out. A completion that claims
// is repeated without its claim, also for a server that does not know such.
type Remote struct{ c *Client }

var _ ff.Backend = (*Remote)(nil)

// Backend is the server's store.
func (c *Client) Backend() *Remote { return &Remote{c} }

// Sweep does what is due of one kind. The server's own engine does it anyway.
func (r *Remote) Sweep(ctx context.Context, c ff.Sweep) (ff.SweepResult, error) {
	var out httpapi.Swept
	err := r.c.do(ctx, call{method: "POST", path: "/v1/admin/sweep", body: httpapi.Sweep{Kind: c.Kind, Limit: c.Limit}, out: &out})
	return ff.SweepResult{Processed: out.Processed, Errors: out.Errors, More: out.More, Next: out.Next.Time, Now: out.Now.Time}, err
}

// WatchDue cannot tell: an engine over a server polls.
func (r *Remote) WatchDue(ff.SweepKind) (due <-chan struct{}, stop func()) { return nil, func() {} }

// Ping checks that the server and its store answer.
func (r *Remote) Ping(ctx context.Context) error {
	return r.c.do(ctx, call{method: "GET", path: "/healthz"})
}

// Info describes the server's store; its location is the server.
func (r *Remote) Info(ctx context.Context) (info ff.Info, err error) {
	err = r.c.do(ctx, call{method: "GET", path: "/v1/info", out: &info})
	info.Location = r.c.base.Redacted()
	return info, err
}

// Now is the clock of the server's store.
func (r *Remote) Now(ctx context.Context) (time.Time, error) {
	var out httpapi.Now
	err := r.c.do(ctx, call{method: "GET", path: "/v1/time", out: &out})
	return out.Now.Time, err
}

// Close closes the client.
func (r *Remote) Close() error { return r.c.Close() }
