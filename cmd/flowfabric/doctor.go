package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/charmbracelet/lipgloss"
	"github.com/spf13/cobra"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
	"github.com/flowfabric/flowfabric/valkey"
)

func (a *app) doctorCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "doctor", Short: "Check a store and say what to fix", Args: exactly(),
		Long: `Checks the store of --store, or the server, and says what to fix. It changes nothing
there: it loads no function library, and leaves no file.

Each line is ok, a warning (it works, and may hurt later) or a problem. The exit code is
0 without a problem, 1 with one, and 4 when the store cannot be reached or does not let
the user in.`,
		Example: "  flowfabric doctor --store valkey://localhost:6379\n  flowfabric doctor --store sqlite:flowfabric.db\n  flowfabric doctor --server https://flowfabric.example --token \"$TOKEN\"",
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		checks, err := a.diagnose(c.Context())
		if err != nil {
			return err
		}
		report := diagnosis{Store: shown(a.location()), Problems: checks.Count(ff.CheckProblem), Warnings: checks.Count(ff.CheckWarning), Checks: checks}
		report.OK = report.Problems == 0
		if err := a.print(report, func(p *printer) { p.diagnosis(&report) }); err != nil {
			return err
		}
		return report.verdict()
	}
	return c
}

// diagnosis is what doctor prints.
type diagnosis struct {
	Store    string    `json:"store"`
	OK       bool      `json:"ok"`
	Problems int       `json:"problems"`
	Warnings int       `json:"warnings"`
	Checks   ff.Checks `json:"checks"`
}

// verdict is the error of a diagnosis with problems.
func (d *diagnosis) verdict() error {
	if d.OK {
		return nil
	}
	err := &exitError{exitFailed, fmt.Errorf("%d problem(s) in %s", d.Problems, d.Store)}
	for i := range d.Checks {
		c := &d.Checks[i]
		if c.Status == ff.CheckProblem && (c.Name == "reachable" || c.Name == "authenticated") {
			err.code = exitUnavailable
		}
	}
	return err
}

var statusColors = map[ff.CheckStatus]string{ff.CheckOK: "2", ff.CheckWarning: "3", ff.CheckProblem: "1"}

func (p *printer) diagnosis(d *diagnosis) {
	p.line("%s", d.Store)
	width := 0
	for i := range d.Checks {
		width = max(width, len(d.Checks[i].Name))
	}
	for i := range d.Checks {
		c := &d.Checks[i]
		status := fmt.Sprintf("%-8s", c.Status)
		if p.fancy {
			status = lipgloss.NewStyle().Foreground(lipgloss.Color(statusColors[c.Status])).Render(status)
		}
		detail := c.Detail
		if c.Node != "" {
			detail = c.Node + ": " + detail
		}
		p.line("%s %-*s  %s", status, width, c.Name, clean(detail))
		if c.Advice != "" {
			p.line("%*s  → %s", 9+width, "", clean(c.Advice))
		}
	}
	p.line("%d checks, %d problem(s), %d warning(s)", len(d.Checks), d.Problems, d.Warnings)
}

func (a *app) diagnose(ctx context.Context) (ff.Checks, error) {
	location := a.location()
	kind := kindOf(location)
	if kind == kindServer {
		return a.diagnoseServer(ctx, location)
	}
	s, err := loadStoreSettings()
	if err != nil {
		return nil, err
	}
	if location, err = completeURL(location, s.User, s.Password); err != nil {
		return nil, err
	}
	if kind == kindValkey {
		return valkey.Diagnose(ctx, location, valkey.Options{Partitions: s.partitions()})
	}
	path := strings.TrimPrefix(strings.TrimPrefix(location, "sqlite:"), "//")
	if strings.Contains(location, ":") && !strings.HasPrefix(location, "sqlite:") {
		return nil, usageError("doctor checks sqlite:PATH, valkey://HOST or http://SERVER")
	}
	return sqlite.Diagnose(ctx, path, sqlite.Options{Partitions: s.partitions()})
}
