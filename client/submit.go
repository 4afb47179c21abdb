package client

import (
	"context"
	"encoding/json"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// SubmitOption sets what one submit wants beyond its kind and payload. The names
// say what they set: client.Priority(5), client.Delay(time.Hour), …
type SubmitOption func(*ff.CreateExecution)

// ID chooses the execution's id. Submitting the same id again is a duplicate.
func ID(id ff.ExecutionID) SubmitOption { return func(c *ff.CreateExecution) { c.ID = id } }

// Namespace labels the tenant.
func Namespace(n ff.Namespace) SubmitOption { return func(c *ff.CreateExecution) { c.Namespace = n } }

// Priority is 0 to flowfabric.MaxPriority; the highest is claimed first.
func Priority(p int) SubmitOption { return func(c *ff.CreateExecution) { c.Priority = p } }

// Creator says who submits.
func Creator(who string) SubmitOption { return func(c *ff.CreateExecution) { c.Creator = who } }

// IdempotencyKey makes a repeated submit with the same key within 24 hours return
// the first execution.
func IdempotencyKey(key string) SubmitOption {
	return func(c *ff.CreateExecution) { c.IdempotencyKey = key }
}

// Tags are labels. Given twice, they add up.
func Tags(tags map[string]string) SubmitOption {
	return func(c *ff.CreateExecution) {
		all := make(map[string]string, len(c.Tags)+len(tags))
		for _, m := range []map[string]string{c.Tags, tags} {
			for k, v := range m {
				all[k] = v
			}
		}
		c.Tags = all
	}
}

// Delay holds the execution back for so long.
func Delay(d time.Duration) SubmitOption { return func(c *ff.CreateExecution) { c.Delay = d } }

// DelayUntil holds the execution back until an instant.
func DelayUntil(at time.Time) SubmitOption { return func(c *ff.CreateExecution) { c.DelayUntil = at } }

// Deadline expires the execution at an instant, whatever it is doing.
func Deadline(at time.Time) SubmitOption { return func(c *ff.CreateExecution) { c.Deadline = at } }

// Policy sets the whole policy. The options that follow it change a copy.
func Policy(p *ff.ExecutionPolicy) SubmitOption { return func(c *ff.CreateExecution) { c.Policy = p } }

// Retry says whether and when a failed attempt is followed by another: see
// flowfabric.FixedRetry and flowfabric.ExponentialRetry.
func Retry(p *ff.RetryPolicy) SubmitOption {
	return withPolicy(func(e *ff.ExecutionPolicy) { e.Retry = p })
}

// AttemptTimeout ends an attempt that takes longer.
func AttemptTimeout(d time.Duration) SubmitOption {
	return withPolicy(func(e *ff.ExecutionPolicy) {
		t := ff.TimeoutPolicy{MaxReclaims: ff.DefaultMaxReclaims}
		if e.Timeout != nil {
			t = *e.Timeout
		}
		t.Attempt = d
		e.Timeout = &t
	})
}

// Requires names the capabilities that a worker needs to claim the execution.
func Requires(set ff.CapabilitySet) SubmitOption {
	return withPolicy(func(e *ff.ExecutionPolicy) {
		var r ff.RoutingRequirements
		if e.Routing != nil {
			r = *e.Routing
		}
		r.RequiredCapabilities = set
		e.Routing = &r
	})
}

// withPolicy changes a copy of the policy.
func withPolicy(change func(*ff.ExecutionPolicy)) SubmitOption {
	return func(c *ff.CreateExecution) {
		p := ff.DefaultExecutionPolicy()
		if c.Policy != nil {
			*p = *c.Policy
		}
		change(p)
		c.Policy = p
	}
}

// Item is one execution of SubmitMany.
type Item struct {
	Kind    string
	Payload any
	Options []SubmitOption
}

// Submit stores an execution in a lane. The payload is encoded as JSON, except
// that []byte is stored as it is and nil is none. Errors: invalid_input naming the
// field, payload_too_large, invalid_policy_json; unauthorized; transport and
// timeout, after which the execution may be stored or not: use ID or
// IdempotencyKey to repeat the submit safely.
func (c *Client) Submit(ctx context.Context, lane ff.LaneID, kind string, payload any, options ...SubmitOption) (ff.CreateExecutionResult, error) {
	cmd, err := command(lane, Item{kind, payload, options})
	if err != nil {
		return ff.CreateExecutionResult{}, err
	}
	return c.Backend().CreateExecution(ctx, cmd)
}

// SubmitMany stores up to flowfabric.MaxBatch executions in one call, all or none.
// Errors as of Submit, with the position of the item in the field.
func (c *Client) SubmitMany(ctx context.Context, lane ff.LaneID, items []Item) ([]ff.CreateExecutionResult, error) {
	all := ff.CreateExecutions{Executions: make([]ff.CreateExecution, len(items))}
	for i, item := range items {
		var err error
		if all.Executions[i], err = command(lane, item); err != nil {
			return nil, ff.AtItem("executions", i, err)
		}
	}
	got, err := c.Backend().CreateExecutions(ctx, all)
	return got.Results, err
}

func command(lane ff.LaneID, item Item) (ff.CreateExecution, error) {
	c := ff.CreateExecution{Lane: lane, Kind: item.Kind}
	var err error
	if c.Payload, c.PayloadEncoding, err = encode(item.Payload); err != nil {
		return c, err
	}
	for _, o := range item.Options {
		o(&c)
	}
	return c, nil
}

// encode is a payload as bytes: a []byte as it is, anything else as JSON.
func encode(payload any) (data []byte, encoding string, err error) {
	switch p := payload.(type) {
	case nil:
		return nil, "", nil
	case []byte:
		return p, "", nil
	}
	if data, err = json.Marshal(payload); err != nil {
		return nil, "", ff.InvalidInput("payload", "cannot be encoded as JSON: %w", err)
	}
	return data, "json", nil
}
