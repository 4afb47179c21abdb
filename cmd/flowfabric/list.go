package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

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
		switch {
		case x.FailureReason != "":
			detail = x.FailureReason
		case x.State == ff.StateDelayed:
			detail = "delayed until " + at(x.DelayUntil.Time)
		}
		rows[i] = []string{x.ExecutionID.String(), p.state(x.State), clean(x.Kind), string(x.LaneID), strconv.Itoa(x.TotalAttempts), at(x.CreatedAt.Time), clean(detail)}
	}
	p.table([]string{"id", "state", "kind", "lane", "attempts", "created", "detail"}, rows)
	if page.NextCursor != "" {
		p.line("more with: --cursor %s (or --all)", page.NextCursor)
	}
}
