package client

import (
	"context"
	"iter"

	ff "github.com/flowfabric/flowfabric"
)

// List goes through the executions that match, newest first unless q.Oldest,
// reading pages of q.Limit as needed. An error ends it.
func (c *Client) List(ctx context.Context, q ff.ListExecutions) iter.Seq2[ff.Execution, error] {
	return pages(q.Cursor, func(cursor string) ([]ff.Execution, string, error) {
		q.Cursor = cursor
		page, err := c.Backend().ListExecutions(ctx, q)
		return page.Executions, page.Next, err
	})
}

// Workers goes through the live worker processes. An error ends it.
func (c *Client) Workers(ctx context.Context, q ff.ListWorkers) iter.Seq2[ff.WorkerInfo, error] {
	return pages(q.Cursor, func(cursor string) ([]ff.WorkerInfo, string, error) {
		q.Cursor = cursor
		page, err := c.Backend().ListWorkers(ctx, q)
		return page.Workers, page.Next, err
	})
}

// Events goes through the event log from q.After. With q.Wait it goes on waiting
// for events until ctx ends; without, it ends where the log ends. An error ends it.
func (c *Client) Events(ctx context.Context, q ff.ReadEvents) iter.Seq2[ff.Event, error] {
	return func(yield func(ff.Event, error) bool) {
		for {
			page, err := c.Backend().ReadEvents(ctx, q)
			if err != nil {
				yield(ff.Event{}, err)
				return
			}
			for _, e := range page.Events {
				if !yield(e, nil) {
					return
				}
			}
			if q.Wait == 0 && page.Next == q.After {
				return
			}
			q.After = page.Next
		}
	}
}

// Lanes lists the lanes with their counts, ordered by name.
func (c *Client) Lanes(ctx context.Context) ([]ff.LaneStatus, error) {
	return c.Backend().Lanes(ctx)
}

// pages goes through the items of a listing.
func pages[T any](cursor string, read func(cursor string) ([]T, string, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for {
			items, next, err := read(cursor)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			cursor = next
		}
	}
}
