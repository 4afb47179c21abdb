package valkey

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/valkey-io/valkey-go"
)

// bounded is a client of which every command ends after the timeout of the store,
// or with its context when that ends before. The client below repeats reads for
// ever while no server is there, and who calls while another caller is making the
// connection waits for that one.
type bounded struct {
	valkey.Client
	timeout time.Duration
	// answered is when an answer last came, in nanoseconds; 0 after an error of the
	// connection. Lately, it is taken for granted that calls need not wait for a
	// connection.
	answered atomic.Int64
}

// trusted is how long an answer vouches for the connection.
const trusted = time.Second

// errNoAnswer is the end of a command that the timeout ended.
type errNoAnswer time.Duration

func (e errNoAnswer) Error() string { return fmt.Sprintf("no answer within %s", time.Duration(e)) }

// Timeout makes it a timeout as those of package net.
func (errNoAnswer) Timeout() bool { return true }

func (b *bounded) Do(ctx context.Context, c valkey.Completed) valkey.ValkeyResult {
	return within(ctx, b, func(ctx context.Context) []valkey.ValkeyResult {
		return []valkey.ValkeyResult{b.Client.Do(ctx, c)}
	}, 1)[0]
}

func (b *bounded) DoMulti(ctx context.Context, c ...valkey.Completed) []valkey.ValkeyResult {
	if len(c) == 0 {
		return nil
	}
	return within(ctx, b, func(ctx context.Context) []valkey.ValkeyResult { return b.Client.DoMulti(ctx, c...) }, len(c))
}

// within makes n commands. The client watches the context once they are on their
// way, but not while it waits for a connection.
func within(ctx context.Context, b *bounded, do func(context.Context) []valkey.ValkeyResult, n int) []valkey.ValkeyResult {
	limited, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	var results []valkey.ValkeyResult
	if time.Now().UnixNano()-b.answered.Load() < int64(trusted) {
		results = do(limited)
	} else {
		answers := make(chan []valkey.ValkeyResult, 1)
		go func() { answers <- do(limited) }()
		select {
		case results = <-answers:
		case <-limited.Done():
			results = make([]valkey.ValkeyResult, n)
			for i := range results {
				results[i] = valkey.NewErrorResult(limited.Err())
			}
		}
	}
	broken := false
	for i := range results {
		err := results[i].NonValkeyError()
		if err == nil {
			continue
		}
		broken = true
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			results[i] = valkey.NewErrorResult(errNoAnswer(b.timeout))
		}
	}
	if broken {
		b.answered.Store(0)
	} else {
		b.answered.Store(time.Now().UnixNano())
	}
	return results
}
