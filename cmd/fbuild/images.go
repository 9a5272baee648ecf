package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

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

func (a *app) imagesCommand(name string) *cobra.Command {
	var show imagesShown
	var all bool
	var filters []string
	cmd := &cobra.Command{
		Use: name + " [NAME[:TAG]]", Short: "List the images of the store",
		Long: `List the images of the store that have names, with --all or --filter dangling=true also those that have none. SIZE is that of the compressed layers.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%s takes one name at most", cmd.CommandPath())
			}
			keep, err := readImageFilter(args, filters, all)
			if err != nil {
				return err
			}
			return a.withStore(cmd.Context(), func(s *cache.Store) error {
				list, err := keep.list(cmd.Context(), s)
				if err != nil {
					return err
				}
				return show.write(a.stdout, imageRows(list, show.whole, keep.keeps))
			})
		},
	}
	cmd.Flags().BoolVarP(&show.quiet, "quiet", "q", false, "only IDs")
	cmd.Flags().BoolVar(&show.whole, "no-trunc", false, "whole IDs")
	cmd.Flags().BoolVar(&show.digests, "digests", false, "show the digests of manifests")
	cmd.Flags().StringVar(&show.format, "format", "", "table, json, or a Go template over .Repository .Tag .ID .Digest .CreatedSince .CreatedAt .Size, with \"table \" before it in columns")
	cmd.Flags().StringArrayVarP(&filters, "filter", "f", nil, "reference=PATTERN or dangling=true|false")
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also images without a name")
	return cmd
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
	img, err := findImage(ctx, s, name)
	full, nerr := image.Name(name)
	if ref, rerr := oci.ParseRef(name); rerr == nil && strings.Contains(name, "@") {
		full, nerr = oci.FullName(ref), nil
	}
	if nerr == nil && (err != nil || slices.Contains(img.Names, full)) { // also of a damaged image
		uerr := s.Untag(full)
		if uerr == nil {
			fmt.Fprintln(a.stdout, "Untagged:", image.Familiar(full))
			if err == nil {
				return a.forget(ctx, s, img)
			}
			return nil
		}
		if !errors.Is(uerr, cache.ErrNotFound) {
			return uerr
		}
	}
	if err != nil {
		if force && errors.Is(err, image.ErrNoImage) {
			fmt.Fprintln(a.stderr, "fbuild: warning:", err)
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
	return a.forget(ctx, s, img)
}

// forget ends an image that lost its last name.
func (a *app) forget(ctx context.Context, s *cache.Store, img *image.Image) error {
	gone, err := image.Forget(ctx, s, img)
	if err == nil && gone {
		fmt.Fprintln(a.stdout, "Deleted:", img.ID())
	}
	return err
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
				var missing []error
				for _, name := range args {
					img, err := findImage(cmd.Context(), s, name)
					if err != nil {
						missing = append(missing, err) // the others are shown, as docker does
						continue
					}
					v, err := img.Inspect()
					if err != nil {
						return err
					}
					list = append(list, v)
				}
				if format != "" && format != "json" {
					return errors.Join(append(missing, formatEach(a.stdout, format, list))...)
				}
				e := json.NewEncoder(a.stdout)
				e.SetIndent("", "    ")
				return errors.Join(append(missing, e.Encode(list))...)
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
