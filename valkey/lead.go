package valkey

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	ff "github.com/flowfabric/flowfabric"
)

// The loops of all processes would look at all partitions. One of them, for each kind
// of sweep, does it for the others: it leaves a mark that lapses when it does not come
// again. Nothing depends on there being one: sweeps may overlap. Processes with and
// without the extensions do not stand in for each other, because they keep different
// indexes.

// leadSlack is how late the sweep of the process that leads may be.
const leadSlack = 500 * time.Millisecond

// lead is what a process knows of it: its own name, and which kinds it has led.
type lead struct {
	name string
	mu   sync.Mutex
	led  map[ff.SweepKind]bool
}

func newLead() lead { return lead{name: uuid.NewString(), led: map[ff.SweepKind]bool{}} }

func (s *Store) leadKey(kind ff.SweepKind) string {
	if s.extensions == ExtensionsOff {
		return leadKey("compatible", kind)
	}
	return leadKey("extensions", kind)
}

// leads reports whether a sweep is for this process to do. If not, the loop looks again
// after its interval, and needs not hear what becomes due. Who sweeps more often leads.
// Retention is for each process by itself: theirs may differ.
func (s *Store) leads(ctx context.Context, c *ff.Sweep) (bool, error) {
	if c.Every <= 0 || c.Kind == ff.SweepRetention {
		return true, nil
	}
	key, value, ttl := s.leadKey(c.Kind), s.lead.name+" "+millis(c.Every), 2*c.Every+leadSlack
	m, err := s.plain(ctx, s.client.B().Set().Key(key).Value(value).Nx().Get().Px(ttl).Build())
	if err != nil {
		return false, err
	}
	if before, err := m.ToString(); err == nil {
		name, every, _ := strings.Cut(before, " ")
		if n, err := strconv.ParseInt(every, 10, 64); name != s.lead.name && err == nil && n <= c.Every.Milliseconds() {
			s.due.Known(c.Kind, time.UnixMilli(0))
			return false, nil
		}
		if _, err := s.plain(ctx, s.client.B().Set().Key(key).Value(value).Px(ttl).Build()); err != nil {
			return false, err
		}
	}
	s.lead.mu.Lock()
	defer s.lead.mu.Unlock()
	s.lead.led[c.Kind] = true
	return true, nil
}

// resignTime bounds what the end of a store waits for: the marks lapse anyway.
const resignTime = 500 * time.Millisecond

// resign takes the marks away, so that another process leads from its next look on.
func (s *Store) resign() {
	ctx, cancel := context.WithTimeout(context.Background(), resignTime)
	defer cancel()
	s.lead.mu.Lock()
	defer s.lead.mu.Unlock()
	for kind := range s.lead.led {
		leader, err := s.client.Do(ctx, s.client.B().Get().Key(s.leadKey(kind)).Build()).ToString()
		if name, _, _ := strings.Cut(leader, " "); err == nil && name == s.lead.name {
			s.client.Do(ctx, s.client.B().Del().Key(s.leadKey(kind)).Build())
		}
	}
}
