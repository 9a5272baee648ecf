package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/image"
	"github.com/fbuild/fbuild/oci"
)

const noImageHint = "fbuild images lists what is there; fbuild pull fetches an image, fbuild build -t NAME makes one"

// findImage finds an image of the store for a command.
func findImage(ctx context.Context, s *cache.Store, name string) (*image.Image, error) {
	img, err := image.Find(ctx, s, name)
	if errors.Is(err, image.ErrNoImage) {
		err = &hintError{err, noImageHint}
	}
	return img, err
}

// imageRow is an image under one of its names, with docker's names for --format.
type imageRow struct {
	Repository, Tag, Digest, ID   string
	CreatedSince, CreatedAt, Size string
}

// imageRows are the lines of `fbuild images`.
func imageRows(list []*image.Image, whole bool, keep func(name string) bool) []imageRow {
	var rows []imageRow
	for _, img := range list {
		id := img.ID()
		if !whole {
			id = strings.TrimPrefix(id, "sha256:")[:12]
		}
		since, at := "N/A", "N/A"
		if created := img.Config.Created.Time; !created.IsZero() {
			since, at = units.HumanDuration(time.Since(created))+" ago", created.Format(time.RFC3339)
		}
		for _, name := range img.Names {
			if !keep(name) {
				continue
			}
			short := image.Familiar(name)
			i := strings.LastIndex(short, ":")
			rows = append(rows, imageRow{
				Repository: printable(short[:i]), Tag: printable(short[i+1:]), Digest: img.Whole().Root().Digest.String(), ID: id,
				CreatedSince: since, CreatedAt: at, Size: units.HumanSizeWithPrecision(float64(img.Size()), 3),
			})
		}
	}
	return rows
}

func (a *app) imagesCommand(name string) *cobra.Command {
	var quiet, whole, digests bool
	var format string
	var filters []string
	cmd := &cobra.Command{
		Use: name + " [NAME[:TAG]]", Short: "List the images of the store",
		Long: "List the images of the store that have names. SIZE is that of the compressed layers.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%s takes one name at most", cmd.CommandPath())
			}
			keep, err := nameFilter(args, filters)
			if err != nil {
				return err
			}
			return a.withStore(cmd.Context(), func(s *cache.Store) error {
				list, err := image.List(cmd.Context(), s)
				if err != nil {
					return err
				}
				rows := imageRows(list, whole, keep)
				switch {
				case quiet:
					return writeIDs(a.stdout, rows)
				case format == "json":
					return formatEach(a.stdout, "{{json .}}", rows)
				case format != "" && format != "table":
					return formatEach(a.stdout, format, rows)
				}
				return writeImages(a.stdout, rows, digests)
			})
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only IDs")
	cmd.Flags().BoolVar(&whole, "no-trunc", false, "whole IDs")
	cmd.Flags().BoolVar(&digests, "digests", false, "show the digests of manifests")
	cmd.Flags().StringVar(&format, "format", "", "table, json, or a Go template over .Repository .Tag .ID .Digest .CreatedSince .CreatedAt .Size")
	cmd.Flags().StringArrayVarP(&filters, "filter", "f", nil, "reference=PATTERN")
	cmd.Flags().BoolP("all", "a", false, "every image has a name here: nothing more is listed")
	cmd.Flags().Lookup("all").Hidden = true
	return cmd
}

// nameFilter chooses images by a name, or by patterns of names.
func nameFilter(args, filters []string) (func(name string) bool, error) {
	patterns := slices.Clone(args)
	for _, f := range filters {
		value, ok := strings.CutPrefix(f, "reference=")
		if !ok {
			return nil, usagef("--filter %q: there is reference=PATTERN", f)
		}
		patterns = append(patterns, value)
	}
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			return nil, usagef("%q is no pattern: %v", p, err)
		}
	}
	return func(name string) bool {
		return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool {
			short := image.Familiar(name)
			repo := short[:strings.LastIndex(short, ":")]
			for _, n := range []string{name, short, repo} {
				if ok, _ := path.Match(p, n); ok {
					return true
				}
			}
			return false
		})
	}, nil
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

func writeImages(out io.Writer, rows []imageRow, digests bool) error {
	w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	head := "REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSIZE"
	if digests {
		head = "REPOSITORY\tTAG\tDIGEST\tIMAGE ID\tCREATED\tSIZE"
	}
	fmt.Fprintln(w, head)
	for _, r := range rows {
		cells := []string{r.Repository, r.Tag, r.ID, r.CreatedSince, r.Size}
		if digests {
			cells = slices.Insert(cells, 2, r.Digest)
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

// formatEach writes each value by a Go template, one to a line, as docker does.
func formatEach[T any](w io.Writer, format string, values []T) error {
	t, err := template.New("format").Funcs(template.FuncMap{
		"json":  func(v any) (string, error) { b, err := json.Marshal(v); return string(b), err },
		"lower": strings.ToLower, "upper": strings.ToUpper, "join": strings.Join,
	}).Parse(format)
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

func (a *app) removeImageCommand(name string) *cobra.Command {
	cmd := &cobra.Command{
		Use: name + " NAME...", Short: "Take images out of the store",
		Long: "Take the names of images away. What no other image or stored result needs is removed from the disk by fbuild cache prune.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s needs the name of an image", cmd.CommandPath())
			}
			force, err := cmd.Flags().GetBool("force")
			if err != nil {
				return err
			}
			return a.withStore(cmd.Context(), func(s *cache.Store) error {
				var errs []error
				for _, name := range args {
					errs = append(errs, a.removeImage(cmd.Context(), s, name, force))
				}
				return errors.Join(errs...)
			})
		},
	}
	cmd.Flags().BoolP("force", "f", false, "remove an image of several names by its ID; no error where there is none")
	cmd.Flags().Bool("no-prune", false, "what is left without a name stays in any case")
	cmd.Flags().Lookup("no-prune").Hidden = true
	return cmd
}

func (a *app) removeImage(ctx context.Context, s *cache.Store, name string, force bool) error {
	if full, err := image.Name(name); err == nil { // also of a damaged image
		err := s.Untag(full)
		if err == nil {
			fmt.Fprintln(a.stdout, "Untagged:", image.Familiar(full))
		}
		if !errors.Is(err, cache.ErrNotFound) {
			return err
		}
	}
	img, err := findImage(ctx, s, name)
	if err != nil {
		if force && errors.Is(err, image.ErrNoImage) {
			return nil
		}
		return err
	}
	names := img.Names
	if len(names) > 1 && !force {
		return &hintError{fmt.Errorf("%s has %d names: %s", name, len(names), strings.Join(names, ", ")), "remove the names one by one, or all of them with --force"}
	}
	for _, n := range names {
		if err := s.Untag(n); err != nil {
			return err
		}
		fmt.Fprintln(a.stdout, "Untagged:", image.Familiar(n))
	}
	return nil
}

func (a *app) tagCommand() *cobra.Command {
	return &cobra.Command{
		Use: "tag IMAGE NAME[:TAG]", Short: "Give an image of the store another name",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("%s needs an image and its new name", cmd.CommandPath())
			}
			if _, err := image.Name(args[1]); err != nil {
				return &usageError{err}
			}
			return a.withStore(cmd.Context(), func(s *cache.Store) error {
				img, err := findImage(cmd.Context(), s, args[0])
				if err != nil {
					return err
				}
				return image.Tag(s, img, args[1])
			})
		},
	}
}

func (a *app) inspectCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "inspect IMAGE...", Short: "Show what an image of the store is, as docker inspect does",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s needs an image", cmd.CommandPath())
			}
			return a.withStore(cmd.Context(), func(s *cache.Store) error {
				list := []map[string]any{}
				for _, name := range args {
					img, err := findImage(cmd.Context(), s, name)
					if err != nil {
						return err
					}
					v, err := img.Inspect()
					if err != nil {
						return err
					}
					list = append(list, v)
				}
				if format != "" && format != "json" {
					return formatEach(a.stdout, format, list)
				}
				e := json.NewEncoder(a.stdout)
				e.SetIndent("", "    ")
				return e.Encode(list)
			})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "json, or a Go template: {{.Id}}, {{json .Config.Env}}")
	cmd.Flags().String("type", "image", "there are images only")
	cmd.Flags().Lookup("type").Hidden = true
	return cmd
}

func (a *app) diffCommand() *cobra.Command {
	var format, platform string
	var times bool
	var registry registryFlags
	cmd := &cobra.Command{
		Use: "diff IMAGE IMAGE", Short: "Show which files differ between two images, and how",
		Long: `Show which files differ between two images of the store, of registries, or of layouts (oci-layout://PATH). Nothing is unpacked.

+ added, - removed, ~ changed. Exit codes: 0 they are the same, 1 they differ, 2 wrong usage; an error is 1 with a message.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("%s needs two images", cmd.CommandPath())
			}
			if format != "text" && format != "json" {
				return usagef("--format %q: there are text and json", format)
			}
			p, err := platformOf(platform)
			if err != nil {
				return err
			}
			return a.withStore(cmd.Context(), func(s *cache.Store) error {
				r, err := registry.remote()
				if err != nil {
					return err
				}
				defer r.Close()
				list, err := diffImages(cmd.Context(), s, r, args, p, times)
				if err != nil {
					return err
				}
				return a.writeDiff(list, format)
			})
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	cmd.Flags().BoolVar(&times, "times", false, "modification times count as well")
	cmd.Flags().StringVar(&platform, "platform", "", "of images for several platforms (default: this host's)")
	registry.define(cmd.Flags())
	return cmd
}

// errDiffer ends a diff of images that are not the same.
var errDiffer = errors.New("the images differ")

func (a *app) writeDiff(list []image.Difference, format string) error {
	if format == "json" {
		e := json.NewEncoder(a.stdout)
		if list == nil {
			list = []image.Difference{}
		}
		if err := e.Encode(list); err != nil {
			return err
		}
	} else {
		for _, d := range list {
			mark := map[string]string{"added": "+", "removed": "-", "changed": "~"}[d.How]
			what := strings.Join(d.What, "; ")
			if what != "" {
				what = "  (" + what + ")"
			}
			fmt.Fprintf(a.stdout, "%s /%s%s\n", mark, printable(d.Path), printable(what))
		}
	}
	if len(list) > 0 {
		return errDiffer
	}
	return nil
}

func diffImages(ctx context.Context, s *cache.Store, r *oci.Remote, args []string, p oci.Platform, times bool) ([]image.Difference, error) {
	var both [2]*oci.Built
	for i, name := range args {
		img, err := image.Anywhere(ctx, s, r, name, p)
		if err != nil {
			return nil, err
		}
		both[i] = img
	}
	old, err := image.Tree(ctx, s, both[0])
	if err != nil {
		return nil, err
	}
	now, err := image.Tree(ctx, s, both[1])
	if err != nil {
		return nil, err
	}
	return image.Diff(old, now, times), nil
}
