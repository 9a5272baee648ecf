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

	"github.com/fbuild/fbuild/cache"
)

func (a *app) cacheCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cache", Short: "Look after the store", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.duCommand(), a.pruneCommand(), a.limitCommand(), a.verifyCommand())
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
