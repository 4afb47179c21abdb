package valkey

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// delivery is a signal on its way.
type delivery struct {
	waits
	in    *lifecycle.SignalInput
	sig   *ff.Signal
	score float64
}

// DeliverSignal sends a signal to a waitpoint.
func (s *compatible) DeliverSignal(ctx context.Context, c ff.DeliverSignal) (r ff.DeliverSignalResult, err error) {
	if err := c.Validate(); err != nil {
		return r, err
	}
	k, t := keysOf(c.ID), tagOf(c.ID.Partition())
	var d *delivery
	var after ff.Execution
	var refused error
	keys := []string{k.core(), k.suspension(), k.signals(), t.waitpoint(c.WaitpointID), t.signal(c.SignalID), signalDedup(&c)}
	_, err = s.commit(ctx, keys, func(ctx context.Context, conn valkey.DedicatedClient) (deed, error) {
		var now time.Time
		if d, now, err = s.readDelivery(ctx, conn, &c); err != nil {
			return deed{}, err
		}
		after = d.x
		if d.sig, _, refused = lifecycle.Deliver(&after, d.in, &c, now); refused != nil {
			return s.refusing(&c, d, refused, now)
		}
		if d.sig == nil {
			return deed{}, nil
		}
		return s.delivering(&c, d, &after), nil
	})
	switch {
	case err != nil || refused != nil:
		return r, cmp.Or(err, refused)
	case d.sig == nil:
		return ff.DeliverSignalResult{SignalID: d.in.First, Duplicate: true}, nil
	case d.sig.Effect == ff.EffectResumed:
		s.woken(ctx, &after)
	}
	return ff.DeliverSignalResult{SignalID: c.SignalID, Effect: d.sig.Effect}, nil
}

// tokenCodes are the refusals that the function also notes in the record.
var tokenCodes = []ff.Code{ff.CodeMissingToken, ff.CodeInvalidToken, ff.CodeTokenExpired}

// forgeryNoted is how often a refused token is noted in the record. Each note makes
// transactions about the execution begin again: forged tokens must not hold up others.
const forgeryNoted = time.Second

// refusing lets the function refuse a token, which it notes.
func (s *compatible) refusing(c *ff.DeliverSignal, d *delivery, err error, now time.Time) (deed, error) {
	if d.in.Waitpoint == nil || !slices.Contains(tokenCodes, ff.CodeOf(err)) {
		return deed{}, err
	}
	noted := time.UnixMilli(textNumber(d.parts.core["last_hmac_validation_failed_at"]))
	if now.Sub(noted).Abs() < forgeryNoted {
		return deed{}, err
	}
	call := callCompatibleDeliver(c, d.x.Lane, 0)
	return deed{call: &call}, nil
}

// readDelivery reads what the rule needs.
func (s *compatible) readDelivery(ctx context.Context, conn valkey.DedicatedClient, c *ff.DeliverSignal) (d *delivery, now time.Time, err error) {
	d = &delivery{}
	if d.waits, now, err = s.readWaits(ctx, conn, c.ID); err != nil {
		return d, now, err
	}
	d.in = &lifecycle.SignalInput{Suspension: d.latest}
	if d.in.Keys, err = s.keyring(ctx, conn.DoMulti, c.ID.Partition()); err != nil {
		return d, now, err
	}
	if d.in.Waitpoint, err = s.waitpointIn(ctx, conn.DoMulti, ff.WaitpointRef{ID: c.ID, WaitpointID: c.WaitpointID}); err != nil {
		return d, now, err
	}
	for i, w := range d.waitpoints { // one record, also when it is one of the suspension
		if w.ID == c.WaitpointID {
			d.waitpoints[i] = d.in.Waitpoint
		}
	}
	return d, now, s.readEarlier(ctx, conn, c, d, now)
}

// readEarlier reads which signals came before.
func (s *compatible) readEarlier(ctx context.Context, conn valkey.DedicatedClient, c *ff.DeliverSignal, d *delivery, now time.Time) error {
	b, k, t := conn.B(), keysOf(c.ID), tagOf(c.ID.Partition())
	results := conn.DoMulti(ctx, b.Zcard().Key(k.signals()).Build(), b.Zcount().Key(k.signals()).Min(ms(now)).Max("("+itoa(now.UnixMilli()+1)).Build(),
		b.Hget().Key(t.signal(c.SignalID)).Field("target_execution_id").Build(), b.Get().Key(signalDedup(c)).Build())
	accepted, err1 := results[0].AsInt64()
	together, err2 := results[1].AsInt64()
	owner, err3 := results[2].ToString()
	first, err4 := results[3].ToString()
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil && !valkey.IsValkeyNil(err) {
			return damage(c.ID, s.lift(ctx, err))
		}
	}
	d.in.Accepted = int(accepted)
	// Signals of one millisecond are kept in their order by fractions of it.
	d.score = float64(now.UnixMilli()) + float64(min(together, 3999))/4000
	switch {
	case first != "" && c.IdempotencyKey != "":
		r, err := deliverResult(first, "")
		d.in.First = r.SignalID
		return err
	case owner == c.ID.String():
		d.in.First = c.SignalID
	case owner != "":
		return ff.InvalidInput("signal_id", "it is that of a signal to another execution")
	}
	return nil
}

// delivering is the call of a delivery with what it does not do.
func (s *compatible) delivering(c *ff.DeliverSignal, d *delivery, after *ff.Execution) deed {
	b, k := s.client.B(), keysOf(c.ID)
	command := *c
	command.MaxSignals = ff.DefaultMaxSignals // the rule has counted
	var call call
	var more []valkey.Completed
	if d.sig.Effect == ff.EffectBuffered {
		call = callBuffer(&command)
		w := d.in.Waitpoint
		more = append(more, hset(b, tagOf(c.ID.Partition()).waitpoint(w.ID), "signal_count", strconv.Itoa(w.Signals), "last_signal_at", ms(w.LastSignalAt)))
	} else {
		delay := c.ResumeDelay
		if delay == 0 {
			delay = d.latest.ResumeDelay
		}
		call = callCompatibleDeliver(&command, d.x.Lane, delay)
		more = append(more, s.settling(d.latest, d.waitpoints)...)
	}
	if d.sig.Effect == ff.EffectResumed {
		more = append(more, s.waking(after)...)
	}
	more = append(more, b.Zadd().Key(k.signals()).ScoreMember().ScoreMember(d.score, c.SignalID.String()).Build())
	return deed{call: &call, after: more}
}

// ListSignals lists the signals of an execution in the order in which they were
// accepted.
func (s *compatible) ListSignals(ctx context.Context, c ff.ListSignals) (out ff.ListSignalsResult, err error) {
	if err := c.Validate(); err != nil {
		return out, err
	}
	at, err := parseSignalCursor(c.Cursor)
	if err != nil {
		return out, err
	}
	if err := s.exists(ctx, c.ID); err != nil {
		return out, err
	}
	var resumed []ff.SignalID
	if c.Resumed {
		latest, err := s.readSuspended(ctx, s.send, c.ID)
		if err != nil || latest == nil || latest.Open() || len(latest.ResumedBy) == 0 {
			return out, err
		}
		resumed = latest.ResumedBy
	}
	limit, size := ff.PageLimit(c.Limit), 0
	err = s.eachSignal(ctx, c.ID, at, func(cursor signalCursor, sig *ff.Signal) bool {
		if !c.WaitpointID.IsZero() && sig.WaitpointID != c.WaitpointID || c.Resumed && !slices.Contains(resumed, sig.ID) {
			at = cursor
			return true
		}
		if len(out.Signals) == limit || size >= ff.MaxSignalBytes {
			out.Next = at.String()
			return false
		}
		at = cursor
		size += len(sig.Payload)
		out.Signals = append(out.Signals, *sig)
		return true
	})
	return out, err
}

// signalsTogether is how many signals are read at once.
const signalsTogether = 100

// eachSignal reads the signals of an execution behind a cursor, until each does not want
// more.
func (s *compatible) eachSignal(ctx context.Context, id ff.ExecutionID, at signalCursor, each func(signalCursor, *ff.Signal) bool) error {
	from := orElse(at.score, "-inf")
	b, t := s.client.B(), tagOf(id.Partition())
	for offset := int64(0); ; offset += signalsTogether {
		entries, err := s.client.Do(ctx, b.Zrangebyscore().Key(keysOf(id).signals()).Min(from).Max("+inf").Withscores().Limit(offset, signalsTogether).Build()).AsZScores()
		if err != nil {
			return damage(id, s.lift(ctx, err))
		}
		var commands []valkey.Completed
		for _, e := range entries {
			key := "ff:signal:" + string(t) + ":" + e.Member
			commands = append(commands, b.Hgetall().Key(key).Build(), b.Get().Key(key+":payload").Build())
		}
		results := s.send(ctx, commands...)
		for i, e := range entries {
			cursor := signalCursor{strconv.FormatFloat(e.Score, 'f', -1, 64), e.Member}
			if cursor.score == at.score && cursor.id <= at.id {
				continue
			}
			hash, err1 := results[2*i].AsStrMap()
			payload, err2 := results[2*i+1].AsBytes()
			if valkey.IsValkeyNil(err2) {
				err2 = nil
			}
			if err := errors.Join(err1, err2); err != nil {
				return damage(id, s.lift(ctx, err))
			}
			if len(hash) == 0 {
				continue
			}
			sig, err := signalOf(id, hash, payload)
			if err != nil {
				return err
			}
			if !each(cursor, &sig) {
				return nil
			}
		}
		if len(entries) < signalsTogether {
			return nil
		}
	}
}
