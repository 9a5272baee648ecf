package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/cache"
)

func (a *app) pruneCommand() *cobra.Command {
	var o cache.PruneOptions
	var until, keep string
	var filters []string
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove what the store does not need", Args: noArgs,
		Long: `Without flags, what no image and no stored result leads to is removed. What a running build uses stays, and so do named images.

--filter takes until=24h or unused-for=24h (as --until), id=ID (cache mounts with that id alone), and type=TYPE:
  results, regular                 what steps made
  mounts, exec.cachemount          the directories of RUN --mount=type=cache
  contexts, source.local           what is known of the files of build contexts
  trees                            directories made where /dev/fuse is not to be had`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := parsePrune(&o, until, keep, filters); err != nil {
				return err
			}
			return a.withStore(cmd.Context(), func(s *cache.Store) error { return a.prune(cmd.Context(), s, o) })
		},
	}
	cmd.Flags().BoolVarP(&o.All, "all", "a", false, "remove everything that no named image needs")
	cmd.Flags().StringVar(&until, "until", "", "remove results not used for so long (24h)")
	cmd.Flags().StringVar(&keep, "keep", "", "remove the results not used for longest until the store is no larger (10GB)")
	cmd.Flags().StringArrayVar(&filters, "filter", nil, "what may go: until=24h, unused-for=24h, type=TYPE, id=ID")
	for _, name := range []string{"keep-storage", "max-used-space"} { // docker's
		cmd.Flags().StringVar(&keep, name, "", "the same as --keep")
		cmd.Flags().Lookup(name).Hidden = true
	}
	cmd.Flags().BoolP("force", "f", false, "nothing is asked in any case")
	cmd.Flags().Lookup("force").Hidden = true
	return cmd
}

// pruneTypes are the names of types, ours and docker's.
var pruneTypes = map[string]cache.PruneType{
	"results": cache.PruneResults, "regular": cache.PruneResults,
	"mounts": cache.PruneMounts, "exec.cachemount": cache.PruneMounts,
	"contexts": cache.PruneContexts, "source.local": cache.PruneContexts,
	"trees": cache.PruneTrees,
}

// parsePrune reads what the flags of prune say.
func parsePrune(o *cache.PruneOptions, until, keep string, filters []string) error {
	var err error
	for _, f := range filters {
		key, value, ok := strings.Cut(f, "=")
		switch {
		case !ok || value == "":
			return usagef("--filter %q: want KEY=VALUE", f)
		case key == "until", key == "unused-for":
			until = value
		case key == "id":
			o.Mounts = append(o.Mounts, value)
		case key == "type":
			t, ok := pruneTypes[value]
			if !ok {
				return usagef("--filter %q: the types are results, mounts, contexts and trees", f)
			}
			o.Types = append(o.Types, t)
		default:
			return usagef("--filter %q: the filters are until, unused-for, type and id", f)
		}
	}
	if o.Mounts != nil {
		if len(o.Types) > 1 || len(o.Types) == 1 && o.Types[0] != cache.PruneMounts {
			return usagef("--filter id= is for cache mounts: use it alone or with type=mounts")
		}
		o.Types = []cache.PruneType{cache.PruneMounts}
	}
	if until != "" {
		if o.Until, err = time.ParseDuration(until); err != nil || o.Until <= 0 {
			return usagef("--until %q: want a time like 24h", until)
		}
	}
	if keep != "" {
		if o.KeepBytes, err = parseSize(keep); err != nil {
			return usagef("--keep %q: want a size like 10GB", keep)
		}
	}
	return nil
}

func parseSize(text string) (int64, error) {
	n, err := units.RAMInBytes(text)
	if err == nil && n <= 0 {
		err = fmt.Errorf("size %q: not above zero", text)
	}
	return n, err
}

func (a *app) prune(ctx context.Context, s *cache.Store, o cache.PruneOptions) error {
	r, err := s.Prune(ctx, o)
	if err != nil {
		return err
	}
	if len(r.Leftovers) > 0 {
		if err := build.Sweep(ctx, r.Leftovers); err != nil {
			return fmt.Errorf("remove what a killed build left: %w", err)
		}
	}
	if r.Busy > 0 {
		fmt.Fprintf(a.stderr, "%d objects stay: a running build uses them\n", r.Busy)
	}
	var more strings.Builder
	for _, kind := range []struct {
		n    int
		what string
	}{{r.Mounts, "cache mounts"}, {r.Contexts, "contexts"}, {r.Trees, "trees"}} {
		if kind.n > 0 {
			fmt.Fprintf(&more, ", %d %s", kind.n, kind.what)
		}
	}
	_, err = fmt.Fprintf(a.stdout, "Removed %d results, %d layers, %d blobs, %d packs%s: %s\n",
		r.Records, r.Layers, r.Blobs, r.Packs, more.String(), units.BytesSize(float64(r.Bytes)))
	return err
}

func (a *app) limitCommand() *cobra.Command {
	return &cobra.Command{
		Use: "limit [SIZE|none]", Short: "Show or set how much the store may take on the disk",
		Long: "With a limit, a build that leaves the store larger removes the results not used for longest, down to nine tenths of it. Named images and what running builds use stay.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%s takes one size, or none", cmd.CommandPath())
			}
			return a.withStore(cmd.Context(), func(s *cache.Store) error { return a.limit(s, args) })
		},
	}
}

func (a *app) limit(s *cache.Store, args []string) error {
	if len(args) == 0 {
		n, err := s.Limit()
		if err != nil {
			return err
		}
		text := "none"
		if n > 0 {
			text = units.BytesSize(float64(n))
		}
		_, err = fmt.Fprintln(a.stdout, text)
		return err
	}
	if args[0] == "none" {
		return s.SetLimit(0)
	}
	n, err := parseSize(args[0])
	if err != nil {
		return usagef("limit %q: want a size like 20GB, or none", args[0])
	}
	return s.SetLimit(n)
}

// trim keeps the store's limit after a build. Whether it can is no matter of the
// build: it is said, and the build is what it is.
func (a *app) trim(ctx context.Context, s *cache.Store) {
	if ctx.Err() != nil {
		return
	}
	r, err := s.Trim(ctx)
	if err == nil && len(r.Leftovers) > 0 {
		err = build.Sweep(ctx, r.Leftovers)
	}
	if err != nil {
		fmt.Fprintf(a.stderr, "fbuild: warning: keep the limit of the store: %v\n", err)
	}
	if r.Bytes > 0 {
		fmt.Fprintf(a.stderr, "fbuild: removed %s of results not used for longest, to keep the limit of the store\n", units.BytesSize(float64(r.Bytes)))
	}
}
