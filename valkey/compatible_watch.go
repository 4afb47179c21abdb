package valkey

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// watchTries bounds how often a transaction begins again because another client was
// faster.
const watchTries = 50

// errAgain begins a transaction again.
var errAgain = errors.New("begin again")

// look reads what a transaction depends on and says which commands it consists of;
// none when nothing is to be done.
type look func(ctx context.Context, c valkey.DedicatedClient) ([]valkey.Completed, error)

// watched runs a transaction: the commands that look gives are run together, unless
// somebody has changed one of the keys since look began; then it looks again. All
// keys are of one partition. The answers are those of the commands; none when there
// was nothing to do.
func (s *compatible) watched(ctx context.Context, keys []string, look look) (answers []valkey.ValkeyMessage, err error) {
	for try := range watchTries {
		if err := s.open(); err != nil {
			return nil, err
		}
		answers, err = s.transactIn(ctx, s.limit, keys, look)
		if !errors.Is(err, errAgain) {
			return answers, err
		}
		if try > 3 {
			select {
			case <-time.After(time.Duration(try) * time.Millisecond):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
	return nil, ff.NewError(ff.CodeRetryExhausted, "others change the execution all the time: retry")
}

// transactIn runs a transaction on a connection of its own, which has to end in time.
func (s *compatible) transactIn(ctx context.Context, limit time.Duration, keys []string, look look) (answers []valkey.ValkeyMessage, err error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = s.client.Dedicated(func(c valkey.DedicatedClient) error {
		answers, err = s.transact(limited, c, keys, look)
		return err
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, s.lift(ctx, errNoAnswer(limit))
	}
	return answers, err
}

func (s *compatible) transact(ctx context.Context, c valkey.DedicatedClient, keys []string, look look) ([]valkey.ValkeyMessage, error) {
	// The connection may have watched something before.
	for _, r := range c.DoMulti(ctx, c.B().Unwatch().Build(), c.B().Watch().Key(keys...).Build()) {
		if err := r.Error(); err != nil {
			return nil, s.againOr(ctx, err)
		}
	}
	commands, err := look(ctx, c)
	if err != nil || len(commands) == 0 {
		return nil, err
	}
	batch := append(append([]valkey.Completed{c.B().Multi().Build()}, commands...), c.B().Exec().Build())
	results := c.DoMulti(ctx, batch...)
	answers, err := results[len(results)-1].ToArray()
	if valkey.IsValkeyNil(err) {
		return nil, errAgain
	}
	if err != nil {
		return nil, s.againOr(ctx, firstRefusal(results, err))
	}
	for i := range answers {
		if err := answers[i].Error(); isMissing(err) {
			if err := s.reload(ctx); err != nil {
				return nil, err
			}
			return nil, errAgain
		}
	}
	return answers, nil
}

// firstRefusal is why a transaction was not accepted: its own error says less.
func firstRefusal(results []valkey.ValkeyResult, err error) error {
	for _, r := range results {
		if e := r.Error(); e != nil {
			return e
		}
	}
	return err
}

// againOr lifts an error, unless the slot of the keys has just moved.
func (s *compatible) againOr(ctx context.Context, err error) error {
	if e, ok := valkey.IsValkeyErr(err); ok && (strings.HasPrefix(e.Error(), "MOVED") || strings.HasPrefix(e.Error(), "ASK")) {
		return errAgain
	}
	return s.lift(ctx, err)
}

// deed is a call with the commands before and behind it that belong to it. Without a
// call and commands nothing is to be done.
type deed struct {
	before []valkey.Completed
	call   *call
	after  []valkey.Completed
}

// commit runs a call in a transaction, and reads its answer. The reply is nil when
// there was nothing to call.
func (s *compatible) commit(ctx context.Context, keys []string, look func(ctx context.Context, c valkey.DedicatedClient) (deed, error)) (reply, error) {
	var d deed
	answers, err := s.watched(ctx, keys, func(ctx context.Context, c valkey.DedicatedClient) (commands []valkey.Completed, err error) {
		if d, err = look(ctx, c); err != nil {
			return nil, err
		}
		commands = d.before
		if d.call != nil {
			commands = append(commands, s.completed(d.call))
		}
		return append(commands, d.after...), nil
	})
	if err != nil || len(answers) == 0 || d.call == nil {
		return nil, err
	}
	answer := &answers[len(d.before)]
	if err := answer.Error(); err != nil {
		return nil, s.lift(ctx, err)
	}
	for i := range answers {
		if err := answers[i].Error(); err != nil {
			s.log.Error("a part of a transaction failed", "function", d.call.function, "err", err)
		}
	}
	return readReply(d.call.function, answer)
}
