package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

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

func joinLanes(lanes []ff.LaneID) string {
	list := make([]string, len(lanes))
	for i, l := range lanes {
		list[i] = string(l)
	}
	return strings.Join(list, ",")
}
