package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

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
