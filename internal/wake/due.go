package wake

import (
	"sync"
	"time"
)

// Due tells loops that something earlier than they know of was stored. A loop is
// known by its kind. The zero value is ready.
type Due[K comparable] struct {
	mu sync.Mutex
	// next is when each loop knows something to be due; no entry while it looks,
	// when everything stored is news. The zero time means never.
	next     map[K]time.Time
	watchers map[K]map[chan struct{}]bool
}

// Looking says that a loop has begun to look.
func (d *Due[K]) Looking(kind K) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.next, kind)
}

// Known says when a loop knows something to be due.
func (d *Due[K]) Known(kind K, next time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.next == nil {
		d.next = map[K]time.Time{}
	}
	d.next[kind] = next
}

// Stored tells the watchers of a kind about something due at an instant, unless
// they know of something earlier.
func (d *Due[K]) Stored(kind K, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if next, ok := d.next[kind]; ok && !next.IsZero() && !at.Before(next) {
		return
	}
	for c := range d.watchers[kind] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Watch gives a channel that receives what Stored tells of a kind; stop ends it.
func (d *Due[K]) Watch(kind K) (due <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.watchers == nil {
		d.watchers = map[K]map[chan struct{}]bool{}
	}
	if d.watchers[kind] == nil {
		d.watchers[kind] = map[chan struct{}]bool{}
	}
	d.watchers[kind][c] = true
	return c, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.watchers[kind], c)
	}
}
