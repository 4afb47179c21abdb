package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

//go:generate go run . docs ../../docs

// docsCommand writes the generated parts of docs/.
func (a *app) docsCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{Use: "docs DIR", Hidden: true, Short: "Write the generated reference", Args: exactly("DIR"), RunE: func(_ *cobra.Command, args []string) error {
		for name, text := range map[string]string{"cli.md": cliReference(root), "configuration.md": configurationReference()} {
			if err := os.WriteFile(filepath.Join(args[0], name), []byte(text), 0o644); err != nil {
				return err
			}
		}
		return nil
	}}
}

// cliReference is docs/cli.md.
func cliReference(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString("# Command line\n\n<!-- Made by `make docs` from the commands themselves. -->\n\nEvery command takes the global flags at the end of this page.\n\n")
	b.WriteString(strings.Replace(exitCodesHelp, "Exit codes:\n", "Exit codes:\n\n", 1) + "\n")
	for _, c := range commandsOf(root) {
		fmt.Fprintf(&b, "\n## %s\n\n%s.\n", c.CommandPath(), c.Short)
		if c.Long != "" {
			fmt.Fprintf(&b, "\n%s\n", c.Long)
		}
		if !c.HasSubCommands() {
			fmt.Fprintf(&b, "\n```\n%s\n```\n", c.UseLine())
		}
		if c.Example != "" {
			fmt.Fprintf(&b, "\nExamples:\n\n```\n%s\n```\n", c.Example)
		}
		flagTable(&b, c.LocalNonPersistentFlags())
	}
	b.WriteString("\n## Global flags\n")
	flagTable(&b, root.PersistentFlags())
	return b.String()
}

// commandsOf lists the commands that a reader sees, by name.
func commandsOf(root *cobra.Command) (all []*cobra.Command) {
	for _, c := range root.Commands() {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" || c.Name() == "exit-codes" {
			continue
		}
		all = append(append(all, c), commandsOf(c)...)
	}
	slices.SortFunc(all, func(x, y *cobra.Command) int { return strings.Compare(x.CommandPath(), y.CommandPath()) })
	return all
}

func flagTable(b *strings.Builder, flags *pflag.FlagSet) {
	var rows []string
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" || f.Name == "version" {
			return
		}
		def := f.DefValue
		if def != "" && def != "[]" {
			def = "`" + def + "`"
		} else {
			def = ""
		}
		rows = append(rows, fmt.Sprintf("| `--%s` | %s | %s |", f.Name, strings.ReplaceAll(f.Usage, "|", `\|`), def))
	})
	if len(rows) > 0 {
		fmt.Fprintf(b, "\n| flag | meaning | default |\n| --- | --- | --- |\n%s\n", strings.Join(rows, "\n"))
	}
}

// configurationReference is docs/configuration.md.
func configurationReference() string {
	var b strings.Builder
	b.WriteString(`# Configuration

<!-- Made by ` + "`make docs`" + ` from the code. -->

` + "`flowfabric serve` and `flowfabric dev`" + ` read these environment variables. Flags win over them.
Numbers are decimal; a value that does not fit ends the start with exit code 1 and
` + "`invalid value for <VARIABLE>`" + `.

| variable | default | flag | meaning |
| --- | --- | --- | --- |
`)
	for _, v := range variables(reflect.ValueOf(defaultSettings())) {
		def := fmt.Sprint(v.value.Interface())
		if def != "" {
			def = "`" + def + "`"
		}
		flag := v.Tag.Get("flag")
		if flag != "" {
			flag = "`" + flag + "`"
		}
		meaning := v.Tag.Get("doc")
		if only := v.Tag.Get("only"); only != "" {
			meaning += " (" + only + ")"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", v.name(), def, flag, meaning)
	}
	b.WriteString("\nA variable with `(sqlite)` or `(valkey)` behind its meaning has no effect on other stores; the server says so\nwhen it is set.\n")
	b.WriteString("\nOther commands read `FLOWFABRIC_SERVER` (URL of the server), `FF_API_TOKEN` (its token) and `NO_COLOR`.\n" +
		"With `--store valkey://…` they also read `FF_VALKEY_USER`, `FF_VALKEY_PASSWORD`, `FF_FORCE_LUA_RELOAD` and the counts of partitions.\n")
	b.WriteString("\n## Variables of the reference without effect\n\nWhen one of these is set, the server says once that it has no effect in this version:\n\n")
	for _, name := range idle {
		fmt.Fprintf(&b, "- `%s`\n", name)
	}
	return b.String()
}
