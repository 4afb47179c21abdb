package server

import "slices"

// Patterns are the routes of a server with metrics, as "GET /v1/lanes".
func Patterns() []string {
	var list []string
	for _, rt := range slices.Concat(referenceRoutes(), streamRoutes(), apiRoutes(), frameRoutes(), suspensionRoutes(), waitpointRoutes(), signalRoutes(), pageRoutes(), []route{metricsRoute}) {
		list = append(list, rt.pattern())
	}
	return list
}
