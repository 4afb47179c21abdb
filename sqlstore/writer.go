package sqlstore

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

const (
	// maxBatch bounds the commands of one transaction, so that nobody waits long
	// for a commit.
	maxBatch = 512
	// yields is how often the writer lets other goroutines run before it commits:
	// callers that the last commit has answered get to send their next command,
	// which then shares this commit.
	yields = 2
)

// command is something to run in the writer's transaction.
type command interface {
	// run does the work. An error that it returns broke the transaction; a
	// refusal by the rules is an answer and stays inside.
	run(*tx) error
	// answer tells the caller. A nil error gives what run found.
	answer(error)
}

// request is a command with a result.
type request[R any] struct {
	fn   func(*tx) (R, error)
	res  R
	err  error
	done chan struct{}
	// taken is set by whoever decides the fate of the request: the writer that
	// runs it, or the caller that withdraws it.
	taken atomic.Bool
	// started says that the writer runs it, perhaps for the second time.
	started bool
}

func (r *request[R]) run(t *tx) (broken error) {
	if !r.started {
		if !r.taken.CompareAndSwap(false, true) {
			return nil
		}
		r.started = true
	}
	defer func() {
		if p := recover(); p != nil {
			broken = fmt.Errorf("panic in a command: %v\n%s", p, debug.Stack())
		}
	}()
	r.res, r.err = r.fn(t)
	if _, ours := ff.AsError(r.err); r.err != nil && !ours {
		return r.err
	}
	return nil
}

func (r *request[R]) answer(err error) {
	if err != nil {
		var none R
		r.res, r.err = none, err
	}
	close(r.done)
}

// write runs fn in the writer's transaction and returns after the commit. When
// ctx ends before the writer has come to the command, the command is withdrawn:
// it does nothing. Later than that it is under way, and write waits for its
// commit: the memory of the caller's arguments is in use until then.
func write[R any](ctx context.Context, s *Store, fn func(*tx) (R, error)) (R, error) {
	var none R
	r := &request[R]{fn: fn, done: make(chan struct{})}
	w := s.writer
	select {
	case <-w.quit:
		return none, errClosed()
	case <-ctx.Done():
		return none, ctx.Err()
	default:
	}
	select {
	case w.queue <- r:
	case <-w.quit:
		return none, errClosed()
	case <-ctx.Done():
		return none, ctx.Err()
	}
	select {
	case <-r.done:
		return r.res, r.err
	case <-ctx.Done():
		if r.taken.CompareAndSwap(false, true) {
			return none, ctx.Err()
		}
	case <-w.stopped:
		if r.taken.CompareAndSwap(false, true) {
			return none, errClosed()
		}
	}
	<-r.done
	return r.res, r.err
}

func errClosed() error {
	return ff.NewError(ff.CodeUnavailable, "the store is closed; open it again")
}

// writer runs commands one after the other, many per transaction.
type writer struct {
	s             *Store
	queue         chan command
	quit, stopped chan struct{}
	batch         []command
	tx            tx
	// batches and commands count what was committed.
	batches, commands int64
	// reported is when failure was logged last, unlogged how many transactions
	// have failed with it since.
	reported time.Time
	failure  string
	unlogged int
}

func newWriter(s *Store, c Conn) (*writer, error) {
	w := &writer{s: s, queue: make(chan command, maxBatch), quit: make(chan struct{}), stopped: make(chan struct{})}
	if err := w.tx.init(s, c); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *writer) stop() {
	close(w.quit)
	<-w.stopped
}

func (w *writer) loop() {
	defer close(w.stopped)
	for {
		select {
		case c := <-w.queue:
			w.serve(c)
			continue
		case <-w.quit:
		}
		for {
			select {
			case c := <-w.queue:
				w.serve(c)
				continue
			default:
			}
			return
		}
	}
}

// serve runs a command and those that arrive meanwhile in one transaction.
func (w *writer) serve(first command) {
	conn, release := w.s.driver.Writer()
	defer release()
	w.batch = append(w.batch[:0], first)
	defer func() { clear(w.batch) }()
	t := &w.tx
	t.start(conn)
	for i := 0; i < len(w.batch); i++ {
		if err := w.batch[i].run(t); err != nil {
			t.rollback()
			w.oneByOne(conn)
			return
		}
		if i == len(w.batch)-1 {
			w.more()
		}
	}
	err := t.commit()
	w.batches++
	w.commands += int64(len(w.batch))
	w.answer(w.batch, err)
}

// more adds the commands that wait to the batch.
func (w *writer) more() {
	for range yields {
		for len(w.batch) < maxBatch {
			select {
			case c := <-w.queue:
				w.batch = append(w.batch, c)
				continue
			default:
			}
			break
		}
		if len(w.batch) == maxBatch {
			return
		}
		runtime.Gosched()
	}
}

// oneByOne runs the commands of a broken batch again, each in a transaction of
// its own, so that only the one at fault fails.
func (w *writer) oneByOne(conn Conn) {
	for i, c := range w.batch {
		t := &w.tx
		t.start(conn)
		err := c.run(t)
		if err == nil {
			err = t.commit()
		} else {
			t.rollback()
		}
		w.answer(w.batch[i:i+1], err)
	}
}

func (w *writer) answer(batch []command, err error) {
	if err != nil {
		w.report(len(batch), err)
		err = w.s.driver.Error(err)
	}
	for _, c := range batch {
		c.answer(err)
	}
}

// reportPause is the least time between two reports of the same failure: on a full
// disk there are thousands per second.
const reportPause = time.Second

func (w *writer) report(commands int, err error) {
	if since := w.tx.now.Sub(w.reported); since >= 0 && since < reportPause && err.Error() == w.failure {
		w.unlogged++
		return
	}
	w.s.log.Error("a transaction failed", "commands", commands, "error", err, "unlogged", w.unlogged)
	w.reported, w.failure, w.unlogged = w.tx.now, err.Error(), 0
}
