package httpapi

import (
	ff "github.com/flowfabric/flowfabric"
)

// EventPage is the answer of GET /v1/events.
type EventPage struct {
	Events     []Event        `json:"events"`
	NextCursor ff.EventCursor `json:"next_cursor"`
}
