package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/cache"
)

func (a *app) cacheCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cache", Short: "Look after the store", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.duCommand(), a.pruneCommand(), a.verifyCommand())
	return cmd
}

// withStore opens the store for one command.
func (a *app) withStore(ctx context.Context, fn func(*cache.Store) error) (err error) {
	dir, err := a.storeDir()
	if err != nil {
		return err
	}
	s, err := cache.Open(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return fn(s)
}

func (a *app) duCommand() *cobra.Command {
	var verbose bool
	cmd := &cobra.Command{
		Use: "du", Short: "Show what the store takes on the disk", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd.Context(), func(s *cache.Store) error {
				u, err := s.Usage(cmd.Context())
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(a.stdout, 0, 8, 3, ' ', 0)
				fmt.Fprintln(w, "KIND\tFILES\tSIZE")
				for _, k := range u.Kinds {
					fmt.Fprintf(w, "%s\t%d\t%s\n", k.Kind, k.Files, units.BytesSize(float64(k.Bytes)))
				}
				fmt.Fprintf(w, "total\t\t%s\n", units.BytesSize(float64(u.Total)))
				if verbose {
					if err := listMounts(w, s); err != nil {
						return err
					}
				}
				return w.Flush()
			})
		},
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "list the cache mounts as well")
	return cmd
}

// listMounts shows the directories of RUN --mount=type=cache, the largest first.
func listMounts(w io.Writer, s *cache.Store) error {
	mounts, err := s.CacheMounts()
	if err != nil {
		return err
	}
	slices.SortFunc(mounts, func(a, b cache.MountUsage) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.ID, b.ID))
	})
	fmt.Fprintln(w, "\nCACHE MOUNT\tLAST USED\tSIZE")
	for _, m := range mounts {
		fmt.Fprintf(w, "%s\t%s ago\t%s\n", printable(m.ID), units.HumanDuration(time.Since(m.LastUsed)), units.BytesSize(float64(m.Bytes)))
	}
	return nil
}

func (a *app) pruneCommand() *cobra.Command {
	var o cache.PruneOptions
	var until, keep string
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove what the store does not need", Args: noArgs,
		Long: "Without flags, what no image and no stored result leads to is removed. What a running build uses stays.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if until != "" {
				if o.Until, err = time.ParseDuration(until); err != nil || o.Until <= 0 {
					return usagef("--until %q: want a time like 24h", until)
				}
			}
			if keep != "" {
				if o.KeepBytes, err = units.RAMInBytes(keep); err != nil || o.KeepBytes <= 0 {
					return usagef("--keep %q: want a size like 10GB", keep)
				}
			}
			return a.withStore(cmd.Context(), func(s *cache.Store) error { return a.prune(cmd.Context(), s, o) })
		},
	}
	cmd.Flags().BoolVarP(&o.All, "all", "a", false, "remove everything that no named image needs")
	cmd.Flags().StringVar(&until, "until", "", "remove results not used for so long (24h)")
	cmd.Flags().StringVar(&keep, "keep", "", "remove the results not used for longest until the store is no larger (10GB)")
	return cmd
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
	mounts := ""
	if r.Mounts > 0 {
		mounts = fmt.Sprintf(", %d cache mounts", r.Mounts)
	}
	_, err = fmt.Fprintf(a.stdout, "Removed %d results, %d layers, %d blobs, %d packs%s: %s\n",
		r.Records, r.Layers, r.Blobs, r.Packs, mounts, units.BytesSize(float64(r.Bytes)))
	return err
}

// errDamaged ends verify where something is wrong.
var errDamaged = errors.New("the store is damaged")

func (a *app) verifyCommand() *cobra.Command {
	var o cache.VerifyOptions
	cmd := &cobra.Command{
		Use: "verify", Short: "Check every byte of the store against its digest", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd.Context(), func(s *cache.Store) error {
				bad := 0
				err := s.Verify(cmd.Context(), o, func(p cache.Problem) {
					bad++
					what := ""
					if p.Removed {
						what = " (removed)"
					}
					fmt.Fprintf(a.stdout, "%s %s: %v%s\n", p.Kind, p.Name, p.Err, what)
				})
				if err != nil {
					return err
				}
				if bad > 0 && !o.Remove {
					return &hintError{fmt.Errorf("%w: %d problems", errDamaged, bad), "fbuild cache verify --remove removes them; later builds make them anew"}
				}
				_, err = fmt.Fprintln(a.stdout, "The store is sound.")
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&o.Remove, "remove", false, "remove what is wrong")
	return cmd
}
