package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// batchSize is the number of executions that submit --batch stores at a time.
const batchSize = 500

type submitFlags struct {
	lane, payload, namespace, key, creator, batch, id string
	raw                                               bool
	priority, retries                                 int
	delay, deadline, timeout, wait                    time.Duration
	tags                                              map[string]string
	requires                                          []string
	changed                                           func(string) bool
}

func (a *app) submitCommand() *cobra.Command {
	var f submitFlags
	c := &cobra.Command{
		Use: "submit KIND", Short: "Submit an execution", Args: cobra.ArbitraryArgs,
		Example: `  flowfabric submit hello --payload '"world"'
  flowfabric submit resize --payload @job.json --retries 3 --timeout 30s --wait 1m
  flowfabric submit --batch jobs.ndjson      # one object per line: {"kind":"hello","payload":1}`,
	}
	c.RunE = a.withStore(func(ctx context.Context, b ff.Backend, args []string) error {
		f.changed = c.Flags().Changed
		switch {
		case f.batch != "" && len(args) == 0:
			return a.submitBatch(ctx, b, &f)
		case f.batch == "" && len(args) == 1:
			return a.submitOne(ctx, b, args[0], &f)
		}
		return usageError("give either a KIND or --batch FILE (see: flowfabric submit --help)")
	})
	flags := c.Flags()
	flags.StringVar(&f.lane, "lane", "default", "lane to submit to")
	flags.StringVar(&f.payload, "payload", "", "input: JSON, @FILE, or - for standard input")
	flags.BoolVar(&f.raw, "raw", false, "take the payload as raw bytes, not as JSON")
	flags.StringVar(&f.namespace, "namespace", "", "namespace")
	flags.IntVar(&f.priority, "priority", 0, "0 to 9000, the highest is claimed first")
	flags.StringVar(&f.key, "key", "", "idempotency key: a repeated submit returns the first execution")
	flags.StringVar(&f.id, "id", "", "execution id, minted when absent")
	flags.StringVar(&f.creator, "creator", "", "who submits")
	flags.DurationVar(&f.delay, "delay", 0, "hold it back for so long")
	flags.DurationVar(&f.deadline, "deadline", 0, "expire it after so long, whatever it is doing")
	flags.DurationVar(&f.timeout, "timeout", 0, "longest time of one attempt")
	flags.IntVar(&f.retries, "retries", 0, "retries after a failure, with exponential backoff from 1s")
	flags.StringSliceVar(&f.requires, "requires", nil, "capability that a worker needs; may be repeated")
	flags.StringToStringVar(&f.tags, "tag", nil, "tag as namespace.name=value; may be repeated")
	flags.DurationVar(&f.wait, "wait", 0, "wait so long for the end, and print the result")
	flags.StringVar(&f.batch, "batch", "", "submit one execution per line of a JSON lines file (- for standard input)")
	return c
}

func (f *submitFlags) command(kind string, stdin io.Reader) (ff.CreateExecution, error) {
	c := ff.CreateExecution{
		Lane: ff.LaneID(f.lane), Kind: kind, Namespace: ff.Namespace(f.namespace), Priority: f.priority, IdempotencyKey: f.key,
		Creator: f.creator, Delay: f.delay, Tags: f.tags,
	}
	if f.priority < 0 || f.priority > ff.MaxPriority {
		return c, ff.InvalidInput("priority", "must be 0 to %d (got %d)", ff.MaxPriority, f.priority)
	}
	var err error
	if f.id != "" {
		if c.ID, err = ff.ParseExecutionID(f.id); err != nil {
			return c, err
		}
	}
	if c.Payload, err = readPayload(f.payload, stdin); err != nil {
		return c, err
	}
	if !f.raw && len(c.Payload) > 0 {
		if !json.Valid(c.Payload) {
			return c, ff.InvalidInput("payload", `is not JSON: quote a text like '"hello"', or add --raw`)
		}
		c.PayloadEncoding = "json"
	}
	if f.changed("retries") || f.timeout > 0 || f.deadline > 0 || len(f.requires) > 0 {
		p := ff.DefaultExecutionPolicy()
		if f.retries > 0 || f.changed("retries") {
			p.Retry = ff.ExponentialRetry(f.retries, ff.DefaultRetryInitial, ff.DefaultRetryMax)
		}
		p.Timeout = &ff.TimeoutPolicy{Attempt: f.timeout, Deadline: f.deadline, MaxReclaims: ff.DefaultMaxReclaims}
		set, err := ff.NewCapabilitySet(f.requires...)
		if err != nil {
			return c, err
		}
		p.Routing = &ff.RoutingRequirements{RequiredCapabilities: set}
		c.Policy = p
	}
	return c, c.Validate()
}

// readPayload reads the value of --payload.
func readPayload(s string, stdin io.Reader) ([]byte, error) {
	var r io.Reader
	switch {
	case s == "-":
		r = stdin
	case strings.HasPrefix(s, "@"):
		f, err := os.Open(s[1:])
		if err != nil {
			return nil, ff.InvalidInput("payload", "cannot be read: %w", err)
		}
		defer f.Close()
		r = f
	default:
		return []byte(s), nil
	}
	data, err := io.ReadAll(io.LimitReader(r, ff.MaxPayloadBytes+1))
	if err != nil {
		return nil, ff.InvalidInput("payload", "cannot be read: %w", err)
	}
	return data, nil
}

func (a *app) submitOne(ctx context.Context, b ff.Backend, kind string, f *submitFlags) error {
	c, err := f.command(kind, a.stdin)
	if err != nil {
		return err
	}
	r, err := b.CreateExecution(ctx, c)
	if err != nil {
		return err
	}
	if f.wait > 0 {
		return a.printResult(ctx, b, r.ID, f.wait)
	}
	return a.print(httpapi.Submitted{ExecutionID: r.ID, State: r.State, Duplicate: r.Duplicate}, func(p *printer) {
		p.line("%s", r.ID)
		if r.Duplicate {
			fmt.Fprintln(a.stderr, "it was there before:", r.State)
		}
	})
}

// submitBatch submits the lines of a file in batches, each stored whole.
func (a *app) submitBatch(ctx context.Context, b ff.Backend, f *submitFlags) error {
	in := a.stdin
	if f.batch != "-" {
		file, err := os.Open(f.batch)
		if err != nil {
			return ff.InvalidInput("batch", "cannot be read: %w", err)
		}
		defer file.Close()
		in = file
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), 2*ff.MaxPayloadBytes)
	var many ff.CreateExecutions
	show, number, stored, duplicates := a.progress(), 0, 0, 0
	defer show.done()
	flush := func() error {
		if len(many.Executions) == 0 {
			return nil
		}
		r, err := b.CreateExecutions(ctx, many)
		if err != nil {
			return fmt.Errorf("lines %d to %d (%d executions were submitted before): %w", number-len(many.Executions)+1, number, stored, err)
		}
		for _, one := range r.Results {
			stored++
			if one.Duplicate {
				duplicates++
			}
			if a.json {
				if err := a.jsonLine(httpapi.Submitted{ExecutionID: one.ID, State: one.State, Duplicate: one.Duplicate}); err != nil {
					return err
				}
			}
		}
		many.Executions = nil
		show.show("%d submitted", stored)
		return nil
	}
	for lines.Scan() {
		number++
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		s, err := httpapi.Decode[httpapi.Submit](line, httpapi.RefuseUnknown, "kind")
		if err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		c, err := s.Command(ff.LaneID(f.lane))
		if err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		if many.Executions = append(many.Executions, c); len(many.Executions) == batchSize {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("line %d: %w", number+1, err)
	}
	if err := flush(); err != nil {
		return err
	}
	if a.json {
		return nil
	}
	return a.print(nil, func(p *printer) { p.line("%d submitted, %d of them were there before", stored, duplicates) })
}

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
	var attempts, events bool
	c := &cobra.Command{Use: "get ID", Short: "Show an execution", Args: exactly("ID")}
	c.RunE = a.withID(func(ctx context.Context, b ff.Backend, id ff.ExecutionID) error {
		x, err := b.Execution(ctx, id)
		if err != nil {
			return err
		}
		out := struct {
			httpapi.Record
			Attempts []httpapi.Attempt `json:"attempts,omitempty"`
			Events   []httpapi.Event   `json:"events,omitempty"`
		}{Record: httpapi.RecordOf(&x)}
		if attempts {
			list, err := b.Attempts(ctx, id)
			if err != nil {
				return err
			}
			for i := range list {
				out.Attempts = append(out.Attempts, httpapi.AttemptOf(&list[i]))
			}
		}
		if events {
			if out.Events, err = allEvents(ctx, b, id); err != nil {
				return err
			}
		}
		return a.print(out, func(p *printer) {
			p.execution(&x)
			p.attempts(out.Attempts)
			p.events(out.Events)
		})
	})
	c.Flags().BoolVar(&attempts, "attempts", false, "with all attempts")
	c.Flags().BoolVar(&events, "events", false, "with all events")
	return c
}

func allEvents(ctx context.Context, b ff.Events, id ff.ExecutionID) (all []httpapi.Event, err error) {
	var after ff.EventCursor
	for {
		r, err := b.ReadEvents(ctx, ff.ReadEvents{ID: id, After: after, Limit: ff.MaxPageLimit})
		if err != nil || len(r.Events) == 0 {
			return all, err
		}
		for _, e := range r.Events {
			all = append(all, httpapi.EventOf(e))
		}
		after = r.Next
	}
}

func (p *printer) execution(x *ff.Execution) {
	lease, percent := "", ""
	if x.Lease.Worker != "" {
		lease = clean(fmt.Sprintf("%s (%s) until %s", x.Lease.Worker, x.Lease.Instance, at(x.Lease.ExpiresAt)))
	}
	if x.Progress.Percent != nil {
		percent = strconv.Itoa(*x.Progress.Percent) + "% "
	}
	tags := ""
	if len(x.Tags) > 0 {
		data, _ := json.Marshal(x.Tags)
		tags = clean(string(data))
	}
	p.fields("id", x.ID.String(), "state", p.state(x.PublicState()), "detail", clean(x.BlockingDetail), "kind", clean(x.Kind), "lane", string(x.Lane),
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

func (p *printer) events(list []httpapi.Event) {
	if len(list) == 0 {
		return
	}
	rows := make([][]string, len(list))
	for i, e := range list {
		rows[i] = eventRow(&e)
	}
	p.line("")
	p.table([]string{"at", "event", "epoch", "attempt", "worker instance", "reason"}, rows)
}

func eventRow(e *httpapi.Event) []string {
	name := string(e.Type)
	if e.Outcome != "" {
		name += " " + string(e.Outcome)
	}
	return []string{at(e.At.Time), name, strconv.FormatUint(e.LeaseEpoch, 10), strconv.Itoa(e.AttemptIndex), clean(string(e.InstanceID)), clean(e.Reason)}
}

func (a *app) listCommand() *cobra.Command {
	var q ff.ListExecutions
	var lane, state, namespace string
	var all bool
	c := &cobra.Command{Use: "list", Short: "List executions", Args: exactly()}
	c.RunE = a.withStore(func(ctx context.Context, b ff.Backend, _ []string) error {
		q.Lane, q.State, q.Namespace = ff.LaneID(lane), ff.PublicState(state), ff.Namespace(namespace)
		if state != "" {
			if _, err := ff.ParsePublicState(state); err != nil {
				return err
			}
		}
		page := httpapi.ExecutionPage{Executions: []httpapi.Record{}}
		for {
			r, err := b.ListExecutions(ctx, q)
			if err != nil {
				return err
			}
			for i := range r.Executions {
				page.Executions = append(page.Executions, httpapi.RecordOf(&r.Executions[i]))
			}
			if page.NextCursor = r.Next; !all || r.Next == "" {
				break
			}
			q.Cursor = r.Next
		}
		return a.print(page, func(p *printer) { p.list(&page) })
	})
	flags := c.Flags()
	flags.StringVar(&lane, "lane", "", "only this lane")
	flags.StringVar(&state, "state", "", "only this state")
	flags.StringVar(&q.Kind, "kind", "", "only this kind")
	flags.StringVar(&namespace, "namespace", "", "only this namespace")
	flags.BoolVar(&q.Oldest, "oldest", false, "the oldest first")
	flags.IntVar(&q.Limit, "limit", ff.DefaultPageLimit, "page size")
	flags.StringVar(&q.Cursor, "cursor", "", "go on after a page")
	flags.BoolVar(&all, "all", false, "all pages")
	return c
}

func (p *printer) list(page *httpapi.ExecutionPage) {
	rows := make([][]string, len(page.Executions))
	for i, x := range page.Executions {
		detail := x.BlockingDetail
		if x.FailureReason != "" {
			detail = x.FailureReason
		}
		rows[i] = []string{x.ExecutionID.String(), p.state(x.State), clean(x.Kind), string(x.LaneID), strconv.Itoa(x.TotalAttempts), at(x.CreatedAt.Time), clean(detail)}
	}
	p.table([]string{"id", "state", "kind", "lane", "attempts", "created", "detail"}, rows)
	if page.NextCursor != "" {
		p.line("more with: --cursor %s (or --all)", page.NextCursor)
	}
}

func (a *app) resultCommand() *cobra.Command {
	var wait time.Duration
	c := &cobra.Command{Use: "result ID", Short: "Print the result of an execution", Args: exactly("ID"),
		RunE: a.withID(func(ctx context.Context, b ff.Backend, id ff.ExecutionID) error {
			return a.printResult(ctx, b, id, wait)
		})}
	c.Flags().DurationVar(&wait, "wait", 0, "wait so long for the end")
	return c
}

// printResult prints the result once the execution has ended. The exit code says
// how it ended.
func (a *app) printResult(ctx context.Context, b ff.Backend, id ff.ExecutionID, wait time.Duration) error {
	x, err := waitTerminal(ctx, b, id, wait)
	if err != nil {
		return err
	}
	state := x.PublicState()
	if !state.Terminal() {
		return &exitError{exitNotFound, fmt.Errorf("%s is %s and has no result yet; wait with --wait 1m", id, state)}
	}
	result, err := b.ExecutionResult(ctx, id)
	if err != nil {
		return err
	}
	if a.json {
		out := struct {
			ExecutionID ff.ExecutionID  `json:"execution_id"`
			State       ff.PublicState  `json:"state"`
			Result      json.RawMessage `json:"result,omitempty"`
			Base64      []byte          `json:"result_base64,omitempty"`
			Failure     string          `json:"failure_reason,omitempty"`
		}{ExecutionID: id, State: state, Failure: x.FailureReason}
		if json.Valid(result) {
			out.Result = result
		} else {
			out.Base64 = result
		}
		if err := a.jsonLine(out); err != nil {
			return err
		}
	} else if state == ff.StateCompleted {
		if _, err := a.stdout.Write(result); err != nil {
			return err
		}
		if len(result) > 0 && terminal(a.stdout) && result[len(result)-1] != '\n' {
			fmt.Fprintln(a.stdout)
		}
	}
	if state == ff.StateCompleted {
		return nil
	}
	return &exitError{exitFailed, fmt.Errorf("%s ended as %s: %s", id, state, clean(x.FailureReason+x.CancellationReason))}
}

// waitTerminal waits until the execution has ended, or for as long as given.
func waitTerminal(ctx context.Context, b ff.Backend, id ff.ExecutionID, wait time.Duration) (ff.Execution, error) {
	deadline := time.Now().Add(wait)
	var after ff.EventCursor
	for {
		x, err := b.Execution(ctx, id)
		left := time.Until(deadline)
		if err != nil || x.Terminal() || wait == 0 {
			return x, err
		}
		if left <= 0 {
			return x, &exitError{exitTimeout, fmt.Errorf("%s is still %s after %s; see: flowfabric explain '%s'", id, x.PublicState(), wait, id)}
		}
		r, err := b.ReadEvents(ctx, ff.ReadEvents{ID: id, After: after, Wait: min(left, 5*time.Second)})
		if err != nil {
			return x, err
		}
		after = r.Next
	}
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
	c.Flags().StringVar(&r.RequestedBy, "by", os.Getenv("USER"), "who asks for it")
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

func (a *app) lanesCommand() *cobra.Command {
	return &cobra.Command{Use: "lanes", Short: "Count executions by lane and state", Args: exactly(),
		RunE: a.withStore(func(ctx context.Context, b ff.Backend, _ []string) error {
			lanes, err := b.Lanes(ctx)
			if err != nil {
				return err
			}
			out := httpapi.Lanes{Lanes: make([]httpapi.Lane, len(lanes))}
			rows := make([][]string, len(lanes))
			shown := []ff.PublicState{ff.StateWaiting, ff.StateDelayed, ff.StateActive, ff.StateCompleted, ff.StateFailed, ff.StateCancelled, ff.StateExpired}
			for i, l := range lanes {
				out.Lanes[i] = httpapi.Lane{LaneID: l.Lane, Counts: l.Counts, OldestAt: httpapi.At(l.Oldest)}
				rows[i] = []string{string(l.Lane)}
				for _, s := range shown {
					rows[i] = append(rows[i], strconv.Itoa(l.Counts[s]))
				}
				rows[i] = append(rows[i], at(l.Oldest))
			}
			return a.print(out, func(p *printer) {
				header := []string{"lane"}
				for _, s := range shown {
					header = append(header, string(s))
				}
				p.table(append(header, "oldest waiting"), rows)
			})
		})}
}

func (a *app) workersCommand() *cobra.Command {
	return &cobra.Command{Use: "workers", Short: "List live workers", Args: exactly(),
		RunE: a.withStore(func(ctx context.Context, b ff.Backend, _ []string) error {
			list, err := allWorkers(ctx, b)
			if err != nil {
				return err
			}
			out := httpapi.Workers{Workers: make([]httpapi.WorkerInfo, len(list))}
			rows := make([][]string, len(list))
			for i := range list {
				w := &list[i]
				out.Workers[i] = httpapi.WorkerInfoOf(w)
				rows[i] = []string{clean(string(w.Instance)), clean(string(w.Worker)), clean(string(w.Namespace)), joinLanes(w.Lanes), clean(w.Capabilities.CSV()), strconv.Itoa(w.Leases), at(w.HeartbeatAt)}
			}
			return a.print(out, func(p *printer) {
				p.table([]string{"instance", "worker", "namespace", "lanes", "capabilities", "leases", "heartbeat"}, rows)
			})
		})}
}

func allWorkers(ctx context.Context, b ff.Workers) (all []ff.WorkerInfo, err error) {
	q := ff.ListWorkers{AllNamespaces: true, Limit: ff.MaxPageLimit}
	for {
		r, err := b.ListWorkers(ctx, q)
		if err != nil {
			return nil, err
		}
		all = append(all, r.Workers...)
		if q.Cursor = r.Next; q.Cursor == "" {
			return all, nil
		}
	}
}

func joinLanes(lanes []ff.LaneID) string {
	list := make([]string, len(lanes))
	for i, l := range lanes {
		list[i] = string(l)
	}
	return strings.Join(list, ",")
}

func (a *app) eventsCommand() *cobra.Command {
	var follow bool
	var id, after string
	c := &cobra.Command{Use: "events", Short: "Show the event log", Args: exactly()}
	c.RunE = a.withStore(func(ctx context.Context, b ff.Backend, _ []string) error {
		q := ff.ReadEvents{After: ff.EventCursor(after), Limit: ff.MaxPageLimit}
		if id != "" {
			var err error
			if q.ID, err = ff.ParseExecutionID(id); err != nil {
				return usageError("%w", err)
			}
		}
		if follow {
			q.Wait = 30 * time.Second
		}
		for {
			r, err := b.ReadEvents(ctx, q)
			if err != nil {
				return err
			}
			for _, e := range r.Events {
				out := httpapi.EventOf(e)
				if err := a.print(out, func(p *printer) {
					p.line("%s  %s", strings.Join(eventRow(&out), "  "), out.ExecutionID)
				}); err != nil {
					return err
				}
			}
			if q.After = r.Next; !follow && len(r.Events) == 0 {
				return nil
			}
		}
	})
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on as events happen")
	c.Flags().StringVar(&id, "id", "", "only this execution")
	c.Flags().StringVar(&after, "after", "", "go on after a cursor")
	return c
}
