package valkey

import (
	"context"
	"strconv"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// grantUse is the use of one grant.
type grantUse struct {
	c     *candidate
	who   *ff.Claimant
	lease lease

	payload []byte
	attempt map[string]string
	// now is the server's clock at the claim.
	now     time.Time
	claimed ff.Claimed
	err     error
}

func newGrantUse(c *candidate, who *ff.Claimant, ttl time.Duration) *grantUse {
	k := &grantUse{c: c, who: who, lease: lease{id: ff.NewLeaseID(), attempt: ff.NewAttemptID(), ttl: ttl}}
	if p := c.x.Policy; p != nil && p.Timeout != nil {
		k.lease.timeout = p.Timeout.Attempt
	}
	return k
}

func (k *grantUse) args() lifecycle.ClaimArgs {
	return lifecycle.ClaimArgs{Claimant: *k.who, LeaseID: k.lease.id, AttemptID: k.lease.attempt, LeaseTTL: k.lease.ttl}
}

func (k *grantUse) resumes() bool {
	return !lost(&k.c.x) && k.c.x.State.Attempt == ff.AttemptInterrupted
}

// useGrants claims what was granted. Each has its own error, which the answer of its
// function is; an error of all is one of the preparation.
func (s *compatible) useGrants(ctx context.Context, list []*grantUse) error {
	if err := s.prepareUse(ctx, list); err != nil {
		for _, k := range list {
			k.err = err
		}
		return err
	}
	calls := make([]call, len(list))
	for i, k := range list {
		calls[i] = k.call()
	}
	var follow []valkey.Completed
	for i, answer := range s.doMulti(ctx, calls) {
		k := list[i]
		var r reply
		if k.err = answer.err; k.err == nil {
			r, k.err = readReply(calls[i].function, &answer.m)
		}
		if k.err == nil {
			k.err = s.took(ctx, k, r)
			follow = append(follow, s.armed(k)...)
		} else if ff.CodeOf(k.err) == ff.CodeMaxRetriesExhausted {
			follow = append(follow, s.exhausted(k)...)
		}
	}
	s.follow(ctx, follow...)
	return nil
}

// prepareUse reads what a claim hands over, and clears what an earlier lease has
// left (quirks 03 Q9, Q15): nobody else can take the executions meanwhile.
func (s *compatible) prepareUse(ctx context.Context, list []*grantUse) error {
	var commands []valkey.Completed
	var read []func(valkey.ValkeyResult) error
	add := func(command valkey.Completed, into func(valkey.ValkeyResult) error) {
		commands, read = append(commands, command), append(read, into)
	}
	written := func(r valkey.ValkeyResult) error { return r.Error() }
	add(s.client.B().Time().Build(), func(r valkey.ValkeyResult) error {
		now, err := instantOf(r)
		for _, k := range list {
			k.now = now
		}
		return err
	})
	for _, k := range list {
		b, keys, core := s.client.B(), keysOf(k.c.id), k.c.parts.core
		add(b.Get().Key(keys.payload()).Build(), func(r valkey.ValkeyResult) (err error) {
			if k.payload, err = r.AsBytes(); valkey.IsValkeyNil(err) {
				err = nil
			}
			return err
		})
		if k.resumes() {
			add(b.Hgetall().Key(keys.attempt(k.c.x.Attempt.Index)).Build(), func(r valkey.ValkeyResult) (err error) {
				k.attempt, err = r.AsStrMap()
				return err
			})
		}
		if lost(&k.c.x) {
			add(b.Zrem().Key(tagOf(k.c.id.Partition()).attemptTimeout()).Member(k.c.id.String()).Build(), written)
		} else if core["lease_expired_at"] != "" || core["lease_revoked_at"] != "" {
			add(hset(b, keys.core(), "lease_expired_at", "", "lease_revoked_at", "", "lease_revoke_reason", ""), written)
		}
	}
	for i, r := range s.send(ctx, commands...) {
		if err := read[i](r); err != nil {
			return s.lift(ctx, err)
		}
	}
	return nil
}

func (k *grantUse) call() call {
	x := &k.c.x
	switch {
	case lost(x):
		return callReclaim(x.ID, x.Lane, x.Attempt.Index, x.TotalAttempts, k.who, &k.lease)
	case k.resumes():
		return callClaimResumed(x.ID, x.Lane, x.Attempt.Index, k.who, &k.lease)
	}
	return callClaimFresh(x.ID, x.Lane, x.TotalAttempts, k.who, &k.lease)
}

// took makes the record after the claim by the rule. When the execution had changed
// between the look at it and the grant, it is read again.
func (s *compatible) took(ctx context.Context, k *grantUse, r reply) error {
	k.now = time.UnixMilli(r.number(2)).Add(-k.lease.ttl.Truncate(time.Millisecond))
	how := "fresh"
	if k.resumes() {
		how, k.c.parts.attempt = "resumed", k.attempt
	}
	k.c.parts.core["total_attempt_count"] = strconv.Itoa(k.c.x.TotalAttempts)
	k.claimed.Payload = k.payload
	x, err := k.c.parts.before(k.c.id, how)
	if err == nil {
		x.Grant = ff.Grant{}
		args := k.args()
		k.claimed.Resumed, _, err = lifecycle.Claim(&x, &args, k.now)
	}
	if err == nil && int64(x.LeaseEpoch) == r.number(1) && int64(x.Attempt.Index) == r.number(4) {
		k.claimed.Execution = x
		return nil
	}
	k.claimed.Resumed = how == "resumed"
	again := s.describe(ctx, []ff.ExecutionID{k.c.id})[0]
	k.claimed.Execution = again.x
	return again.err
}

// armed bounds the attempt that a reclaim has started, and takes the execution out
// of the index of what is lost.
func (s *compatible) armed(k *grantUse) []valkey.Completed {
	if !lost(&k.c.x) {
		return nil
	}
	t, id, b := tagOf(k.c.id.Partition()), k.c.id.String(), s.client.B()
	commands := []valkey.Completed{b.Zrem().Key(t.lost(k.c.x.Lane)).Member(id).Build()}
	if k.lease.timeout > 0 {
		at := float64(k.now.Add(k.lease.timeout).UnixMilli())
		commands = append(commands, b.Zadd().Key(t.attemptTimeout()).ScoreMember().ScoreMember(at, id).Build())
	}
	return commands
}

// exhausted completes the end of an execution that was taken over too often: the
// function leaves the attempt open (quirk 03 Q16).
func (s *compatible) exhausted(k *grantUse) []valkey.Completed {
	ended := k.c.x
	ended.Attempt.State, ended.Attempt.FailureReason, ended.Attempt.FailureCategory = ff.AttemptEndedFailure, "max_reclaims_exceeded", ""
	return s.ending(&k.c.x, &ended, k.now)
}
