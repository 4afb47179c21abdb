package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

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

// logLine writes one event of a log. The widths are fixed, because more may follow
// at any time: what is wider moves the rest of its line.
func (p *printer) logLine(at, event, id, epoch, attempt, instance, reason string) {
	p.line("%s", strings.TrimRight(fmt.Sprintf("%-24s  %-20s  %-43s  %-5s  %-7s  %-24s  %s", at, event, id, epoch, attempt, instance, reason), " "))
}

func (a *app) eventsCommand() *cobra.Command {
	var follow bool
	var id, after string
	c := &cobra.Command{Use: "events", Short: "Show the event log", Args: exactly()}
	c.RunE = a.withStore(func(ctx context.Context, b ff.Backend, _ []string) error {
		q := ff.ReadEvents{After: ff.EventCursor(after), Limit: ff.MaxPageLimit}
		if after == "0" {
			q.After = ""
		}
		if id != "" {
			var err error
			if q.ID, err = ff.ParseExecutionID(id); err != nil {
				return usageError("%w", err)
			}
		}
		if follow {
			q.Wait = 30 * time.Second
		}
		begun := false
		for {
			r, err := b.ReadEvents(ctx, q)
			if err != nil {
				return err
			}
			for _, e := range r.Events {
				out := httpapi.EventOf(e)
				if err := a.print(out, func(p *printer) {
					if !begun {
						p.logLine("AT", "EVENT", "EXECUTION", "EPOCH", "ATTEMPT", "WORKER INSTANCE", "REASON")
					}
					row := eventRow(&out)
					p.logLine(row[0], row[1], out.ExecutionID.String(), row[2], row[3], row[4], row[5])
				}); err != nil {
					return err
				}
				begun = true
			}
			if q.After = r.Next; !follow && len(r.Events) == 0 {
				return nil
			}
		}
	})
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on as events happen")
	c.Flags().StringVar(&id, "id", "", "only this execution")
	c.Flags().StringVar(&after, "after", "", "go on after a cursor; 0 is the start")
	return c
}
