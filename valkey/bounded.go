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
// ever while no server is there, and who calls while another caller is making a
// connection waits for that one, whatever its context says.
//
// While answers come, commands are sent as they are, under a context that ends with
// the timeout: that is enough on a connection that works. Otherwise each has a
// goroutine of its own, which its caller does not wait for longer than it may; the
// client ends it when its context has ended or when it is closed.
type bounded struct {
	valkey.Client
	timeout time.Duration
	// answered is when the last answer came, in nanoseconds of the Unix epoch; 0
	// after a failure.
	answered atomic.Int64
}

// workingFor is how long an answer shows that the connection works.
const workingFor = time.Second

func (b *bounded) works() bool { return time.Now().UnixNano()-b.answered.Load() < int64(workingFor) }

// note remembers whether an answer came.
func (b *bounded) note(r *valkey.ValkeyResult) {
	if r.NonValkeyError() != nil {
		b.answered.Store(0)
		return
	}
	b.answered.Store(time.Now().UnixNano())
}

// errNoAnswer is the end of a command that the timeout ended.
type errNoAnswer time.Duration

func (e errNoAnswer) Error() string { return fmt.Sprintf("no answer within %s", time.Duration(e)) }

// Timeout makes it a timeout as those of package net.
func (errNoAnswer) Timeout() bool { return true }

func (b *bounded) Do(ctx context.Context, c valkey.Completed) valkey.ValkeyResult {
	limited, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	if b.works() {
		return b.blame(ctx, b.Client.Do(limited, c))
	}
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
	var results []valkey.ValkeyResult
	if b.works() {
		results = b.Client.DoMulti(limited, c...)
	} else {
		results = b.apart(limited, c)
	}
	for i := range results {
		results[i] = b.blame(ctx, results[i])
	}
	return results
}

// apart is DoMulti in a goroutine of its own.
func (b *bounded) apart(limited context.Context, c []valkey.Completed) []valkey.ValkeyResult {
	answers := make(chan []valkey.ValkeyResult, 1)
	go func() { answers <- b.Client.DoMulti(limited, c...) }()
	select {
	case results := <-answers:
		return results
	case <-limited.Done():
		results := make([]valkey.ValkeyResult, len(c))
		for i := range results {
			results[i] = valkey.NewErrorResult(limited.Err())
		}
		return results
	}
}

// blame tells a timeout of the store from one of the caller.
func (b *bounded) blame(ctx context.Context, r valkey.ValkeyResult) valkey.ValkeyResult {
	b.note(&r)
	if errors.Is(r.NonValkeyError(), context.DeadlineExceeded) && ctx.Err() == nil {
		return valkey.NewErrorResult(errNoAnswer(b.timeout))
	}
	return r
}
