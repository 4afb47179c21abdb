package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// demoReport is what the demo prints.
type demoReport struct {
	Files      int                    `json:"files"`
	Words      int                    `json:"words"`
	Lines      int                    `json:"lines"`
	Skipped    int                    `json:"skipped"`
	Executions int                    `json:"executions"`
	Completed  int                    `json:"completed"`
	States     map[ff.PublicState]int `json:"states"`
	Retried    int                    `json:"retried"`
	Reclaimed  int                    `json:"reclaimed"`
	Killed     int                    `json:"killed_workers"`
	ApprovedBy string                 `json:"approved_by"`
	Seconds    float64                `json:"seconds"`
	PerSecond  float64                `json:"executions_per_s"`
	Store      string                 `json:"store"`
}

// report checks the totals and prints them.
func (d *demo) report(ctx context.Context) error {
	r := demoReport{Files: len(d.files), Skipped: d.skipped, Killed: 1, Seconds: time.Since(d.begun).Seconds(), States: map[ff.PublicState]int{}}
	q := ff.ListExecutions{Limit: ff.MaxPageLimit}
	var report published
	for {
		page, err := d.store.ListExecutions(ctx, q)
		if err != nil {
			return err
		}
		for i := range page.Executions {
			x := &page.Executions[i]
			r.Executions++
			r.States[x.PublicState()]++
			r.Retried += x.RetryCount
			r.Reclaimed += x.ReclaimCount
			if x.Kind == kindPublish {
				data, err := d.store.ExecutionResult(ctx, x.ID)
				if err == nil {
					err = json.Unmarshal(data, &report)
				}
				if err != nil {
					return fmt.Errorf("reading the report: %w", err)
				}
			}
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
	}
	r.Words, r.Lines, r.ApprovedBy, r.Completed = report.Words, report.Lines, report.ApprovedBy, r.States[ff.StateCompleted]
	r.PerSecond = float64(r.Executions) / r.Seconds
	info, err := d.store.Info(ctx)
	if err != nil {
		return err
	}
	r.Store = info.Store + " (" + info.Durability + ")"
	d.show.done()
	// Checked before anything is printed, which may go to an indexed directory.
	checked := d.check(&r)
	return errors.Join(d.app.print(r, func(p *printer) { p.demo(&r) }), checked)
}

// check compares with a direct count.
func (d *demo) check(r *demoReport) error {
	var direct counts
	for _, file := range d.files {
		c, _, err := countFile(file)
		if err != nil {
			return fmt.Errorf("counting directly: %w", err)
		}
		direct.add(c)
	}
	switch {
	case direct.Words != r.Words || direct.Lines != r.Lines:
		return fmt.Errorf("the executions counted %d words and %d lines, a direct count gives %d and %d; if no file was changed meanwhile, please report it", r.Words, r.Lines, direct.Words, direct.Lines)
	case r.Completed != r.Executions || r.Executions != d.total:
		return fmt.Errorf("%d of %d executions are completed, %d were submitted", r.Completed, r.Executions, d.total)
	case r.Reclaimed < 1 || r.Retried < 2*demoFlaky:
		return fmt.Errorf("%d executions were reclaimed and %d retried: the demo did not show what it should", r.Reclaimed, r.Retried)
	}
	return nil
}
