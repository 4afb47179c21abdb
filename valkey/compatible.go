package valkey

import (
	"context"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// compatible is the store without the extensions: every transition is one of the
// compatible functions, which FlowFabric in Rust has too, and what they do not do is
// done by plain commands around them. It gives what the rules of package lifecycle
// say, with more round trips:
//
//   - What a function decides by itself is left to it: fences, leases, dueness.
//   - What it does not check or write is checked and written in a transaction on the
//     record ([compatible.watched]): the rule decides, the function does it.
//   - Listings and counts read all executions that may match, because the compatible
//     functions keep no index by age and no counts.
//   - There is no log of all events. Those of one execution are its lease history.
//
// A process that dies between a function and what follows it leaves at worst an
// entry that a loop completes: indexes are repaired, entries that are over are
// passed by.
type compatible struct {
	*Store
	rounds rounds
	// limit is how long a transaction may take.
	limit time.Duration
}

var _ ff.Backend = (*compatible)(nil)

// compatiblePoll is how often who waits looks: the reference's library does not
// publish what becomes claimable.
const compatiblePoll = 500 * time.Millisecond

func newCompatible(s *Store) *compatible {
	c := &compatible{Store: s, limit: defaultTimeout}
	if b, ok := s.client.(*bounded); ok {
		c.limit = b.timeout
	}
	s.ways = ways{claim: c.claimIn, find: c.findLost, poll: compatiblePoll}
	return c
}

// glimpse is a part of a record: some fields by name, without those that are empty.
type glimpse map[string]string

// holderFields are what the calls of a holder need.
var holderFields = []string{"lane_id", "current_attempt_index", "current_worker_instance_id", "current_waitpoint_id", "current_lease_id",
	"current_lease_epoch", "current_attempt_id", "lease_expires_at", "failure_reason", "failure_category"}

// holding is where an execution is and who has it. A record that lacks something
// gives what the functions take for it (spec 03 §30).
func (g glimpse) holding() holding {
	h := holding{lane: ff.LaneID(orElse(g["lane_id"], "default")), instance: ff.WorkerInstanceID(g["current_worker_instance_id"])}
	h.attempt, _ = strconv.Atoi(g["current_attempt_index"])
	var err error
	if h.waitpoint, err = ff.ParseWaitpointID(g["current_waitpoint_id"]); err != nil || h.waitpoint.IsZero() {
		h.waitpoint = ff.WaitpointID(uuid.New())
	}
	return h
}

// fence is that of the caller, or for an operator the one in force, so that what
// was read is what the function acts on.
func (g glimpse) fence(f ff.Fence, source ff.CancelSource) [3]string {
	if f.IsZero() && source == ff.SourceOperatorOverride && g["current_lease_id"] != "" {
		return [3]string{g["current_lease_id"], g["current_lease_epoch"], g["current_attempt_id"]}
	}
	return [3]string(fenceArgs(f))
}

func (s *compatible) glimpseCommand(id ff.ExecutionID, fields []string) valkey.Completed {
	return s.client.B().Hmget().Key(keysOf(id).core()).Field(fields...).Build()
}

// glimpses reads fields of several executions, and the server's clock. An execution
// that does not exist has no glimpse.
func (s *compatible) glimpses(ctx context.Context, ids []ff.ExecutionID, fields ...string) (list []glimpse, now time.Time, err error) {
	commands := []valkey.Completed{s.client.B().Time().Build()}
	for _, id := range ids {
		commands = append(commands, s.glimpseCommand(id, fields))
	}
	results := s.send(ctx, commands...)
	if now, err = instantOf(results[0]); err != nil {
		return nil, now, s.lift(ctx, err)
	}
	for _, r := range results[1:] {
		g, err := glimpseOf(r, fields)
		if err != nil {
			return nil, now, s.lift(ctx, err)
		}
		list = append(list, g)
	}
	return list, now, nil
}

// glimpse reads fields of an execution. Errors: execution_not_found.
func (s *compatible) glimpse(ctx context.Context, id ff.ExecutionID, fields ...string) (glimpse, time.Time, error) {
	list, now, err := s.glimpses(ctx, []ff.ExecutionID{id}, fields...)
	if err != nil {
		return nil, now, err
	}
	if list[0] == nil {
		return nil, now, ff.NewError(ff.CodeExecutionNotFound, id.String())
	}
	return list[0], now, nil
}

func glimpseOf(r valkey.ValkeyResult, fields []string) (g glimpse, err error) {
	values, err := r.ToArray()
	if err != nil {
		return nil, err
	}
	for i := range values {
		if values[i].IsNil() {
			continue
		}
		if g == nil {
			g = glimpse{}
		}
		if v, err := values[i].ToString(); err != nil {
			return nil, err
		} else if v != "" {
			g[fields[i]] = v
		}
	}
	return g, nil
}

// instantOf reads what TIME answers.
func instantOf(r valkey.ValkeyResult) (time.Time, error) {
	list, err := r.AsIntSlice()
	if err != nil {
		return time.Time{}, err
	}
	if len(list) < 2 {
		return time.Time{}, ff.NewError(ff.CodeTransport, "TIME returned fewer than 2 elements")
	}
	return time.UnixMilli(list[0]*1000 + list[1]/1000), nil
}

// send runs commands in one pipeline per node. On a cluster those without a key, which
// the client does not mix with others, go by themselves.
func (s *compatible) send(ctx context.Context, commands ...valkey.Completed) []valkey.ValkeyResult {
	if !s.cluster {
		return s.client.DoMulti(ctx, commands...)
	}
	results := make([]valkey.ValkeyResult, len(commands))
	var keyed []valkey.Completed
	var at []int
	for i, c := range commands {
		if name := c.Commands()[0]; name == "TIME" || name == "PUBLISH" {
			results[i] = s.client.Do(ctx, c)
		} else {
			keyed, at = append(keyed, c), append(at, i)
		}
	}
	if len(keyed) > 0 {
		for n, r := range s.client.DoMulti(ctx, keyed...) {
			results[at[n]] = r
		}
	}
	return results
}

// all runs plain commands in one pipeline and gives the first error. It follows what
// a function has done: whoever called it gets its answer even when this fails.
func (s *compatible) all(ctx context.Context, commands ...valkey.Completed) error {
	for _, r := range s.send(ctx, commands...) {
		if err := r.Error(); err != nil && !valkey.IsValkeyNil(err) {
			return s.lift(ctx, err)
		}
	}
	return nil
}

// follow is all for what a loop would complete otherwise.
func (s *compatible) follow(ctx context.Context, commands ...valkey.Completed) {
	if len(commands) == 0 {
		return
	}
	if err := s.all(ctx, commands...); err != nil {
		s.log.Warn("what follows a transition could not be written; a loop completes it", "err", err)
	}
}

// wake tells one who waits for work in a lane of a partition, as the functions of
// our library do.
func (s *compatible) wake(ctx context.Context, p uint16, lane ff.LaneID) {
	n, err := s.client.Do(ctx, s.client.B().Del().Key(tagOf(p).waiting(lane)).Build()).AsInt64()
	if err == nil && n == 1 {
		s.follow(ctx, s.client.B().Publish().Channel(wakeChannel).Message(string(tagOf(p))+string(lane)).Build())
	}
}

// tellDue tells the loops of engines that something may be due earlier than they
// know.
func (s *compatible) tellDue(ctx context.Context, at time.Time) {
	s.follow(ctx, s.dueCommand(at))
}

func (s *compatible) dueCommand(at time.Time) valkey.Completed { return s.dueOf(ff.SweepDelayed, at) }

func (s *compatible) dueOf(kind ff.SweepKind, at time.Time) valkey.Completed {
	return s.client.B().Publish().Channel(dueChannel).Message(string(kind) + " " + ms(at)).Build()
}
