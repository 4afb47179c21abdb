package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/bench"
)

func (a *app) benchCommand() *cobra.Command {
	parent := &cobra.Command{Use: "bench", Short: "Measure a store", Args: cobra.ArbitraryArgs, RunE: onlyCommands, Long: `Measures a store: --store sqlite:FILE or --store valkey://HOST in this process, or --server URL over HTTP.

The executions of a measurement stay in the store, in lanes whose names begin with bench-,
until a server deletes them when their retention is over. Measure on a store, or on a
database of a Valkey, that is for nothing else.`}
	for _, s := range []struct {
		name, short string
		tasks       int
		payload     int
		preload     int
		run         func(context.Context, ff.Backend, bench.Options) (*bench.Report, error)
	}{
		{"submit-claim-complete", "Submit executions, then claim and complete them", 10_000, 4096, 0, bench.SubmitClaimComplete},
		{"latency", "Time from a submit to the start of its handler on an idle store", 1000, 64, 0, bench.Latency},
		{"suspend-signal-resume", "Round trips of suspending an execution, its signal and the resumed claim", 10_000, 256, 0, bench.SuspendSignalResume},
		{"stored", "What stored executions cost: lifecycles with and without them", 20_000, 256, 1_000_000, bench.Stored},
		{"stream", "Append to outputs while others follow them", 20_000, 64, 0, bench.Stream},
		{"footprint", "Bytes that one completed execution takes", 20_000, 0, 0, bench.Footprint},
	} {
		var o bench.Options
		c := &cobra.Command{Use: s.name, Short: s.short, Args: exactly()}
		c.RunE = a.withAnyStore(func(ctx context.Context, b ff.Backend, _ []string) error {
			show := a.progress()
			o.Progress = func(phase string, done, of int) { show.show("%s %d of %d", phase, done, of) }
			r, err := s.run(ctx, b, o)
			show.done()
			if err != nil {
				return err
			}
			a.notice("the executions of this measurement stay in the store, in lanes bench-…, until their retention is over")
			return a.print(r, func(p *printer) { p.report(r) })
		})
		c.Flags().IntVar(&o.Tasks, "tasks", s.tasks, "executions")
		c.Flags().IntVar(&o.Workers, "workers", 16, "concurrent callers, then workers")
		c.Flags().IntVar(&o.Payload, "payload", s.payload, "input in bytes, and payload of a signal")
		c.Flags().IntVar(&o.Preload, "preload", s.preload, "completed executions to store beforehand")
		c.Flags().IntVar(&o.Batch, "batch", 1, "executions per submit")
		if s.name == "submit-claim-complete" || s.name == "stored" {
			c.Flags().BoolVar(&o.Chain, "chain", false, "claim the next execution in the call that completes one")
		}
		if s.name == "stream" {
			c.Flags().IntVar(&o.Tails, "tails", 1, "callers that follow each output")
			c.Flags().IntVar(&o.Rate, "rate", 0, "frames per second of all together; 0 for as many as possible")
			c.Flags().Lookup("tasks").Usage = "frames"
			c.Flags().Lookup("batch").Usage = "frames per append"
			c.Flags().Lookup("payload").Usage = "payload of a frame in bytes, at least 8"
			c.Flags().Lookup("workers").Usage = "attempts that append at the same time"
			_ = c.Flags().MarkHidden("preload")
		}
		parent.AddCommand(c)
	}
	return parent
}

func ratio(v float64) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", v)
}

func tails(r *bench.Report) string {
	if r.Tails == 0 {
		return ""
	}
	return fmt.Sprintf("%d for each output", r.Tails)
}

func (p *printer) report(r *bench.Report) {
	rate := func(v float64) string {
		if v == 0 {
			return ""
		}
		return fmt.Sprintf("%.0f", v)
	}
	scenario := r.Scenario
	if r.Chain {
		scenario += ", claiming with each completion"
	}
	p.fields("scenario", scenario, "machine", fmt.Sprintf("%s, %d cores, %s/%s, %s", r.Machine.CPU, r.Machine.Cores, r.Machine.OS, r.Machine.Arch, r.Machine.Go),
		"store", r.Store+" "+r.Version, "durability", r.Durability, "tasks", fmt.Sprint(r.Tasks), "workers", fmt.Sprint(r.Workers),
		"payload", fmt.Sprintf("%d bytes", r.Payload), "preloaded", fmt.Sprint(r.Preloaded), "submits/s", rate(r.SubmitsPerS), "frames/s", rate(r.FramesPerS), "tails", tails(r),
		"lifecycles/s", rate(r.LifecyclesS), "round trips/s", rate(r.TripsPerS), "bytes each", rate(r.BytesEach), "ratio", ratio(r.Ratio), "seconds", fmt.Sprintf("%.2f", r.Seconds))
	var rows [][]string
	for name, l := range r.LatencyMS {
		ms := func(v float64) string { return fmt.Sprintf("%.2f ms", v) }
		rows = append(rows, []string{name, ms(l.P50), ms(l.P95), ms(l.P99), ms(l.Max)})
	}
	slices.SortFunc(rows, slices.Compare[[]string])
	p.line("")
	p.table([]string{"command", "p50", "p95", "p99", "max"}, rows)
}
