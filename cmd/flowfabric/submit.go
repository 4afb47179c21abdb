package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// batchSize is the number of executions that submit --batch stores at a time, fewer
// when they are large.
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
  flowfabric submit --batch jobs.ndjson      # one object per line: {"kind":"hello","payload":1,"lane_id":"mail"}`,
	}
	c.RunE = a.withAnyStore(func(ctx context.Context, b ff.Backend, args []string) error {
		f.changed = c.Flags().Changed
		switch {
		case f.wait < 0:
			return usageError("--wait must not be negative (got %s)", f.wait)
		case f.batch != "" && len(args) == 0:
			return a.submitBatch(ctx, b, &f)
		case f.batch == "" && len(args) == 1:
			return a.submitOne(ctx, b, args[0], &f)
		}
		return usageError("give either a KIND or --batch FILE (see: flowfabric submit --help)")
	})
	flags := c.Flags()
	flags.StringVar(&f.lane, "lane", "default", "lane to submit to; a line of --batch may name its own as lane_id")
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
	if f.changed("retries") || f.timeout != 0 || f.deadline != 0 || len(f.requires) > 0 {
		p := ff.DefaultExecutionPolicy()
		if f.changed("retries") {
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
	first, last, size := 0, 0, 0 // of the lines that wait
	flush := func() error {
		if len(many.Executions) == 0 {
			return nil
		}
		r, err := b.CreateExecutions(ctx, many)
		if err != nil {
			return fmt.Errorf("lines %d to %d (%d executions were submitted before): %w", first, last, stored, err)
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
		many.Executions, size = nil, 0
		show.show("%d submitted", stored)
		return nil
	}
	for lines.Scan() {
		number++
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		s, err := httpapi.Decode[httpapi.CreateItem](line, httpapi.RefuseUnknown, "kind")
		if err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		c, err := s.Command(cmp.Or(s.LaneID, ff.LaneID(f.lane)))
		if err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		if len(many.Executions) == batchSize || size+c.Size() > ff.MaxBatchBytes {
			if err := flush(); err != nil {
				return err
			}
		}
		if len(many.Executions) == 0 {
			first = number
		}
		many.Executions, last, size = append(many.Executions, c), number, size+c.Size()
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
