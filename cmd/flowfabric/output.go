package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/charmbracelet/lipgloss"
	"github.com/charmbracelet/lipgloss/table"
	"golang.org/x/term"

	ff "github.com/flowfabric/flowfabric"
)

// terminal reports whether a stream is a terminal.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colourful reports whether a stream is a terminal on which colours are welcome.
func colourful(w io.Writer) bool {
	return terminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// printer writes for people: colours and framed tables on a terminal, plain text
// elsewhere.
type printer struct {
	w     io.Writer
	fancy bool
}

// print writes v as JSON with --json, or lets people's form be written.
func (a *app) print(v any, people func(p *printer)) error {
	if a.json {
		return a.jsonLine(v)
	}
	people(&printer{w: a.stdout, fancy: colourful(a.stdout)})
	return nil
}

// notice tells people something beside the output, whether they look at it now or
// later in a log. Programs get an error there at most.
func (a *app) notice(format string, args ...any) {
	if !a.json {
		fmt.Fprintf(a.stderr, "flowfabric: "+format+"\n", args...)
	}
}

// jsonLine writes one JSON object on one line.
func (a *app) jsonLine(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func (p *printer) line(format string, args ...any) { fmt.Fprintf(p.w, format+"\n", args...) }

// table writes rows under a header.
func (p *printer) table(header []string, rows [][]string) {
	if !p.fancy {
		t := tabwriter.NewWriter(p.w, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, strings.ToUpper(strings.Join(header, "\t")))
		for _, r := range rows {
			fmt.Fprintln(t, strings.Join(r, "\t"))
		}
		_ = t.Flush()
		return
	}
	bold := lipgloss.NewStyle().Bold(true).Padding(0, 1)
	cell := lipgloss.NewStyle().Padding(0, 1)
	fmt.Fprintln(p.w, table.New().Headers(header...).Rows(rows...).Border(lipgloss.RoundedBorder()).
		BorderStyle(lipgloss.NewStyle().Foreground(lipgloss.Color("8"))).
		StyleFunc(func(row, _ int) lipgloss.Style {
			if row == table.HeaderRow {
				return bold
			}
			return cell
		}))
}

var stateColors = map[ff.PublicState]string{
	ff.StateCompleted: "2", ff.StateActive: "4", ff.StateFailed: "1", ff.StateExpired: "1", ff.StateCancelled: "8", ff.StateSkipped: "8",
	ff.StateDelayed: "3", ff.StateSuspended: "5", ff.StateRateLimited: "3",
}

// state is a state in its colour.
func (p *printer) state(s ff.PublicState) string {
	color, ok := stateColors[s]
	if !p.fancy || !ok {
		return string(s)
	}
	return lipgloss.NewStyle().Foreground(lipgloss.Color(color)).Render(string(s))
}

// fields writes names and values, without the empty ones. Text of other people
// must be clean.
func (p *printer) fields(pairs ...string) {
	width := 0
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			width = max(width, len(pairs[i]))
		}
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			p.line("%-*s  %s", width, pairs[i], pairs[i+1])
		}
	}
}

// clean keeps control characters of other people's text off the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

func at(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05.000Z")
}

// progress shows how far long work is: one line that is rewritten on a terminal,
// nothing elsewhere.
type progress struct {
	w     io.Writer
	fancy bool
	last  time.Time
}

func (a *app) progress() *progress {
	return &progress{w: a.stderr, fancy: colourful(a.stderr) && !a.json}
}

func (p *progress) show(format string, args ...any) {
	if !p.fancy || time.Since(p.last) < 50*time.Millisecond {
		return
	}
	p.last = time.Now()
	fmt.Fprintf(p.w, "\r\x1b[K"+format, args...)
}

func (p *progress) done() {
	if p.fancy {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
