package valkey

import (
	"context"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// AppendFrames appends frames with a call each, in one transaction: the rule says
// beforehand whether all of them may be appended, because a function that refuses one
// does not take back the others.
func (s *compatible) AppendFrames(ctx context.Context, c ff.AppendFrames) (ff.AppendFramesResult, error) {
	args, err := lifecycle.PrepareAppend(&c)
	if err != nil {
		return ff.AppendFramesResult{}, err
	}
	if len(c.Frames) == 1 && !args.Patches() {
		return s.appendOne(ctx, &c)
	}
	keys := []string{keysOf(c.ID).core()}
	answers, err := s.watched(ctx, keys, func(ctx context.Context, d valkey.DedicatedClient) ([]valkey.Completed, error) {
		attempt, err := s.mayAppend(ctx, d, &args)
		if err != nil {
			return nil, err
		}
		var commands []valkey.Completed
		for i := range c.Frames {
			call := callAppendFrame(&c, &c.Frames[i], attempt)
			commands = append(commands, s.completed(&call))
		}
		return append(commands, s.client.B().Del().Key(keysOf(c.ID).tails()).Build()), nil
	})
	if err != nil {
		return ff.AppendFramesResult{}, err
	}
	return s.appended(ctx, &c, answers)
}

// appendOne leaves the decision to the function, but for the id of the attempt, which it
// does not compare.
func (s *compatible) appendOne(ctx context.Context, c *ff.AppendFrames) (r ff.AppendFramesResult, err error) {
	list, _, err := s.glimpses(ctx, []ff.ExecutionID{c.ID}, "current_attempt_index", "current_attempt_id")
	if err != nil {
		return r, err
	}
	call := callAppendFrame(c, &c.Frames[0], list[0].holding().attempt)
	if list[0]["current_attempt_id"] != c.Fence.AttemptID.String() {
		call.args[2] = "of another attempt" // no lease has this id
	}
	results := s.send(ctx, s.completed(&call), s.client.B().Del().Key(keysOf(c.ID).tails()).Build())
	answers := make([]valkey.ValkeyMessage, len(results))
	for i, result := range results {
		answers[i], err = result.ToMessage()
		if i == 0 && isMissing(err) {
			answers[i], err = s.do(ctx, &call)
		}
		if err != nil {
			return r, s.lift(ctx, err)
		}
	}
	return s.appended(ctx, c, answers)
}

// appended reads the answers to the calls. Who waits for frames is told, as the
// functions of our library do.
func (s *compatible) appended(ctx context.Context, c *ff.AppendFrames, answers []valkey.ValkeyMessage) (r ff.AppendFramesResult, err error) {
	texts := make([]string, len(c.Frames))
	for i := range c.Frames {
		if err := answers[i].Error(); err != nil {
			return r, s.lift(ctx, err)
		}
		a, err := readReply("ff_append_frame", &answers[i])
		if err != nil {
			return r, err
		}
		texts[i], r.Count = a.text(0), a.number(1)
		if n := a.number(2); n > 0 {
			r.SummaryVersion = n
		}
	}
	if n, err := answers[len(c.Frames)].AsInt64(); err == nil && n == 1 {
		s.follow(ctx, s.client.B().Publish().Channel(streamChannel).Message(c.ID.String()).Build())
	}
	r.IDs, err = frameIDs(texts)
	return r, err
}

var appendFields = []string{"lifecycle_phase", "ownership_state", "current_attempt_index", "current_lease_id", "current_lease_epoch", "current_attempt_id",
	"lease_expires_at"}

// mayAppend decides by the rule and gives the index of the attempt.
func (s *compatible) mayAppend(ctx context.Context, d valkey.DedicatedClient, args *lifecycle.AppendArgs) (attempt int, err error) {
	results := d.DoMulti(ctx, s.glimpseCommand(args.ID, appendFields), d.B().Time().Build())
	g, err := glimpseOf(results[0], appendFields)
	if err != nil {
		return 0, damage(args.ID, s.lift(ctx, err))
	}
	now, err := instantOf(results[1])
	if err != nil {
		return 0, s.lift(ctx, err)
	}
	f := fieldsOf(args.ID, g)
	x := &ff.Execution{ID: args.ID, State: ff.StateVector{Phase: ff.LifecyclePhase(g["lifecycle_phase"]), Ownership: ff.OwnershipState(g["ownership_state"])},
		Lease:      ff.Lease{ID: parsed(f, "current_lease_id", ff.ParseLeaseID), ExpiresAt: f.instant("lease_expires_at")},
		LeaseEpoch: f.epoch("current_lease_epoch"), CurrentAttemptID: parsed(f, "current_attempt_id", ff.ParseAttemptID)}
	attempt = f.count("current_attempt_index")
	if f.err != nil {
		return 0, f.err
	}
	summary, err := s.summaryBefore(ctx, d, args, attempt)
	if err != nil {
		return 0, err
	}
	_, err = lifecycle.Append(x, &lifecycle.Stream{}, summary, args, now)
	return attempt, err
}

// summaryBefore reads the summary that an append changes.
func (s *compatible) summaryBefore(ctx context.Context, d valkey.DedicatedClient, args *lifecycle.AppendArgs, attempt int) (*lifecycle.Summary, error) {
	if !args.Patches() {
		return nil, nil
	}
	key := keysOf(args.ID).summary(attempt)
	results := d.DoMulti(ctx, d.B().Watch().Key(key).Build(), d.B().Hmget().Key(key).Field(summaryFields...).Build())
	values, err := results[1].ToArray()
	if err != nil {
		return nil, s.lift(ctx, err)
	}
	before, err := summaryOf(ff.StreamRef{ID: args.ID, AttemptIndex: attempt}, values)
	if err != nil {
		return nil, err
	}
	return lifecycle.ReadSummary(before)
}
