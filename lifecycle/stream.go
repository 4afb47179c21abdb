package lifecycle

import (
	"math"
	"strings"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// Stream is what a store keeps about the output stream of an attempt beside its
// frames. The zero value is a stream that nothing was appended to.
type Stream struct {
	// Count is how many frames were appended, Kept how many of them are stored.
	Count, Kept int64
	// Last is the position of the latest frame.
	Last ff.FrameID
	// Lasting says that a frame was appended that is not best-effort: the stream
	// does not expire any more.
	Lasting bool
	// ExpiresAt is when the frames of a stream that is not lasting are gone; zero
	// means never.
	ExpiresAt time.Time
	// Rate is the smoothed rate of best-effort frames per second, RatedAt when the
	// latest of them was appended.
	Rate    float64
	RatedAt time.Time
}

// Expired reports whether the frames are gone: once their last instant is over. The
// counters go on.
func (s *Stream) Expired(now time.Time) bool { return !s.ExpiresAt.IsZero() && s.ExpiresAt.Before(now) }

// How many best-effort frames are kept (spec 04c §6).
const (
	bestEffortFloor   = 64
	bestEffortCeiling = 16384
	rateSmoothing     = 0.2
)

// What a frame has that does not say otherwise.
const (
	FrameEncoding = "utf8"
	FrameSource   = "worker"
)

// trimSlack is how many frames more than asked for a stream may hold where the
// number is an approximate one, so that not every append has to delete.
const trimSlack = 64

// AppendArgs is an AppendFrames that was checked and whose patches were read, which
// needs no store.
type AppendArgs struct {
	*ff.AppendFrames
	patches []patch
}

// PrepareAppend checks a command. Errors: those of its Validate, and invalid_input for
// a patch that can never be merged.
func PrepareAppend(c *ff.AppendFrames) (AppendArgs, error) {
	args := AppendArgs{AppendFrames: c}
	if err := c.Validate(); err != nil {
		return args, err
	}
	for i := range c.Frames {
		if c.Frames[i].Mode != ff.FrameSummary {
			continue
		}
		p, err := readPatch(c.Frames[i].Payload)
		if err != nil {
			return args, ff.AtItem("frames", i, err)
		}
		args.patches = append(args.patches, p)
	}
	return args, nil
}

// Patches reports whether the command changes the summary, so that the store has to
// load it.
func (c *AppendArgs) Patches() bool { return len(c.patches) > 0 }

// Appended is what the store has to do after an append.
type Appended struct {
	// Restart says that earlier frames have expired: delete them first.
	Restart bool
	// Frames are to be stored, then the Drop oldest of the stream to be deleted.
	Frames []ff.Frame
	Drop   int64
}

// Append appends to the stream of the attempt in progress (spec 04c §3). It changes s
// and the summary d, which may be nil when the command has no patches; on an error
// forget both. A lapsed lease is refused without being recorded. Errors:
// stream_closed, stale_owner_cannot_append, invalid_input for a patch that cannot be
// merged, retention_limit_exceeded when the summary becomes too large.
func Append(x *ff.Execution, s *Stream, d *Summary, c *AppendArgs, now time.Time) (Appended, error) {
	if err := mayAppend(x, c.Fence, now); err != nil {
		return Appended{}, err
	}
	a := Appended{Restart: s.Expired(now), Frames: make([]ff.Frame, len(c.Frames))}
	if a.Restart {
		s.Kept, s.ExpiresAt = 0, time.Time{}
	}
	before, patches := s.Kept, c.patches
	for i := range c.Frames {
		f := s.add(&c.Frames[i], c.Retention, d, now)
		if f.Mode == ff.FrameSummary {
			if err := d.merge(patches[0], now); err != nil {
				return Appended{}, ff.AtItem("frames", i, err)
			}
			patches, f.SummaryVersion = patches[1:], d.Version
		}
		a.Frames[i] = f
	}
	a.Drop = before + int64(len(a.Frames)) - s.Kept
	if c.Patches() {
		return a, d.encode()
	}
	return a, nil
}

// mayAppend checks the lease in the words of streams (spec 04c §3.2).
func mayAppend(x *ff.Execution, f ff.Fence, now time.Time) error {
	switch {
	case x.State.Phase != ff.PhaseActive:
		return NoStream(x.ID)
	case x.State.Ownership != ff.OwnershipLeased, !x.Lease.ExpiresAt.After(now),
		f != ff.Fence{LeaseID: x.Lease.ID, LeaseEpoch: x.LeaseEpoch, AttemptID: x.CurrentAttemptID}:
		return ff.Errorf(ff.CodeStaleOwnerCannotAppend, "the lease with epoch %d is not in force", f.LeaseEpoch)
	}
	return nil
}

// NoStream refuses to append to an execution that is not active, or not there.
func NoStream(id ff.ExecutionID) error {
	return ff.Errorf(ff.CodeStreamClosed, "execution %s is not active", id)
}

// add gives the frame that is stored and counts it. The summary is that before the frame.
func (s *Stream) add(n *ff.NewFrame, retention int, d *Summary, now time.Time) ff.Frame {
	others := n.Mode != ff.FrameSummary || s.Count > d.Version
	f := ff.Frame{ID: s.next(now), Type: n.Type, Payload: n.Payload, Encoding: n.Encoding, Source: n.Source,
		CorrelationID: n.CorrelationID, Mode: n.Mode, At: n.At}
	if f.Encoding == "" {
		f.Encoding = FrameEncoding
	}
	if f.Source == "" {
		f.Source = FrameSource
	}
	if f.Mode == "" {
		f.Mode = ff.FrameDurable
	}
	if f.At.IsZero() {
		f.At = now
	}
	s.Last = f.ID
	s.Count++
	s.Kept++
	switch f.Mode {
	case ff.FrameBestEffort:
		f.TTL = bestEffortTTL(n.TTL)
		s.rate(f.TTL, now)
		s.trim(s.bestEffortCap(f.TTL), trimSlack)
		if !s.Lasting {
			s.ExpiresAt = now.Add(2 * f.TTL)
		}
		return f
	case ff.FrameSummary, ff.FrameDurable:
		s.retain(retention, others)
	}
	s.Lasting, s.ExpiresAt = true, time.Time{}
	return f
}

// retain trims the stream for a frame that may not be lost. Of summaries alone few are
// kept, as the document has what they say; they do not push out frames of other modes,
// which those of the reference do (spec 04c §3.3).
func (s *Stream) retain(retention int, others bool) {
	switch {
	case !others:
		s.trim(ff.SummaryRetention, trimSlack)
	case retention > 0:
		s.trim(int64(retention), 0)
	default:
		s.trim(ff.DefaultFrameRetention, trimSlack)
	}
}

// next is the position after the last, at now unless the clock went back.
func (s *Stream) next(now time.Time) ff.FrameID {
	if at := (ff.FrameID{Ms: uint64(max(now.UnixMilli(), 0))}); at.Compare(s.Last) > 0 {
		return at
	}
	return s.Last.Next()
}

func (s *Stream) trim(keep, slack int64) {
	if s.Kept > keep+slack {
		s.Kept = keep
	}
}

// bestEffortTTL is the TTL in whole milliseconds.
func bestEffortTTL(ttl time.Duration) time.Duration {
	if ttl == 0 {
		return ff.DefaultFrameTTL
	}
	return max(ttl.Truncate(time.Millisecond), time.Millisecond)
}

// rate counts a best-effort frame in the smoothed rate (spec 04c §6).
func (s *Stream) rate(ttl time.Duration, now time.Time) {
	if s.RatedAt.IsZero() {
		s.Rate = bestEffortFloor / (2 * ttl.Seconds())
	} else {
		since := max(now.Sub(s.RatedAt), time.Millisecond)
		s.Rate = rateSmoothing/since.Seconds() + (1-rateSmoothing)*s.Rate
	}
	s.RatedAt = now
}

// bestEffortCap is how many frames to keep: those of two TTLs, within bounds.
func (s *Stream) bestEffortCap(ttl time.Duration) int64 {
	n := math.Ceil(s.Rate * ttl.Seconds() * 2)
	return int64(min(max(n, bestEffortFloor), bestEffortCeiling))
}

// The reasons for which a stream is closed (spec 04c §4). A reader has to accept
// others.
const (
	closedSuccess    = "attempt_success"
	closedFailure    = "attempt_failure"
	closedCancelled  = "attempt_cancelled"
	closedReclaimed  = "reclaimed"
	closedExpired    = "expired"
	closedLapsed     = "lease_expired"
	closedImpossible = "dependency_impossible"
	closedSuspended  = "suspension_timeout"
)

// StreamEnd is when and why the stream of an attempt was closed; the zero time while it
// is open. Earlier are the attempts that were superseded; only that of the index and
// the one after it are looked at.
func StreamEnd(x *ff.Execution, index int, earlier []ff.Attempt) (at time.Time, reason string) {
	a := attemptAt(x, index, earlier)
	switch {
	case a == nil && x.Terminal():
		return x.CompletedAt, closedBy[x.State.Outcome]
	case a == nil:
		return time.Time{}, ""
	case !a.EndedAt.IsZero():
		return a.EndedAt, attemptEnd(x, a, attemptAt(x, index+1, earlier))
	case x.State.Ownership == ff.OwnershipLeaseExpired:
		return x.LeaseExpiredAt, closedLapsed
	}
	return time.Time{}, ""
}

// closedBy says why the streams of attempts that never began are closed.
var closedBy = map[ff.TerminalOutcome]string{
	ff.OutcomeSuccess: closedSuccess, ff.OutcomeFailed: closedFailure, ff.OutcomeCancelled: closedCancelled,
	ff.OutcomeExpired: closedExpired, ff.OutcomeSkipped: closedImpossible,
}

func attemptAt(x *ff.Execution, index int, earlier []ff.Attempt) *ff.Attempt {
	if x.TotalAttempts > 0 && x.Attempt.Index == index {
		return &x.Attempt
	}
	for i := range earlier {
		if earlier[i].Index == index {
			return &earlier[i]
		}
	}
	return nil
}

// attemptEnd says how an attempt ended. One that time ended has failed when a retry
// followed, else it has expired.
func attemptEnd(x *ff.Execution, a, following *ff.Attempt) string {
	if strings.HasPrefix(a.FailureReason, suspensionTimedOut) {
		return closedSuspended
	}
	switch a.State {
	case ff.AttemptEndedSuccess:
		return closedSuccess
	case ff.AttemptEndedCancelled:
		return closedCancelled
	case ff.AttemptInterruptedReclaimed:
		return closedReclaimed
	}
	retried := following != nil && following.Type == ff.AttemptRetry || following == nil && x.PendingRetryReason != ""
	if endedByTime(a) && !retried {
		return closedExpired
	}
	return closedFailure
}

// StreamsMayClose reports whether a change of an execution may have closed streams of
// its attempts, so that waiting readers have to look.
func StreamsMayClose(before, after *ff.Execution) bool {
	return before.State.Phase != after.State.Phase || before.State.Ownership != after.State.Ownership
}
