package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

func (a *app) resumeCommand() *cobra.Command {
	var delay time.Duration
	c := &cobra.Command{Use: "resume ID", Short: "Resume a suspended execution without a signal", Args: exactly("ID"),
		Long:    "Resumes a suspended execution, whatever it waits for. Its worker goes on and is told\nthat an operator did it, not what it waited for: this is no approval. See approve, reject and signal for those.",
		Example: "  flowfabric resume '{fp:86}:550e8400-e29b-41d4-a716-446655440000'\n  flowfabric resume \"$ID\" --delay 10m",
	}
	c.RunE = a.withID(func(ctx context.Context, b ff.Backend, id ff.ExecutionID) error {
		got, err := b.ResumeExecution(ctx, ff.ResumeExecution{ID: id, Delay: delay})
		if err != nil {
			return err
		}
		return a.print(httpapi.StateAnswer{State: got.State}, func(p *printer) { p.line("%s %s", id, p.state(got.State)) })
	})
	c.Flags().DurationVar(&delay, "delay", 0, "hold it back for so long")
	return c
}

// latestSuspension is nil for an execution that has never waited.
func latestSuspension(ctx context.Context, b ff.Backend, id ff.ExecutionID) (*ff.Suspension, error) {
	s, err := b.Suspension(ctx, id)
	if err != nil || s.ID.IsZero() {
		return nil, err
	}
	return &s, nil
}

// suspension shows what an execution waits for, or has waited for at last.
func (p *printer) suspension(s *ff.Suspension) {
	if s == nil {
		return
	}
	until, ended := "", ""
	if !s.TimeoutAt.IsZero() {
		until = at(s.TimeoutAt) + ", then " + onTimeout(s.OnTimeout)
	}
	waits, by := "waits for", "counted"
	if !s.Open() {
		waits, by, ended = "waited for", "resumed by", s.CloseReason+" at "+at(s.ClosedAt)
	}
	p.line("")
	p.fields(waits, clean(inWords(&s.Condition)), "because", string(s.Reason), "since", at(s.CreatedAt), "until", until,
		"last signal", at(s.LastSignalAt), "ended", clean(ended), by, signalIDs(s.ResumedBy), "left", clean(s.Continuation))
}

func signalIDs(ids []ff.SignalID) string {
	list := make([]string, len(ids))
	for i, id := range ids {
		list[i] = id.String()
	}
	return strings.Join(list, ", ")
}

func onTimeout(b ff.TimeoutBehavior) string {
	switch b {
	case ff.TimeoutCancel:
		return "it is cancelled"
	case ff.TimeoutExpire:
		return "it expires"
	case ff.TimeoutResume:
		return "it goes on without"
	case ff.TimeoutEscalate:
		return "an operator has to decide"
	case ff.TimeoutFail:
	}
	return "it fails"
}

// inWords says what a condition waits for.
func inWords(c *ff.ResumeCondition) string {
	switch c.Kind {
	case ff.ConditionOperator:
		return "an operator"
	case ff.ConditionTimeout:
		return "its time to come"
	case ff.ConditionAllOf:
		parts := make([]string, len(c.Members))
		for i := range c.Members {
			parts[i] = inWords(&c.Members[i])
		}
		return "all of (" + strings.Join(parts, "; ") + ")"
	case ff.ConditionCount:
		unit := map[ff.CountKind]string{ff.DistinctSignals: "signals", ff.DistinctSources: "distinct sources of signals", ff.DistinctWaitpoints: "waitpoints with signals"}[c.Of]
		return strconv.Itoa(c.N) + " " + unit + called(c.Signal) + place(c.Keys...)
	case ff.ConditionSignal:
	}
	if c.Signal == "" {
		return "any signal" + place(c.Key)
	}
	return "a signal" + called(c.Signal) + place(c.Key)
}

func called(name string) string {
	if name == "" {
		return ""
	}
	return " " + strconv.Quote(name)
}

// place names waitpoints whose keys somebody has chosen.
func place(keys ...string) string {
	var chosen []string
	for _, key := range keys {
		if key != "" && !strings.HasPrefix(key, "wpk:") {
			chosen = append(chosen, key)
		}
	}
	if len(chosen) == 0 {
		return ""
	}
	return " at " + strings.Join(chosen, ", ")
}

// suspended says what a suspended execution waits for, what has come, and how to end it.
func suspended(ctx context.Context, b ff.Backend, x *ff.Execution, now time.Time) ([]string, error) {
	s, err := latestSuspension(ctx, b, x.ID)
	if err != nil || s == nil {
		return nil, err
	}
	reasons := []string{fmt.Sprintf("it waits since %s for %s (%s)", at(s.CreatedAt), inWords(&s.Condition), s.Reason)}
	switch {
	case strings.HasPrefix(x.BlockingDetail, "suspension escalated"):
		reasons = append(reasons, "its time was over, and it was escalated: an operator has to decide")
	case s.TimeoutAt.IsZero():
		reasons = append(reasons, "it may wait for ever")
	case s.TimeoutAt.After(now):
		reasons = append(reasons, fmt.Sprintf("its time is over at %s, that is in %s: %s then", at(s.TimeoutAt), s.TimeoutAt.Sub(now).Round(time.Millisecond), onTimeout(s.OnTimeout)))
	default:
		reasons = append(reasons, fmt.Sprintf("its time was over at %s: %s", at(s.TimeoutAt), onTimeout(s.OnTimeout)))
	}
	open, err := allWaitpoints(ctx, b, ff.ListWaitpoints{ID: x.ID})
	if err != nil {
		return nil, err
	}
	for i := range open {
		text, err := came(ctx, b, x.ID, &open[i])
		if err != nil {
			return nil, err
		}
		reasons = append(reasons, text)
	}
	return append(reasons, ways(s, len(open))), nil
}

// came says what has come to a waitpoint, and from whom.
func came(ctx context.Context, b ff.Backend, id ff.ExecutionID, w *ff.Waitpoint) (string, error) {
	text := fmt.Sprintf("at waitpoint %s (%s) %d signal(s) have come, %d of them counted", w.ID, w.Key, w.Signals, w.MatchedSignals)
	if w.LastSignalAt.IsZero() {
		return text, nil
	}
	who, err := senders(ctx, b, ff.ListSignals{ID: id, WaitpointID: w.ID})
	return text + who + ", the last at " + at(w.LastSignalAt), err
}

// shownSenders bounds the signals whose senders are named.
const shownSenders = 20

// senders names the signals that counted and who sent them.
func senders(ctx context.Context, b ff.Backend, q ff.ListSignals) (string, error) {
	q.Limit = shownSenders
	r, err := b.ListSignals(ctx, q)
	if err != nil {
		return "", err
	}
	var list []string
	for i := range r.Signals {
		if sig := &r.Signals[i]; sig.Effect.Matched() || q.Resumed {
			list = append(list, strconv.Quote(sig.Name)+" by "+cmp.Or(clean(sig.SourceIdentity), "nobody"))
		}
	}
	if len(list) == 0 {
		return "", nil
	}
	if r.Next != "" {
		list = append(list, "…")
	}
	return ": " + strings.Join(list, ", "), nil
}

func ways(s *ff.Suspension, open int) string {
	id := "'" + s.ExecutionID.String() + "'"
	resume := "resume it without a signal with: flowfabric resume " + id
	if s.Condition.Kind == ff.ConditionOperator || s.Condition.Kind == ff.ConditionTimeout {
		return resume
	}
	at := ""
	if open > 1 {
		at = " --waitpoint KEY"
	}
	name, names := "NAME", s.Condition.SignalNames()
	if s.Reason == ff.SuspendedForApproval && (len(names) == 0 || slices.Contains(names, client.Approved)) {
		return "answer it with: flowfabric approve " + id + at + ", or flowfabric reject " + id + at + "; " + resume
	}
	if len(names) == 1 {
		name = "'" + names[0] + "'"
	}
	return "answer it with: flowfabric signal " + id + " " + name + at + "; " + resume
}

// waited says how the latest wait ended.
func waited(ctx context.Context, b ff.Backend, s *ff.Suspension) (string, error) {
	text := fmt.Sprintf("it waited from %s to %s for %s: %s", at(s.CreatedAt), at(s.ClosedAt), inWords(&s.Condition), s.CloseReason)
	if len(s.ResumedBy) == 0 {
		return text, nil
	}
	who, err := senders(ctx, b, ff.ListSignals{ID: s.ExecutionID, Resumed: true})
	return text + fmt.Sprintf(" by %d signal(s)", len(s.ResumedBy)) + who, err
}
