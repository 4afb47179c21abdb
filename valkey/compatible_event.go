package valkey

import (
	"context"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// How often a reader of events that waits looks: at first often, then less so.
const (
	firstEventPoll = 10 * time.Millisecond
	lastEventPoll  = 250 * time.Millisecond
)

// ReadEvents reads on from a cursor. The events of one execution are its lease
// history; the compatible functions keep no log of all.
func (s *compatible) ReadEvents(ctx context.Context, c ff.ReadEvents) (ff.ReadEventsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ReadEventsResult{}, err
	}
	at, err := parseEventCursor(c.After)
	if err != nil {
		return ff.ReadEventsResult{}, err
	}
	if c.ID.IsZero() {
		return ff.ReadEventsResult{}, ff.Errorf(ff.CodeUnavailable,
			"this store has no log of all events, because it does without the extensions: read the events of one execution, or let it load %s (extensions=auto)", ExtensionsName)
	}
	end := time.NewTimer(c.Wait)
	defer end.Stop()
	for pause := firstEventPoll; ; pause = min(2*pause, lastEventPoll) {
		found, err := s.eventsOf(ctx, &c, at)
		if err != nil || len(found) > 0 || c.Wait == 0 {
			return eventResult(&c, found, at), err
		}
		again, err := s.pause(ctx, pause, end.C)
		if !again {
			return eventResult(&c, nil, at), err
		}
	}
}

// pause waits; again is false when the time is over.
func (s *compatible) pause(ctx context.Context, d time.Duration, end <-chan time.Time) (again bool, err error) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true, nil
	case <-end:
		return false, nil
	case <-s.quit:
		return false, errClosed
	case <-ctx.Done():
		return false, ctx.Err()
	}
}
