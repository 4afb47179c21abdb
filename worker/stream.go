package worker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	ff "github.com/flowfabric/flowfabric"
)

const (
	// streamDelay is how long a frame may wait for others, so that they travel in one
	// call.
	streamDelay = 10 * time.Millisecond
	// streamBatch and streamBatchBytes end that wait, and bound one call.
	streamBatch      = ff.MaxBatch
	streamBatchBytes = 1 << 20
	// streamBuffer and streamBufferBytes bound what waits to be sent; who has more waits.
	streamBuffer      = 4 * streamBatch
	streamBufferBytes = 4 * streamBatchBytes
	// frameOverhead is about what a frame takes besides its payload.
	frameOverhead = 128
	// lastFlush bounds how long the end of a task waits for its output.
	lastFlush = 10 * time.Second
)

// Stream is the output of a task's attempt: frames that people follow while the
// handler runs, and a summary document. Get it with Task.Stream. It is safe for
// concurrent use.
//
// What is written is sent in the background, in order, many frames in one call. An
// error of sending is returned by the next call. Frames for which the store did not
// answer are sent again while the lease lives, so a frame may be there twice. A task
// sends what is left before it ends; what cannot be sent then is lost, which is logged
// and does not change how the task ends: call Flush to know.
type Stream struct {
	t *Task

	mu sync.Mutex
	// pending are the frames that wait to be sent, bytes their size.
	pending []ff.NewFrame
	bytes   int
	// added and settled count the frames that were written, and those of them that were
	// sent or given up.
	added, settled uint64
	// sending says that a goroutine sends. hurry wakes it when it waits for more frames,
	// changed is closed and replaced whenever it has sent some.
	sending        bool
	hurry, changed chan struct{}
	// closed says that the task has ended.
	closed bool
	err    error
}

// Stream is the output of the attempt.
func (t *Task) Stream() *Stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stream == nil {
		t.stream = &Stream{t: t, hurry: make(chan struct{}, 1), changed: make(chan struct{}), closed: t.finished}
	}
	return t.stream
}

// flushOutput sends what was written, before the task ends.
func (t *Task) flushOutput(ctx context.Context) {
	t.mu.Lock()
	s := t.stream
	t.mu.Unlock()
	if s == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lastFlush)
	defer cancel()
	if err := s.Flush(ctx); err != nil {
		t.w.log.Warn("output was lost", "execution_id", t.ref.ID, "err", err)
	}
}

// Append writes frames, in order and without others between them. It waits only when
// much is waiting to be sent already. Errors: invalid_input and payload_too_large for
// frames that cannot be, and then none is written; the error of earlier frames that
// could not be sent, and then these are; ErrEnded when the task has ended, and the
// cause of its end when it was lost; that of ctx.
func (s *Stream) Append(ctx context.Context, frames ...ff.NewFrame) error {
	c := ff.AppendFrames{LeaseRef: s.t.ref, Frames: frames}
	if err := c.Validate(); err != nil {
		return err
	}
	size, now := 0, time.Now()
	frames = slices.Clone(frames)
	for i := range frames {
		size += sizeOf(&frames[i])
		if frames[i].At.IsZero() {
			frames[i].At = now
		}
		frames[i].Payload = bytes.Clone(frames[i].Payload) // sent later: the caller may use it again
	}
	for {
		added, changed, err := s.add(frames, size)
		if added || err != nil {
			return err
		}
		if err := s.await(ctx, changed); err != nil {
			return err
		}
	}
}

// sizeOf is about what a frame takes.
func sizeOf(f *ff.NewFrame) int { return len(f.Payload) + frameOverhead }

// add puts frames behind those that wait, if there is room: what is larger than all
// the room there is must wait until it is empty. changed tells when to try again.
func (s *Stream) add(frames []ff.NewFrame, size int) (added bool, changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.t.life.Err() != nil {
		return false, nil, s.t.endedBy()
	}
	if len(s.pending) > 0 && (len(s.pending)+len(frames) > streamBuffer || s.bytes+size > streamBufferBytes) {
		s.hasten()
		return false, s.changed, nil
	}
	s.pending = append(s.pending, frames...)
	s.bytes += size
	s.added += uint64(len(frames))
	if !s.sending {
		s.sending = true
		s.t.w.loops.Go(s.send)
	}
	if len(s.pending) >= streamBatch || s.bytes >= streamBatchBytes {
		s.hasten()
	}
	return true, nil, s.takeError()
}

// hasten lets the sender wait no longer.
func (s *Stream) hasten() {
	select {
	case s.hurry <- struct{}{}:
	default:
	}
}

// await waits until something was sent.
func (s *Stream) await(ctx context.Context, changed <-chan struct{}) error {
	select {
	case <-changed:
		return nil
	case <-s.t.life.Done():
		return context.Cause(s.t.life) //nolint:contextcheck // ends with either
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// takeError is the error of frames that could not be sent, once.
func (s *Stream) takeError() error {
	err := s.err
	s.err = nil
	return err
}

// Flush sends at once what was written before, and waits until it is stored. Errors:
// those of frames that could not be sent; otherwise as Append.
func (s *Stream) Flush(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for all := s.added; s.settled < all; {
		s.hasten()
		changed := s.changed
		s.mu.Unlock()
		err := s.await(ctx, changed)
		s.mu.Lock()
		if err != nil {
			return errors.Join(s.takeError(), err)
		}
	}
	return s.takeError()
}

// Writer is a writer each of whose Writes becomes a frame with the type, mode and other
// fields of like. What is longer than flowfabric.MaxFramePayloadBytes becomes several.
// Its errors are those of Append; it waits as long as the context of the task lasts.
func (s *Stream) Writer(like ff.NewFrame) io.Writer { return &frameWriter{s, like} }

// Handler is a handler for package log/slog whose every record becomes a frame of the
// type log with a line of JSON. The options may be nil.
func (s *Stream) Handler(o *slog.HandlerOptions) slog.Handler {
	return slog.NewJSONHandler(s.Writer(ff.NewFrame{Type: "log"}), o)
}

// Patch merges a value that is encoded as a JSON object into the summary document of
// the attempt: members that are objects are merged, null deletes a member, and
// flowfabric.SummaryNull sets it to null (spec 04c §5.2). The object must not be longer
// than flowfabric.MaxFramePayloadBytes. A []byte or json.RawMessage is taken as it is.
func (s *Stream) Patch(ctx context.Context, patch any) error {
	payload, err := encode(patch)
	if err != nil {
		return ff.InvalidInput("patch", "cannot be encoded: %w", err)
	}
	return s.Append(ctx, ff.NewFrame{Type: "summary", Mode: ff.FrameSummary, Payload: payload})
}

type frameWriter struct {
	s    *Stream
	like ff.NewFrame
}

func (w *frameWriter) Write(p []byte) (n int, err error) {
	for n < len(p) {
		f := w.like
		f.Payload = bytes.Clone(p[n : n+cutText(p[n:], ff.MaxFramePayloadBytes)])
		if err := w.s.Append(w.s.t.ctx, f); err != nil {
			return n, err
		}
		n += len(f.Payload)
	}
	return n, nil
}

// cutText is how many of the first limit bytes of a text to take, so that no character
// is cut in two.
func cutText(p []byte, limit int) int {
	if len(p) <= limit {
		return len(p)
	}
	for n := limit; n > limit-utf8.UTFMax; n-- {
		if utf8.RuneStart(p[n]) {
			return n
		}
	}
	return limit
}

// close refuses what is written from now on, and forgets what was not sent.
func (s *Stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if lost := s.added - s.settled; lost > 0 {
		s.t.w.log.Warn("output was lost", "execution_id", s.t.ref.ID, "frames", lost)
	}
}

// send sends batch after batch until nothing waits or the lease is gone.
func (s *Stream) send() {
	timer := time.NewTimer(streamDelay)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-s.hurry:
		case <-s.t.life.Done():
		}
		batch := s.take()
		if !s.settle(len(batch), s.append(batch)) {
			return
		}
		timer.Reset(streamDelay)
	}
}

// take takes the frames of the next call.
func (s *Stream) take() []ff.NewFrame {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, size := 0, 0
	for ; n < min(len(s.pending), streamBatch); n++ {
		next := sizeOf(&s.pending[n])
		if n > 0 && size+next > streamBatchBytes {
			break
		}
		size += next
	}
	batch := s.pending[:n:n]
	s.pending = s.pending[n:]
	s.bytes -= size
	return batch
}

// settle notes how a call went, and reports whether there is more to send.
func (s *Stream) settle(n int, err error) (more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled += uint64(n)
	if s.err == nil {
		s.err = err
	}
	s.sending = len(s.pending) > 0 && s.t.life.Err() == nil
	if !s.sending {
		s.pending, s.bytes = nil, 0
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return s.sending
}

// append sends frames. When one of many is refused, the others are stored.
func (s *Stream) append(frames []ff.NewFrame) error {
	err := s.insist(frames)
	if !refused(err) || len(frames) == 1 {
		return err
	}
	var first error
	for i := range frames {
		if err := s.insist(frames[i : i+1]); first == nil {
			first = err
		}
	}
	return first
}

// insist sends frames again while the store does not answer and the lease lives.
func (s *Stream) insist(frames []ff.NewFrame) error {
	life := s.t.life
	pause := pauses(20*time.Millisecond, 2*time.Second)
	for {
		_, err := s.t.w.store.AppendFrames(life, ff.AppendFrames{LeaseRef: s.t.ref, Frames: frames})
		if err == nil || !unreachable(err) {
			s.t.noteLoss(lossOf(err))
			return err
		}
		s.t.w.log.Warn("appending output failed; trying again while the lease lives", "execution_id", s.t.ref.ID, "frames", len(frames), "err", err)
		timer := time.NewTimer(pause.NextBackOff())
		select {
		case <-timer.C:
		case <-life.Done():
			timer.Stop()
			return errors.Join(context.Cause(life), err)
		}
	}
}

// lossOf is a refusal of output in the words by which the refusals of other calls say
// that the lease is gone.
func lossOf(err error) error {
	switch ff.CodeOf(err) {
	case ff.CodeStaleOwnerCannotAppend:
		return stale(err)
	case ff.CodeStreamClosed:
		return ff.Errorf(ff.CodeExecutionNotActive, "%w", err)
	}
	return err
}
