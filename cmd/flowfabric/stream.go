package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/spf13/cobra"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// frameLines is how many frames `stream tail` begins with.
const frameLines = 10

func (a *app) streamCommand() *cobra.Command {
	parent := &cobra.Command{Use: "stream", Short: "Show and follow the output of an execution", Args: cobra.ArbitraryArgs, RunE: onlyCommands}
	parent.AddCommand(a.streamReadCommand(), a.streamTailCommand(), a.streamSummaryCommand())
	return parent
}

// streamFlags are those of the commands that print frames.
type streamFlags struct {
	attempt      int
	durable, raw bool
}

func (f *streamFlags) add(c *cobra.Command) {
	f.addAttempt(c)
	c.Flags().BoolVar(&f.durable, "durable", false, "leave best-effort frames out")
	c.Flags().BoolVar(&f.raw, "raw", false, "print the payloads as they are, and nothing else")
}

func (f *streamFlags) addAttempt(c *cobra.Command) {
	c.Flags().IntVar(&f.attempt, "attempt", -1, "index of the attempt, from 0; -1 for the latest")
}

// stream is the stream that a command is about.
func (f *streamFlags) stream(ctx context.Context, b ff.Backend, id ff.ExecutionID) (ff.StreamRef, error) {
	ref := ff.StreamRef{ID: id, AttemptIndex: f.attempt}
	if f.attempt < -1 {
		return ref, usageError("--attempt must be -1 or more (got %d)", f.attempt)
	}
	x, err := b.Execution(ctx, id)
	if err != nil {
		return ref, err
	}
	if f.attempt == -1 {
		ref.AttemptIndex = x.Attempt.Index
		return ref, nil
	}
	began, there := x.TotalAttempts, f.attempt < x.TotalAttempts
	if next := f.attempt == began && !x.Terminal(); !there && !next {
		return ref, &exitError{exitNotFound, fmt.Errorf("execution %s has no attempt %d: %d began", id, f.attempt, began)}
	}
	return ref, nil
}

// frame prints a frame.
func (a *app) frame(f *streamFlags, o *client.Output) error {
	if f.raw {
		_, err := a.stdout.Write(o.Payload)
		return err
	}
	out := struct {
		AttemptIndex int `json:"attempt_index"`
		httpapi.Frame
	}{o.AttemptIndex, httpapi.FrameOf(&o.Frame)}
	return a.print(out, func(p *printer) {
		p.line("%s  %s  %s", at(time.UnixMilli(int64(o.ID.Ms))), clean(o.Type), clean(strings.TrimSuffix(string(o.Payload), "\n")))
	})
}

func positionFlag(name, value string) (id ff.FrameID, err error) {
	if value == "" {
		return id, nil
	}
	if id, err = ff.ParseFrameID(value); err != nil {
		return id, usageError("--%s: %w", name, err)
	}
	return id, nil
}

func (a *app) streamReadCommand() *cobra.Command {
	var f streamFlags
	var from, to string
	var limit int
	c := &cobra.Command{Use: "read ID", Short: "Print a part of the output of an attempt", Args: exactly("ID"),
		Example: "  flowfabric stream read '{fp:86}:550e8400-e29b-41d4-a716-446655440000' --attempt 0 --limit 20"}
	c.RunE = a.withID(func(ctx context.Context, b ff.Backend, id ff.ExecutionID) (err error) {
		q := ff.ReadFrames{Limit: limit, Durable: f.durable}
		if q.From, err = positionFlag("from", from); err != nil {
			return err
		}
		if q.To, err = positionFlag("to", to); err != nil {
			return err
		}
		if q.StreamRef, err = f.stream(ctx, b, id); err != nil {
			return err
		}
		page, err := b.ReadFrames(ctx, q)
		if err != nil {
			return err
		}
		for i := range page.Frames {
			if err := a.frame(&f, &client.Output{AttemptIndex: q.AttemptIndex, Frame: page.Frames[i]}); err != nil {
				return err
			}
		}
		if page.More && !f.raw && !a.json {
			(&printer{w: a.stdout}).line("more with: --from %s", page.Last.Next())
		}
		return nil
	})
	f.add(c)
	c.Flags().StringVar(&from, "from", "", "first position, MS or MS-SEQ; the beginning when absent")
	c.Flags().StringVar(&to, "to", "", "last position; the end when absent")
	c.Flags().IntVar(&limit, "limit", ff.DefaultFrameLimit, "how many frames")
	return c
}

func (a *app) streamTailCommand() *cobra.Command {
	var f streamFlags
	var follow bool
	var lines int
	var after string
	var patience time.Duration
	c := &cobra.Command{Use: "tail ID", Short: "Print the end of the output of an execution, and follow it", Args: exactly("ID"),
		Long: "Prints the last frames of an attempt. With --follow it goes on as frames come, with the next\nattempt when one has ended, until the execution has ended.",
		Example: "  flowfabric stream tail -f '{fp:86}:550e8400-e29b-41d4-a716-446655440000'\n" +
			"  flowfabric stream tail -f --raw --after 0-0 '{fp:86}:550e8400-e29b-41d4-a716-446655440000'"}
	c.RunE = a.withID(func(ctx context.Context, b ff.Backend, id ff.ExecutionID) (err error) {
		if lines < 0 || lines > ff.MaxFrameLimit {
			return usageError("--lines must be 0 to %d (got %d)", ff.MaxFrameLimit, lines)
		}
		q := ff.TailFrames{Durable: f.durable}
		if q.After, err = positionFlag("after", after); err != nil {
			return err
		}
		if q.StreamRef, err = f.stream(ctx, b, id); err != nil {
			return err
		}
		if after != "" {
			lines = ff.MaxFrameRetention
		}
		if err := a.lastFrames(ctx, b, &f, &q, lines); err != nil || !follow {
			return err
		}
		return a.follow(ctx, b, &f, q, patience)
	})
	f.add(c)
	c.Flags().DurationVar(&patience, "retry-for", tailPatience, "how long to go on trying while a server or store that was there cannot be reached")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the execution has ended")
	c.Flags().IntVarP(&lines, "lines", "n", frameLines, "how many of the last frames to begin with")
	c.Flags().StringVar(&after, "after", "", "begin after this position instead, MS or MS-SEQ; 0-0 for all")
	return c
}

// tailPatience is how long a tail bears that nothing answers: a server that is restarted
// is back by then.
const tailPatience = time.Minute

// follow prints the output from q on until the execution has ended. While nothing answers
// it waits, for as long as patience says; then it says how to go on.
func (a *app) follow(ctx context.Context, b ff.Backend, f *streamFlags, q ff.TailFrames, patience time.Duration) error {
	for {
		err := a.followOnce(ctx, b, f, &q)
		if err == nil || ctx.Err() != nil || !ff.IsRetryable(err) {
			return err
		}
		fmt.Fprintf(a.stderr, "following broke off: %v; trying again for %s\n", err, patience)
		if err := awaitAnswer(ctx, b, q.ID, patience); err != nil {
			fmt.Fprintf(a.stderr, "continue with: flowfabric stream tail -f '%s' --attempt %d --after %s\n", q.ID, q.AttemptIndex, q.After)
			return err
		}
	}
}

// awaitAnswer waits until an execution can be read again.
func awaitAnswer(ctx context.Context, b ff.Backend, id ff.ExecutionID, patience time.Duration) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 100*time.Millisecond, 2*time.Second
	for lost := time.Now(); ; {
		select {
		case <-time.After(pause.NextBackOff()):
		case <-ctx.Done():
			return ctx.Err()
		}
		_, err := b.Execution(ctx, id)
		if err == nil || !ff.IsRetryable(err) || time.Since(lost) >= patience {
			return err
		}
	}
}

// followOnce follows until something fails, and moves q behind what was printed.
func (a *app) followOnce(ctx context.Context, b ff.Backend, f *streamFlags, q *ff.TailFrames) error {
	for o, err := range client.Follow(ctx, b, *q) {
		if err == nil {
			err = a.frame(f, &o)
		}
		if err != nil {
			return err
		}
		q.AttemptIndex, q.After = o.AttemptIndex, o.ID
	}
	return nil
}

// lastFrames prints the last frames that are there after q.After, and moves it on.
func (a *app) lastFrames(ctx context.Context, b ff.Streams, f *streamFlags, q *ff.TailFrames, n int) error {
	var last []ff.Frame
	for {
		page, err := b.TailFrames(ctx, ff.TailFrames{StreamRef: q.StreamRef, After: q.After, Durable: q.Durable, Limit: 1000})
		if err != nil {
			return err
		}
		q.After = page.Last
		last = append(last, page.Frames...)
		last = last[max(0, len(last)-n):]
		if !page.More {
			break
		}
	}
	for i := range last {
		if err := a.frame(f, &client.Output{AttemptIndex: q.AttemptIndex, Frame: last[i]}); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) streamSummaryCommand() *cobra.Command {
	var f streamFlags
	c := &cobra.Command{Use: "summary ID", Short: "Print the summary document of an attempt", Args: exactly("ID")}
	c.RunE = a.withID(func(ctx context.Context, b ff.Backend, id ff.ExecutionID) error {
		ref, err := f.stream(ctx, b, id)
		if err != nil {
			return err
		}
		s, err := b.Summary(ctx, ref)
		if err != nil {
			return err
		}
		return a.print(httpapi.SummaryOf(&s), func(p *printer) { p.summary(&s) })
	})
	f.addAttempt(c)
	return c
}

func (p *printer) summary(s *ff.Summary) {
	if s.Version == 0 {
		p.line("none")
		return
	}
	p.fields("version", strconv.FormatInt(s.Version, 10), "first", at(s.FirstAppliedAt), "updated", at(s.UpdatedAt))
	text, err := json.MarshalIndent(s.Document, "", "  ")
	if err != nil {
		text = s.Document
	}
	p.line("")
	for line := range strings.SplitSeq(string(text), "\n") {
		p.line("%s", clean(line))
	}
}
