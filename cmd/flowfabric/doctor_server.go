package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
)

// maxClockDifference is how much the clocks of a server and of this machine may
// differ.
const maxClockDifference = time.Second

// diagnoseServer checks a server and, through it, its store.
func (a *app) diagnoseServer(ctx context.Context, location string) (checks ff.Checks, err error) {
	options, err := a.clientOptions()
	if err != nil {
		return nil, err
	}
	c, err := client.New(location, append(options, client.WithRetries(0))...)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	took, err := a.live(ctx, location)
	if err != nil {
		checks.Problem("reachable", "start a server (flowfabric serve), or give its URL with --server", "%s", err)
		return checks, ctx.Err()
	}
	checks.OK("reachable", "/livez answers in %s", took.Round(100*time.Microsecond))
	server := c.Backend()
	if err := server.Ping(ctx); err != nil {
		checks.Problem("store", "check the store itself, on the server's machine: flowfabric doctor --store URL", "/healthz fails: %s", err)
		return checks, ctx.Err()
	}
	info, err := server.Info(ctx)
	if errors.Is(err, &ff.Error{Code: ff.CodeUnauthorized}) {
		checks.Problem("authenticated", "give the server's token: --token or FF_API_TOKEN", "%s", err)
		return checks, nil
	}
	if err != nil {
		checks.Problem("store", "look at the server's log", "%s", err)
		return checks, nil
	}
	checks.OK("authenticated", "%s", map[bool]string{true: "the token is accepted", false: "the server wants no token"}[a.token != ""])
	checks.OK("store", "%s %s", info.Store, info.Version)
	judgeDurability(&checks, info.Durability)
	checks.OK("partitions", "%d flow, %d budget, %d quota", info.Partitions.Flow, info.Partitions.Budget, info.Partitions.Quota)
	return checks, compareClocks(ctx, &checks, server)
}

// weak are the words with which stores describe a durability that loses what was
// acknowledged when the server, or its machine, ends at a bad moment.
var weak = []string{"no append-only file", "fsync no", "synchronous=off", "nothing survives"}

func judgeDurability(checks *ff.Checks, durability string) {
	if slices.ContainsFunc(weak, func(words string) bool { return strings.Contains(durability, words) }) {
		checks.Warning("durability", "make the store keep what it acknowledges; on the server's machine, flowfabric doctor --store URL says how", "%s: a crash loses acknowledged commands", durability)
		return
	}
	checks.OK("durability", "%s", durability)
}

// live asks whether the process of a server answers, and how quickly.
func (a *app) live(ctx context.Context, location string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(location, "/")+"/livez", http.NoBody)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("GET /livez: %s: is this a FlowFabric server?", response.Status)
	}
	return time.Since(start), nil
}

// compareClocks compares the clock of a store with that of this machine.
func compareClocks(ctx context.Context, checks *ff.Checks, store ff.Admin) error {
	start := time.Now()
	now, err := store.Now(ctx)
	if err != nil {
		checks.Problem("clock", "look at the server's log", "%s", err)
		return ctx.Err()
	}
	if offset := now.Sub(start.Add(time.Since(start) / 2)); offset.Abs() > maxClockDifference {
		checks.Warning("clock", "let both machines keep time with chrony or systemd-timesyncd; instants are those of the store", "the store's clock differs from this machine's by %s", offset.Round(time.Millisecond))
		return nil
	}
	checks.OK("clock", "within %s of this machine's", maxClockDifference)
	return nil
}
