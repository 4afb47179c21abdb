package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// aheadLimit bounds how far explain counts the executions ahead of one.
const aheadLimit = 10_000

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{Use: "explain ID", Short: "Say why an execution runs or does not run now", Args: exactly("ID"),
		RunE: a.withID(func(ctx context.Context, b ff.Backend, id ff.ExecutionID) error {
			x, err := b.Execution(ctx, id)
			if err != nil {
				return err
			}
			now, err := b.Now(ctx)
			if err != nil {
				return err
			}
			reasons, err := explain(ctx, b, &x, now)
			if err != nil {
				return err
			}
			out := struct {
				ExecutionID ff.ExecutionID      `json:"execution_id"`
				State       ff.PublicState      `json:"state"`
				Reasons     []string            `json:"reasons"`
				Suspension  *httpapi.Suspension `json:"suspension,omitempty"`
			}{id, x.PublicState(), reasons, nil}
			suspension, err := latestSuspension(ctx, b, id)
			if err != nil {
				return err
			}
			if suspension != nil {
				shown := httpapi.SuspensionOf(suspension)
				out.Suspension = &shown
				if !suspension.Open() {
					text, err := waited(ctx, b, suspension)
					if err != nil {
						return err
					}
					out.Reasons = append(out.Reasons, text)
				}
			}
			return a.print(out, func(p *printer) {
				p.line("%s is %s:", id, p.state(x.PublicState()))
				for _, r := range out.Reasons {
					p.line("- %s", clean(r))
				}
			})
		})}
}

// explain says in words why an execution is where it is.
func explain(ctx context.Context, b ff.Backend, x *ff.Execution, now time.Time) ([]string, error) {
	switch x.State.Phase {
	case ff.PhaseTerminal:
		return []string{ended(x)}, nil
	case ff.PhaseActive:
		return []string{held(x, now)}, nil
	case ff.PhaseSuspended:
		return suspended(ctx, b, x, now)
	}
	if x.State.Eligibility == ff.NotEligibleUntilTime {
		why := map[ff.BlockingReason]string{ff.WaitingForRetryBackoff: "it failed (" + x.FailureReason + ") and waits for its retry", ff.WaitingForDelay: "it is delayed"}[x.State.Blocking]
		if why == "" {
			why = "it waits (" + string(x.State.Blocking) + ")"
		}
		return []string{fmt.Sprintf("%s until %s, that is in %s", why, at(x.DelayUntil), x.DelayUntil.Sub(now).Round(time.Millisecond))}, nil
	}
	if x.Grant.Live(now) {
		return []string{fmt.Sprintf("it is granted to worker %s until %s", x.Grant.Worker, at(x.Grant.ExpiresAt))}, nil
	}
	return waits(ctx, b, x)
}

func ended(x *ff.Execution) string {
	text := fmt.Sprintf("it ended at %s after %d attempt(s)", at(x.CompletedAt), x.TotalAttempts)
	for _, why := range []string{x.FailureReason, x.CancellationReason} {
		if why != "" {
			text += ": " + why
		}
	}
	return text + "; start it again with: flowfabric replay '" + x.ID.String() + "'"
}

func held(x *ff.Execution, now time.Time) string {
	switch x.State.Ownership {
	case ff.OwnershipLeaseExpired:
		return fmt.Sprintf("worker %s (%s) went silent at %s; the next worker that claims from lane %s takes it over", x.Lease.Worker, x.Lease.Instance, at(x.LeaseExpiredAt), x.Lane)
	case ff.OwnershipLeaseRevoked:
		return fmt.Sprintf("its lease was revoked at %s (%s); the next worker that claims from lane %s takes it over", at(x.LeaseRevokedAt), x.LeaseRevokeReason, x.Lane)
	}
	return fmt.Sprintf("worker %s (%s) runs attempt %d since %s; its lease ends in %s unless it is renewed", x.Lease.Worker, x.Lease.Instance,
		x.Attempt.Index, at(x.Attempt.StartedAt), x.Lease.ExpiresAt.Sub(now).Round(time.Millisecond))
}

// waits says who could take a waiting execution, and what is ahead of it.
func waits(ctx context.Context, b ff.Backend, x *ff.Execution) ([]string, error) {
	workers, err := allWorkers(ctx, b)
	if err != nil {
		return nil, err
	}
	serving, able := 0, 0
	missing := map[string]bool{}
	for i := range workers {
		if !slices.Contains(workers[i].Lanes, x.Lane) {
			continue
		}
		serving++
		lacks := workers[i].Capabilities.Missing(x.Required)
		if len(lacks) == 0 {
			able++
		}
		for _, c := range lacks {
			missing[c] = true
		}
	}
	ahead, more, err := aheadOf(ctx, b, x)
	if err != nil {
		return nil, err
	}
	var reasons []string
	switch {
	case serving == 0:
		reasons = append(reasons, fmt.Sprintf("no live worker serves lane %s; start one with: flowfabric worker run --lane '%s' --exec CMD", x.Lane, x.Lane))
	case able == 0:
		reasons = append(reasons, fmt.Sprintf("none of the %d worker(s) of lane %s offers everything that it requires; missing: %s", serving, x.Lane, strings.Join(sorted(missing), ", ")))
	default:
		reasons = append(reasons, fmt.Sprintf("%d live worker(s) can take it", able))
	}
	if more {
		return append(reasons, fmt.Sprintf("at least %d executions are ahead of it in lane %s", ahead, x.Lane)), nil
	}
	return append(reasons, fmt.Sprintf("%d execution(s) are ahead of it in lane %s", ahead, x.Lane)), nil
}

func sorted(set map[string]bool) []string {
	list := make([]string, 0, len(set))
	for s := range set {
		list = append(list, s)
	}
	slices.Sort(list)
	return list
}

// aheadOf counts the waiting executions of the lane that are claimed before x.
func aheadOf(ctx context.Context, b ff.Executions, x *ff.Execution) (n int, more bool, err error) {
	q := ff.ListExecutions{Lane: x.Lane, State: ff.StateWaiting, Oldest: true, Limit: ff.MaxPageLimit}
	for seen := 0; seen < aheadLimit; {
		r, err := b.ListExecutions(ctx, q)
		if err != nil {
			return 0, false, err
		}
		for i := range r.Executions {
			y := &r.Executions[i]
			if y.ID != x.ID && (y.Priority > x.Priority || y.Priority == x.Priority && y.CreatedAt.Before(x.CreatedAt)) {
				n++
			}
		}
		seen += len(r.Executions)
		if q.Cursor = r.Next; q.Cursor == "" {
			return n, false, nil
		}
	}
	return n, true, nil
}
