package valkey

import (
	"context"
	"slices"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// purge deletes an execution whose retention is over, with everything that belongs to
// it (spec 06 §5.7): nobody can replay it meanwhile.
func (s *compatible) purge(ctx context.Context, e *dueEntry, now time.Time) (done, left bool, err error) {
	k := keysOf(e.id)
	answers, err := s.watched(ctx, []string{k.core()}, func(ctx context.Context, c valkey.DedicatedClient) ([]valkey.Completed, error) {
		done, left = false, false
		x, err := s.endOf(ctx, c, e.id)
		if err != nil {
			return nil, err
		}
		until := x.RetentionUntil(s.retention)
		if left = x.Terminal() && until.After(now); left {
			return nil, nil
		}
		if !x.Terminal() || until.IsZero() {
			// It was replayed, or is gone.
			return []valkey.Completed{c.B().Zrem().Key(e.index.key).Member(e.text).Build()}, nil
		}
		done = true
		doomed, waitpoints, err := s.belongings(ctx, c, x)
		commands := append(s.unlink(c, doomed), s.forgetting(x)...)
		if len(waitpoints) > 0 {
			commands = append(commands, c.B().Zrem().Key(tagOf(e.index.p).pendingWaitpoints()).Member(waitpoints...).Build())
		}
		return commands, err
	})
	return done && len(answers) > 0, left, err
}

// endOf reads what decides about the retention of an execution. One that is gone is
// in no phase.
func (s *compatible) endOf(ctx context.Context, c valkey.DedicatedClient, id ff.ExecutionID) (*ff.Execution, error) {
	fields := []string{"lifecycle_phase", "completed_at", "total_attempt_count", "lane_id", "terminal_outcome"}
	results := c.DoMulti(ctx, s.glimpseCommand(id, fields), c.B().Get().Key(keysOf(id).policy()).Build())
	g, err := glimpseOf(results[0], fields)
	if err != nil {
		return nil, s.lift(ctx, err)
	}
	f := fieldsOf(id, g)
	x := &ff.Execution{ID: id, Lane: g.holding().lane, CompletedAt: f.instant("completed_at"), TotalAttempts: f.count("total_attempt_count"),
		State: ff.StateVector{Phase: ff.LifecyclePhase(g["lifecycle_phase"]), Outcome: ff.TerminalOutcome(g["terminal_outcome"])}}
	if text, err := results[1].AsBytes(); err == nil && len(text) > len("{}") {
		if x.Policy, err = ff.ParseExecutionPolicy(text); err != nil {
			return nil, err
		}
	}
	return x, f.err
}

// belongings are the keys of an execution, but for its core, and the ids of its
// waitpoints.
func (s *compatible) belongings(ctx context.Context, c valkey.DedicatedClient, x *ff.Execution) (doomed, waitpoints []string, err error) {
	k, t := keysOf(x.ID), tagOf(x.ID.Partition())
	results := c.DoMulti(ctx, c.B().Smembers().Key(k.base+":deps:all_edges").Build(), c.B().Smembers().Key(k.base+":waitpoints").Build(),
		c.B().Zrange().Key(k.base+":signals").Min("0").Max("-1").Build(), c.B().Smembers().Key(k.suspendKeys()).Build())
	var lists [4][]string
	for i, r := range results {
		if lists[i], err = r.AsStrSlice(); err != nil {
			return nil, nil, s.lift(ctx, err)
		}
	}
	for _, name := range []string{"payload", "result", "tags", "lease:current", "lease:history", "claim_grant", "attempts", "suspension:current",
		"suspension:current:satisfied_set", "suspension:current:satisfied_set:signals", "suspension:current:member_map",
		"deps:meta", "deps:unresolved", "deps:all_edges", "waitpoints", "signals", "policy"} {
		doomed = append(doomed, k.base+":"+name)
	}
	for n := range x.TotalAttempts {
		doomed = append(doomed, k.attempt(n), k.attemptUsage(n), k.attemptPolicy(n), k.summary(n), k.stream(n), k.streamMeta(n))
	}
	for _, edge := range lists[0] {
		doomed = append(doomed, k.base+":dep:"+edge)
	}
	for _, waitpoint := range lists[1] {
		key := "ff:wp:" + string(t) + ":" + waitpoint
		doomed = append(doomed, key, key+":signals", key+":condition")
	}
	for _, signal := range lists[2] {
		key := "ff:signal:" + string(t) + ":" + signal
		doomed = append(doomed, key, key+":payload")
	}
	keys, err := s.signalKeys(ctx, c, x.ID, lists[2])
	doomed = append(append(doomed, keys...), lists[3]...)
	return append(doomed, k.events(), k.tails(), k.suspendKeys()), lists[1], err
}

// signalKeys are the idempotency keys of signals.
func (s *compatible) signalKeys(ctx context.Context, c valkey.DedicatedClient, id ff.ExecutionID, signals []string) (keys []string, err error) {
	t := string(tagOf(id.Partition()))
	for some := range slices.Chunk(signals, signalsTogether) {
		commands := make([]valkey.Completed, len(some))
		for i, signal := range some {
			commands[i] = c.B().Hmget().Key("ff:signal:"+t+":"+signal).Field("target_waitpoint_id", "idempotency_key").Build()
		}
		for _, r := range c.DoMulti(ctx, commands...) {
			v, err := r.ToArray()
			if err != nil {
				return nil, s.lift(ctx, err)
			}
			if waitpoint, key := reply(v).text(0), reply(v).text(1); waitpoint != "" && key != "" {
				keys = append(keys, "ff:sigdedup:"+t+":"+waitpoint+":"+key)
			}
		}
	}
	return keys, nil
}

func (s *compatible) unlink(c valkey.DedicatedClient, doomed []string) (commands []valkey.Completed) {
	const together = 500
	for len(doomed) > 0 {
		n := min(together, len(doomed))
		commands = append(commands, c.B().Unlink().Key(doomed[:n]...).Build())
		doomed = doomed[n:]
	}
	return commands
}

// forgetting deletes the core and takes an execution out of all indexes that it may be
// in when it has ended.
func (s *compatible) forgetting(x *ff.Execution) (commands []valkey.Completed) {
	t, b, id := tagOf(x.ID.Partition()), s.client.B(), x.ID.String()
	commands = append(commands, b.Del().Key(keysOf(x.ID).core()).Build(), b.Srem().Key(t.allExecutions()).Member(id).Build())
	for _, key := range []string{t.lane(x.Lane, laneTerminal), t.created(), t.retention(), t.grants(), t.outcome(x.Lane, x.State.Outcome)} {
		commands = append(commands, b.Zrem().Key(key).Member(id).Build())
	}
	return commands
}

func fieldsOf(id ff.ExecutionID, g glimpse) *fields {
	return &fields{hash: "execution " + id.String(), m: g}
}
