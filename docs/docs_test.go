// Package docs_test keeps the guides true: the endpoints, the metrics and the
// pieces of Go that they show are compared with the code.
package docs_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/server"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

const root = ".."

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// guides are README.md, CONTRIBUTING.md and everything in docs/ and examples/.
func guides(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"*.md", "docs/*.md", "examples/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

// compare fails the test unless the two sets of lines are the same.
func compare(t *testing.T, what string, documented, real []string) {
	t.Helper()
	for _, line := range real {
		if !slices.Contains(documented, line) {
			t.Errorf("%s misses %s", what, line)
		}
	}
	for _, line := range documented {
		if !slices.Contains(real, line) {
			t.Errorf("%s has %s, and the code has not", what, line)
		}
	}
}

var endpointRow = regexp.MustCompile("(?m)^\\| `([A-Z]+ /[^`]*)` \\| ([^|]+) \\| ([0-9, ]+) \\|$")

func TestHTTPGuideListsTheEndpointsOfTheOpenAPIDocument(t *testing.T) {
	var documented []string
	for _, row := range endpointRow.FindAllStringSubmatch(read(t, "http.md"), -1) {
		documented = append(documented, fmt.Sprintf("%s: %s (%s)", row[1], row[2], row[3]))
	}
	compare(t, "docs/http.md", documented, endpoints(t))
}

// endpoints reads the operations from the document that a server serves.
func endpoints(t *testing.T) (all []string) {
	t.Helper()
	api, err := server.New(storetest.Open(t, sqlite.Options{}), server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	answer := httptest.NewRecorder()
	api.Handler().ServeHTTP(answer, httptest.NewRequest("GET", "http://localhost/openapi.json", nil))
	var document struct {
		Paths map[string]map[string]struct {
			Summary   string
			Responses map[string]any
		}
	}
	if err := json.Unmarshal(answer.Body.Bytes(), &document); err != nil {
		t.Fatal(err)
	}
	for path, methods := range document.Paths {
		for method, operation := range methods {
			statuses := slices.Sorted(maps.Keys(operation.Responses))
			statuses = slices.DeleteFunc(statuses, func(s string) bool { return !strings.HasPrefix(s, "2") })
			all = append(all, fmt.Sprintf("%s %s: %s (%s)", strings.ToUpper(method), path, operation.Summary, strings.Join(statuses, ", ")))
		}
	}
	return all
}

var metricRow = regexp.MustCompile("(?m)^\\| `(ff_[a-z_]+)` \\|")

func TestOperationsGuideListsTheMetricsOfTheCode(t *testing.T) {
	var documented []string
	for _, row := range metricRow.FindAllStringSubmatch(read(t, "operations.md"), -1) {
		documented = append(documented, row[1])
	}
	compare(t, "docs/operations.md", documented, instruments(t))
}

var instrument = regexp.MustCompile(`^(Int64|Float64)(Observable)?(Counter|UpDownCounter|Histogram|Gauge)$`)

// instruments are the names in all calls that make an instrument.
func instruments(t *testing.T) (names []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && len(call.Args) > 0 {
				method, isMethod := call.Fun.(*ast.SelectorExpr)
				name, isText := call.Args[0].(*ast.BasicLit)
				if isMethod && isText && instrument.MatchString(method.Sel.Name) {
					if text, err := strconv.Unquote(name.Value); err == nil {
						names = append(names, text)
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

var goBlock = regexp.MustCompile("(?ms)^(?:<!-- from ([^ ]+) -->\n)?```go\n(.*?)^```$")

// A piece of Go in a guide stands word for word in a file that the compiler reads.
// A line of dots stands for what is left out.
func TestGoInTheGuidesIsTakenFromFilesThatAreBuilt(t *testing.T) {
	blocks := 0
	for _, guide := range guides(t) {
		for _, block := range goBlock.FindAllStringSubmatch(read(t, guide), -1) {
			blocks++
			if block[1] == "" {
				t.Errorf("%s: the block that begins with %.60q does not name its file", guide, block[2])
				continue
			}
			source := squeezed(read(t, filepath.Join(root, filepath.FromSlash(block[1]))))
			for piece := range strings.SplitSeq(block[2], "// …\n") {
				if !strings.Contains(source, squeezed(piece)) {
					t.Errorf("%s: this is not in %s:\n%s", guide, block[1], piece)
				}
			}
		}
	}
	if blocks == 0 {
		t.Error("the guides show no Go")
	}
}

// squeezed is a text without indentation and empty lines.
func squeezed(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

var (
	link = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	code = regexp.MustCompile("(?ms)^```.*?^```$")
)

func TestLinksBetweenTheGuidesLeadSomewhere(t *testing.T) {
	for _, guide := range guides(t) {
		for _, found := range link.FindAllStringSubmatch(code.ReplaceAllString(read(t, guide), ""), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(guide), filepath.FromSlash(found[1]))); err != nil {
				t.Errorf("%s: %v", guide, err)
			}
		}
	}
}
