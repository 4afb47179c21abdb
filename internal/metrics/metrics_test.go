package metrics_test

import (
	"context"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/flowfabric/flowfabric/internal/metrics"
)

func TestInstrumentsAreShownUnderTheirOwnNames(t *testing.T) {
	p, err := metrics.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close(context.WithoutCancel(t.Context())) })
	counter, err := p.Meter().Int64Counter("ff_things_total")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3000 {
		counter.Add(t.Context(), 1, metric.WithAttributes(attribute.String("thing", strconv.Itoa(i))))
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	page := w.Body.String()
	if !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Errorf("content type %q", w.Header().Get("Content-Type"))
	}
	for _, want := range []string{`ff_things_total{otel_scope_name="ff"`, `thing="0"} 1`, `otel_metric_overflow="true"`, "target_info{"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if n := strings.Count(page, "\nff_things_total{"); n != 2000 {
		t.Errorf("%d label sets are kept, want 2000", n)
	}
}
