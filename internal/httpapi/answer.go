package httpapi

import (
	ff "github.com/flowfabric/flowfabric"
)

// PublicErrors makes the list of a batch answer.
func PublicErrors(errs []error) []*ff.PublicError {
	list := make([]*ff.PublicError, len(errs))
	for i, err := range errs {
		list[i] = PublicErrorOf(err)
	}
	return list
}

// PublicErrorOf is nil for nil.
func PublicErrorOf(err error) *ff.PublicError {
	if err == nil {
		return nil
	}
	_, p := ff.PublicErrorOf(err)
	return &p
}

// Now is the answer of GET /v1/time.
type Now struct {
	Now Time `json:"now"`
}

// Status is the answer of the health endpoints.
type Status struct {
	Status string `json:"status"`
}

// Headers of GET /v1/executions/{id}/payload; their values are percent-encoded.
const (
	HeaderKind     = "X-Flowfabric-Kind"
	HeaderEncoding = "X-Flowfabric-Encoding"
	HeaderTags     = "X-Flowfabric-Tags"
)
