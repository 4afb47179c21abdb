package valkey

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/valkey-io/valkey-go"
)

// bounded is a client of which every command ends after the timeout of the store,
// or with its context when that ends before. The client below repeats reads for
// ever while no server is there, and who calls while another caller is making a
// connection waits for that one, whatever its context says.
type bounded struct {
	valkey.Client
	timeout time.Duration
}

// errNoAnswer is the end of a command that the timeout ended.
type errNoAnswer time.Duration

func (e errNoAnswer) Error() string { return fmt.Sprintf("no answer within %s", time.Duration(e)) }

// Timeout makes it a timeout as those of package net.
func (errNoAnswer) Timeout() bool { return true }

func (b *bounded) Do(ctx context.Context, c valkey.Completed) valkey.ValkeyResult {
	limited, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	answer := make(chan valkey.ValkeyResult, 1)
	go func() { answer <- b.Client.Do(limited, c) }()
	select {
	case r := <-answer:
		return b.blame(ctx, r)
	case <-limited.Done():
		return b.blame(ctx, valkey.NewErrorResult(limited.Err()))
	}
}

func (b *bounded) DoMulti(ctx context.Context, c ...valkey.Completed) []valkey.ValkeyResult {
	limited, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	answers := make(chan []valkey.ValkeyResult, 1)
	go func() { answers <- b.Client.DoMulti(limited, c...) }()
	var results []valkey.ValkeyResult
	select {
	case results = <-answers:
	case <-limited.Done():
		results = make([]valkey.ValkeyResult, len(c))
		for i := range results {
			results[i] = valkey.NewErrorResult(limited.Err())
		}
	}
	for i := range results {
		results[i] = b.blame(ctx, results[i])
	}
	return results
}

// blame tells a timeout of the store from one of the caller.
func (b *bounded) blame(ctx context.Context, r valkey.ValkeyResult) valkey.ValkeyResult {
	if errors.Is(r.NonValkeyError(), context.DeadlineExceeded) && ctx.Err() == nil {
		return valkey.NewErrorResult(errNoAnswer(b.timeout))
	}
	return r
}
