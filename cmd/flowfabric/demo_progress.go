package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/worker"
)

// demoWatchLane is a lane of its own, that the worker to be killed does not serve.
const demoWatchLane = ff.LaneID("watch")

// counted is a frame of the watcher's output: how many of the executions that it is to
// count have completed. The last one may be an error instead.
type counted struct {
	Done  int `json:"done"`
	Total int `json:"total"`

	err error
}

// watch counts the executions that have completed until it is total of them, and writes
// to its output how many there are. Another attempt counts from the beginning again.
func watch(ctx context.Context, b ff.Events, total int) (counted, error) {
	out := worker.TaskFrom(ctx).Stream()
	c := counted{Total: total}
	for q := (ff.ReadEvents{Family: ff.FamilyCompletion, Limit: ff.MaxPageLimit, Wait: time.Second}); c.Done < total; {
		r, err := b.ReadEvents(ctx, q)
		if err != nil {
			return c, err
		}
		q.After = r.Next
		if len(r.Events) == 0 {
			continue
		}
		c.Done += len(r.Events)
		text, err := json.Marshal(c)
		if err == nil {
			err = out.Append(ctx, ff.NewFrame{Type: "progress", Payload: text})
		}
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

// submitWatcher submits the execution that counts all but itself and the publication.
func (d *demo) submitWatcher(ctx context.Context) error {
	r, err := d.store.CreateExecution(ctx, ff.CreateExecution{Lane: demoWatchLane, Kind: kindWatch, PayloadEncoding: "json",
		Payload: fmt.Append(nil, d.total-2)})
	d.watcher = r.ID
	return err
}

// follow receives the output of the watcher from the server, until the watcher has ended
// or ctx ends.
func (d *demo) follow(ctx context.Context) (ended <-chan struct{}, err error) {
	c, err := client.New(d.url)
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	d.counted = make(chan counted)
	go func() {
		defer close(done)
		defer close(d.counted)
		for frame, err := range c.Follow(ctx, ff.TailFrames{StreamRef: ff.StreamRef{ID: d.watcher}}) {
			var n counted
			if err == nil {
				err = json.Unmarshal(frame.Payload, &n)
			}
			n.err = err
			select {
			case d.counted <- n:
			case <-ctx.Done():
				return
			}
		}
	}()
	return done, nil
}

// tell shows the frames of the watcher that are there.
func (d *demo) tell() error {
	for d.counted != nil {
		select {
		case n, ok := <-d.counted:
			if err := d.showCount(n, ok); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return nil
}

// tellRest shows the frames that are left. The watcher has ended.
func (d *demo) tellRest(ctx context.Context) error {
	for d.counted != nil {
		select {
		case n, ok := <-d.counted:
			if err := d.showCount(n, ok); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// showCount shows a frame: as a live line on a terminal, every tenth elsewhere.
func (d *demo) showCount(n counted, ok bool) error {
	if !ok {
		d.counted = nil // all were shown
		return nil
	}
	if n.err != nil {
		return fmt.Errorf("following the progress: %w", n.err)
	}
	d.show.show("%d of %d executions completed, %.0f/s", n.Done, n.Total, float64(n.Done)/time.Since(d.begun).Seconds())
	if tenth := n.Done * 10 / n.Total; !d.show.fancy && tenth > d.said {
		d.said = tenth
		d.say("%d of %d executions completed", n.Done, n.Total)
	}
	return nil
}
