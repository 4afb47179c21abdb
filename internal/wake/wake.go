// Package wake lets goroutines of one process wait for something that another
// goroutine makes happen, without polling and without losing a wake-up.
package wake

import "sync"

// Hub holds the waiters of topics of type T. A hint of type H travels with each
// wake-up, so that it reaches only waiters that can use it. The zero Hub is
// ready.
type Hub[T comparable, H any] struct {
	mu     sync.Mutex
	topics map[T][]*Waiter[T, H]
}

// Waiter waits for wake-ups of its topics.
type Waiter[T comparable, H any] struct {
	hub    *Hub[T, H]
	topics []T
	accept func(H) bool
	c      chan struct{}
	// The wake-up that is in c or was taken from it last.
	topic T
	hint  H
}

// Wait registers a waiter. Register before the last look at what is waited for:
// then nothing that happens after the look is missed. A nil accept takes every
// hint. Call Stop when done.
func (h *Hub[T, H]) Wait(topics []T, accept func(H) bool) *Waiter[T, H] {
	w := &Waiter[T, H]{hub: h, topics: topics, accept: accept, c: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.topics == nil {
		h.topics = make(map[T][]*Waiter[T, H])
	}
	for _, t := range topics {
		h.topics[t] = append(h.topics[t], w)
	}
	return w
}

// C receives one value when the waiter is woken. A woken waiter has left the
// hub and gets no second wake-up.
func (w *Waiter[T, H]) C() <-chan struct{} { return w.c }

// Stop ends the waiting. A wake-up that was sent but not received goes to the
// next waiter.
func (w *Waiter[T, H]) Stop() {
	w.hub.mu.Lock()
	w.hub.remove(w)
	w.hub.mu.Unlock()
	select {
	case <-w.c:
		w.Pass()
	default:
	}
}

// Pass gives a wake-up that was received to the next waiter, when nothing could
// be made of it.
func (w *Waiter[T, H]) Pass() { w.hub.Wake(w.topic, w.hint, 1) }

// Wake wakes the n longest waiting waiters of a topic that accept the hint.
func (h *Hub[T, H]) Wake(topic T, hint H, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := 0; n > 0 && i < len(h.topics[topic]); {
		w := h.topics[topic][i]
		if w.accept != nil && !w.accept(hint) {
			i++
			continue
		}
		h.remove(w)
		w.topic, w.hint = topic, hint
		w.c <- struct{}{}
		n--
	}
}

// WakeAll wakes every waiter of a topic that accepts the hint.
func (h *Hub[T, H]) WakeAll(topic T, hint H) { h.Wake(topic, hint, int(^uint(0)>>1)) }

// WakeEverybody wakes every waiter of every topic, whatever it accepts.
func (h *Hub[T, H]) WakeEverybody() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for topic := range h.topics {
		for len(h.topics[topic]) > 0 {
			w := h.topics[topic][0]
			h.remove(w)
			w.topic = topic
			w.c <- struct{}{}
		}
	}
}

// remove takes a waiter out of all its topics, in which it may be no more.
func (h *Hub[T, H]) remove(w *Waiter[T, H]) {
	for _, t := range w.topics {
		list := h.topics[t]
		for i := range list {
			if list[i] == w {
				list = append(list[:i], list[i+1:]...)
				break
			}
		}
		if len(list) == 0 {
			delete(h.topics, t)
		} else {
			h.topics[t] = list
		}
	}
}
