package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// withID is withStore for commands about one execution.
func (a *app) withID(f func(ctx context.Context, b ff.Backend, id ff.ExecutionID) error) func(*cobra.Command, []string) error {
	return a.withStore(func(ctx context.Context, b ff.Backend, args []string) error {
		id, err := ff.ParseExecutionID(args[0])
		if err != nil {
			return usageError("%w; ids look like {fp:86}:550e8400-e29b-41d4-a716-446655440000 (quote them)", err)
		}
		return f(ctx, b, id)
	})
}

func (a *app) getCommand() *cobra.Command {
	var attempts, events, signals bool
	c := &cobra.Command{Use: "get ID", Short: "Show an execution, and what it waits for", Args: exactly("ID")}
	c.RunE = a.withID(func(ctx context.Context, b ff.Backend, id ff.ExecutionID) error {
		x, err := b.Execution(ctx, id)
		if err != nil {
			return err
		}
		out := struct {
			httpapi.Record
			Suspension *httpapi.Suspension `json:"suspension,omitempty"`
			Attempts   []httpapi.Attempt   `json:"attempts,omitempty"`
			Signals    []httpapi.Signal    `json:"signals,omitempty"`
			Events     []httpapi.Event     `json:"events,omitempty"`
		}{Record: httpapi.RecordOf(&x)}
		suspension, err := latestSuspension(ctx, b, id)
		if err != nil {
			return err
		}
		if suspension != nil {
			shown := httpapi.SuspensionOf(suspension)
			out.Suspension = &shown
		}
		if attempts {
			list, err := b.Attempts(ctx, id)
			if err != nil {
				return err
			}
			for i := range list {
				out.Attempts = append(out.Attempts, httpapi.AttemptOf(&list[i]))
			}
		}
		if signals {
			if out.Signals, err = allSignals(ctx, b, id); err != nil {
				return err
			}
		}
		if events {
			if out.Events, err = allEvents(ctx, b, id); err != nil {
				return err
			}
		}
		return a.print(out, func(p *printer) {
			p.execution(&x)
			p.suspension(suspension)
			p.attempts(out.Attempts)
			p.signals(out.Signals)
			p.events(out.Events)
		})
	})
	c.Flags().BoolVar(&attempts, "attempts", false, "with all attempts")
	c.Flags().BoolVar(&signals, "signals", false, "with all signals")
	c.Flags().BoolVar(&events, "events", false, "with all events")
	return c
}

func (p *printer) execution(x *ff.Execution) {
	lease, percent := "", ""
	if x.Lease.Worker != "" {
		lease = clean(fmt.Sprintf("%s (%s) until %s", x.Lease.Worker, x.Lease.Instance, at(x.Lease.ExpiresAt)))
	}
	if x.Progress.Percent != nil {
		percent = strconv.Itoa(*x.Progress.Percent) + "% "
	}
	detail := clean(x.BlockingDetail)
	if x.PublicState() == ff.StateDelayed {
		detail = "" // the instant has a line of its own
	}
	tags := ""
	if len(x.Tags) > 0 {
		data, _ := json.Marshal(x.Tags)
		tags = clean(string(data))
	}
	p.fields("id", x.ID.String(), "state", p.state(x.PublicState()), "detail", detail, "kind", clean(x.Kind), "lane", string(x.Lane),
		"namespace", clean(string(x.Namespace)), "priority", strconv.Itoa(x.Priority), "requires", clean(x.Required.CSV()), "tags", tags,
		"created", at(x.CreatedAt), "delayed until", at(x.DelayUntil), "deadline", at(x.Deadline), "started", at(x.StartedAt), "completed", at(x.CompletedAt),
		"attempts", fmt.Sprintf("%d (%d retries, %d reclaims, %d replays)", x.TotalAttempts, x.RetryCount, x.ReclaimCount, x.ReplayCount),
		"lease", lease, "progress", clean(percent+x.Progress.Message), "failure", clean(strings.TrimSpace(x.FailureCategory+" "+x.FailureReason)),
		"cancelled", clean(strings.TrimSpace(string(x.CancelledBy)+" "+x.CancellationReason)))
}

func (p *printer) attempts(list []httpapi.Attempt) {
	if len(list) == 0 {
		return
	}
	rows := make([][]string, len(list))
	for i, t := range list {
		rows[i] = []string{strconv.Itoa(t.Index), string(t.Type), string(t.State), at(t.StartedAt.Time), at(t.EndedAt.Time), clean(string(t.InstanceID)), clean(t.FailureReason)}
	}
	p.line("")
	p.table([]string{"attempt", "type", "state", "started", "ended", "worker instance", "failure"}, rows)
}

func (a *app) cancelCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{Use: "cancel ID...", Short: "Cancel executions", Args: atLeastOne("ID")}
	c.RunE = a.withStore(func(ctx context.Context, b ff.Backend, args []string) error {
		var failed error
		for _, arg := range args {
			id, err := ff.ParseExecutionID(arg)
			var r ff.CancelExecutionResult
			if err == nil {
				r, err = b.CancelExecution(ctx, ff.CancelExecution{ID: id, Reason: reason})
			}
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("%s: %w", arg, err))
				continue
			}
			out := map[string]string{"execution_id": arg, "state": string(r.State), "previous_phase": string(r.Previous)}
			if err := a.print(out, func(p *printer) { p.line("%s %s", arg, p.state(r.State)) }); err != nil {
				return err
			}
		}
		return failed
	})
	c.Flags().StringVar(&reason, "reason", "cancelled by an operator", "reason that is kept with the execution")
	return c
}

func (a *app) replayCommand() *cobra.Command {
	var r ff.ReplayExecution
	var payload string
	c := &cobra.Command{Use: "replay ID", Short: "Start an execution that has ended again", Args: exactly("ID")}
	c.RunE = a.withID(func(ctx context.Context, b ff.Backend, id ff.ExecutionID) error {
		r.ID = id
		if c.Flags().Changed("payload") {
			var err error
			if r.Payload, err = readPayload(payload, a.stdin); err != nil {
				return err
			}
			if r.Payload == nil {
				r.Payload = []byte{}
			}
		}
		got, err := b.ReplayExecution(ctx, r)
		if err != nil {
			return err
		}
		return a.print(httpapi.StateAnswer{State: got.State}, func(p *printer) { p.line("%s %s", id, p.state(got.State)) })
	})
	c.Flags().StringVar(&r.Reason, "reason", "", "reason that is kept with the new attempt")
	c.Flags().StringVar(&r.RequestedBy, "by", userName(), "who asks for it")
	c.Flags().Lookup("by").DefValue = "$USER"
	c.Flags().StringVar(&payload, "payload", "", "replace the input: a text, @FILE, or - for standard input")
	return c
}

func (a *app) priorityCommand() *cobra.Command {
	c := &cobra.Command{Use: "priority ID N", Short: "Change the priority of a waiting execution", Args: exactly("ID", "N")}
	c.RunE = a.withStore(func(ctx context.Context, b ff.Backend, args []string) error {
		id, err := ff.ParseExecutionID(args[0])
		if err != nil {
			return usageError("%w", err)
		}
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return usageError("priority %q is not a whole number from 0 to %d", args[1], ff.MaxPriority)
		}
		r, err := b.ChangePriority(ctx, ff.ChangePriority{ID: id, Priority: n})
		if err != nil {
			return err
		}
		return a.print(httpapi.PriorityAnswer{Old: r.Old, New: r.New}, func(p *printer) { p.line("%s priority %d → %d", id, r.Old, r.New) })
	})
	return c
}

func (a *app) revokeCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{Use: "revoke ID", Short: "Take an execution away from its worker, so that another takes over", Args: exactly("ID")}
	c.RunE = a.withID(func(ctx context.Context, b ff.Backend, id ff.ExecutionID) error {
		r, err := b.RevokeLease(ctx, ff.RevokeLease{ID: id, Reason: reason})
		if err != nil {
			return err
		}
		return a.print(httpapi.RevokeAnswer{LeaseID: r.LeaseID, LeaseEpoch: r.LeaseEpoch, Already: r.Already}, func(p *printer) {
			if r.Already != "" {
				p.line("nothing to revoke: %s", r.Already)
				return
			}
			p.line("%s lease %s revoked", id, r.LeaseID)
		})
	})
	c.Flags().StringVar(&reason, "reason", "revoked by an operator", "reason that is kept with the execution")
	return c
}
