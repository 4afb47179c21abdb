// Package metrics collects what the engine, the scheduler and the server measure
// and shows it in the text format of Prometheus (spec 09 §4).
package metrics

import (
	"context"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

// Provider holds the instruments of one process.
type Provider struct {
	meters  *sdkmetric.MeterProvider
	handler http.Handler
}

// New makes a provider with a registry of its own.
func New() (*Provider, error) {
	registry := prometheus.NewRegistry()
	exporter, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithoutSuffixes))
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return &Provider{
		meters:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter), sdkmetric.WithCardinalityLimit(2000)),
		handler: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
	}, nil
}

// Meter makes instruments.
func (p *Provider) Meter() metric.Meter { return p.meters.Meter("ff") }

// ServeHTTP shows the metrics.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.handler.ServeHTTP(w, r) }

// Close ends the collection.
func (p *Provider) Close(ctx context.Context) error { return p.meters.Shutdown(ctx) }
