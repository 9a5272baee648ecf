package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"

	"github.com/docker/go-units"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/image"
)

// noName is docker's word for what an image has none of.
const noName = "<none>"

// imageRow is an image under one of its names, with docker's names for --format.
type imageRow struct {
	Repository, Tag, Digest, ID   string
	CreatedSince, CreatedAt, Size string
	VirtualSize                   string // as Size
	// What the store does not count.
	SharedSize, UniqueSize, Containers string
}

// imageHead are the heads of the columns.
var imageHead = imageRow{
	Repository: "REPOSITORY", Tag: "TAG", Digest: "DIGEST", ID: "IMAGE ID",
	CreatedSince: "CREATED", CreatedAt: "CREATED AT", Size: "SIZE", VirtualSize: "SIZE",
	SharedSize: "SHARED SIZE", UniqueSize: "UNIQUE SIZE", Containers: "CONTAINERS",
}

// imageRows are the lines of `fbuild images`.
func imageRows(list []*image.Image, whole bool, keep func(name string) bool) []imageRow {
	var rows []imageRow
	for _, img := range list {
		id := img.ID()
		if !whole {
			id = strings.TrimPrefix(id, "sha256:")[:12]
		}
		row := imageRow{
			Repository: noName, Tag: noName, Digest: img.Whole().Root().Digest.String(), ID: id,
			SharedSize: "N/A", UniqueSize: "N/A", Containers: "N/A",
			CreatedSince: "N/A", CreatedAt: "N/A", Size: units.HumanSizeWithPrecision(float64(img.Size()), 3),
		}
		row.VirtualSize = row.Size
		if created := img.Config.Created.Time; !created.IsZero() {
			row.CreatedSince, row.CreatedAt = units.HumanDuration(time.Since(created))+" ago", created.Local().Format("2006-01-02 15:04:05 -0700 MST")
		}
		if len(img.Names) == 0 && keep("") {
			rows = append(rows, row)
		}
		for _, name := range img.Names {
			if !keep(name) {
				continue
			}
			short := image.Familiar(name)
			row.Repository, row.Tag = printable(image.Repository(short)), noName
			if !strings.Contains(short, "@") {
				row.Tag = printable(short[strings.LastIndex(short, ":")+1:])
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// imageFilter says which images are listed.
type imageFilter struct {
	patterns       []string
	named, unnamed bool
}

// readImageFilter chooses images by a name, by patterns of names, or by having one.
func readImageFilter(args, filters []string, all bool) (*imageFilter, error) {
	f := &imageFilter{patterns: slices.Clone(args), named: true, unnamed: all}
	for _, text := range filters {
		key, value, _ := strings.Cut(text, "=")
		switch key {
		case "reference":
			f.patterns = append(f.patterns, value)
		case "dangling":
			yes, err := strconv.ParseBool(value)
			if err != nil {
				return nil, usagef("--filter %q: want dangling=true or dangling=false", text)
			}
			f.named, f.unnamed = !yes, yes
		default:
			return nil, usagef("--filter %q: there are reference=PATTERN and dangling=true|false", text)
		}
	}
	for _, p := range f.patterns {
		if _, err := path.Match(p, ""); err != nil {
			return nil, usagef("%q is no pattern: %v", p, err)
		}
	}
	return f, nil
}

func (f *imageFilter) list(ctx context.Context, s *cache.Store) ([]*image.Image, error) {
	if f.unnamed {
		return image.All(ctx, s)
	}
	return image.List(ctx, s)
}

// keeps says whether a name is listed; "" is an image that has none.
func (f *imageFilter) keeps(name string) bool {
	if name == "" {
		return f.unnamed && len(f.patterns) == 0
	}
	short := image.Familiar(name)
	repo := image.Repository(short)
	return f.named && (len(f.patterns) == 0 || slices.ContainsFunc(f.patterns, func(p string) bool {
		return slices.ContainsFunc([]string{name, short, repo}, func(n string) bool {
			ok, _ := path.Match(p, n)
			return ok
		})
	}))
}

// imagesShown says how images are listed.
type imagesShown struct {
	quiet, whole, digests bool
	format                string
}

func (o *imagesShown) write(w io.Writer, rows []imageRow) error {
	format, table := strings.CutPrefix(o.format, "table")
	switch {
	case o.quiet:
		return writeIDs(w, rows)
	case o.format == "json":
		return formatEach(w, "{{json .}}", rows)
	case o.format == "" || table && format == "":
		format = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
		if o.digests {
			format = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
		}
	case !table:
		return formatEach(w, o.format, rows)
	}
	tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0) // as docker's
	if err := formatEach(tw, strings.TrimSpace(format), append([]imageRow{imageHead}, rows...)); err != nil {
		return err
	}
	return tw.Flush()
}

func writeIDs(w io.Writer, rows []imageRow) error {
	seen := map[string]bool{}
	for _, r := range rows {
		if seen[r.ID] {
			continue
		}
		seen[r.ID] = true
		if _, err := fmt.Fprintln(w, r.ID); err != nil {
			return err
		}
	}
	return nil
}

// formatEach writes each value by a Go template, one to a line, as docker does.
func formatEach[T any](w io.Writer, format string, values []T) error {
	t, err := template.New("format").Option("missingkey=error").Funcs(template.FuncMap{
		"json":  func(v any) (string, error) { b, err := json.Marshal(v); return string(b), err },
		"lower": strings.ToLower, "upper": strings.ToUpper, "join": strings.Join, "split": strings.Split,
		"title": func(s string) string { return strings.ToUpper(s[:min(1, len(s))]) + s[min(1, len(s)):] },
		"pad": func(s string, before, after int) string {
			return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
		},
		"truncate": func(s string, n int) string { return s[:min(max(n, 0), len(s))] },
	}).Parse(strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(format))
	if err != nil {
		return usagef("--format: %v", err)
	}
	for _, v := range values {
		if err := t.Execute(w, v); err != nil {
			return usagef("--format: %v", err)
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
	}
	return nil
}
