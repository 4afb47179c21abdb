package server

import (
	"bytes"
	"html/template"
	"net/http"
	"slices"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// pageRoutes are the endpoints for people with a browser.
func pageRoutes() []route {
	return []route{
		{method: "GET", path: "/{$}", id: "page", tag: "documents", summary: "Show the lanes and the newest executions as a page",
			answers: map[int]any{200: media("text/html")}, serve: (*Server).page},
		{method: "GET", path: "/openapi.json", id: "openapi", tag: "documents", summary: "Read this document", storeless: true, answers: map[int]any{200: media("application/json")},
			serve: func(s *Server, _ *request) (answer, error) {
				return answer{status: http.StatusOK, raw: s.document, contentType: "application/json"}, nil
			}},
	}
}

// metricsRoute is for the document; the endpoint stands beside the others.
var metricsRoute = route{method: "GET", path: "/metrics", id: "metrics", tag: "health", summary: "Read the metrics in the text format of Prometheus",
	answers: map[int]any{200: media("text/plain")}}

// page shows the store to a person with a browser: the lanes with their counts
// and the newest executions.
func (s *Server) page(r *request) (answer, error) {
	info, err := s.store.Info(r.Context())
	if err != nil {
		return answer{}, err
	}
	lanes, err := s.store.Lanes(r.Context())
	if err != nil {
		return answer{}, err
	}
	newest, err := s.store.ListExecutions(r.Context(), ff.ListExecutions{Limit: 25})
	if err != nil {
		return answer{}, err
	}
	var out bytes.Buffer
	if err := pageTemplate.Execute(&out, map[string]any{"Info": info, "Lanes": lanes, "States": usedStates(lanes), "Newest": newest.Executions, "Version": ff.Version}); err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, raw: out.Bytes(), contentType: "text/html; charset=utf-8", header: http.Header{
		"Content-Security-Policy": {"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"},
		"Referrer-Policy":         {"no-referrer"},
		"Cache-Control":           {"no-store"},
	}}, nil
}

// usedStates are the states that any execution can be in, and of the others those
// that some execution is in.
func usedStates(lanes []ff.LaneStatus) (used []ff.PublicState) {
	always := []ff.PublicState{ff.StateWaiting, ff.StateDelayed, ff.StateActive, ff.StateCompleted, ff.StateFailed, ff.StateCancelled, ff.StateExpired}
	for _, st := range ff.PublicStates {
		counted := func(l ff.LaneStatus) bool { return l.Counts[st] > 0 }
		if slices.Contains(always, st) || slices.ContainsFunc(lanes, counted) {
			used = append(used, st)
		}
	}
	return used
}

// detail is what holds an execution back, or why it failed.
func detail(x ff.Execution) string {
	switch {
	case x.FailureReason != "":
		return x.FailureReason
	case x.PublicState() == ff.StateDelayed:
		return "delayed until " + instant(x.DelayUntil)
	}
	return x.BlockingDetail
}

func instant(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"at":     instant,
	"detail": detail,
	"count":  func(l ff.LaneStatus, st ff.PublicState) int { return l.Counts[st] },
	"state":  func(x ff.Execution) ff.PublicState { return x.PublicState() },
}).Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>FlowFabric</title>
<style>
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
body { max-width: 75rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
div { overflow-x: auto } table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8884; white-space: nowrap }
td.n, th.n { text-align: right } code { font-size: .85em } .quiet { opacity: .65 }
</style></head><body>
<h1>FlowFabric</h1>
<p class="quiet">{{.Info.Store}} {{.Info.Version}} · {{.Info.Location}} · {{.Info.Durability}} · version {{.Version}} · <a href="/openapi.json">API</a></p>
<h2>Lanes</h2>
{{if .Lanes}}<div><table><tr><th>lane</th>{{range .States}}<th class="n">{{.}}</th>{{end}}</tr>
{{range $lane := .Lanes}}<tr><td>{{.Lane}}</td>{{range $.States}}<td class="n">{{count $lane .}}</td>{{end}}</tr>{{end}}</table></div>
{{else}}<p>Nothing has been submitted yet. Try: <code>flowfabric submit hello --payload '"world"'</code></p>{{end}}
<h2>Newest executions</h2>
{{if .Newest}}<div><table><tr><th>created</th><th>state</th><th>kind</th><th>lane</th><th class="n">attempts</th><th>id</th><th>detail</th></tr>
{{range .Newest}}<tr><td>{{at .CreatedAt}}</td><td>{{state .}}</td><td>{{.Kind}}</td><td>{{.Lane}}</td><td class="n">{{.TotalAttempts}}</td><td><code>{{.ID}}</code></td><td>{{detail .}}</td></tr>{{end}}</table></div>
{{else}}<p class="quiet">None.</p>{{end}}
</body></html>
`))
