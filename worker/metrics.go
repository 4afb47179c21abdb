package worker

import (
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// instruments are the metrics of a worker (spec 09 §4).
type instruments struct {
	outcomes, renewals, atCapacity metric.Int64Counter
}

func newInstruments(meter metric.Meter) (i instruments, err error) {
	if meter == nil {
		meter = noop.Meter{}
	}
	var errs [3]error
	i.outcomes, errs[0] = meter.Int64Counter("ff_attempt_outcome_total", metric.WithDescription("Attempts that this worker ended, by lane and outcome"))
	i.renewals, errs[1] = meter.Int64Counter("ff_lease_renewal_total", metric.WithDescription("Renewals of leases by outcome"))
	i.atCapacity, errs[2] = meter.Int64Counter("ff_worker_at_capacity_total", metric.WithDescription("Claims that had to wait because all slots were busy"))
	if err := errors.Join(errs[:]...); err != nil {
		return i, fmt.Errorf("worker metrics: %w", err)
	}
	return i, nil
}
