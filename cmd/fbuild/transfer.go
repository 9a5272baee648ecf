package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/image"
	"github.com/fbuild/fbuild/internal/outfile"
	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/progress"
)

// platformOf reads --platform of commands that run nothing; "" is this host's.
func platformOf(text string) (oci.Platform, error) {
	if text == "" {
		return onePlatform(nil)
	}
	p, err := v1.ParsePlatform(text)
	if err != nil {
		return oci.Platform{}, usagef("--platform: %w", err)
	}
	return oci.Normalize(*p), nil
}

// shown runs fn with a step that shows what is sent or fetched on stderr; quiet
// shows nothing.
func (a *app) shown(title string, quiet bool, fn func(step *progress.Step) error) error {
	mode := progress.Auto
	if quiet {
		mode = progress.Quiet
	}
	doing := "Pulling"
	if strings.HasPrefix(title, "push ") {
		doing = "Pushing"
	}
	d, err := progress.New(progress.Options{Mode: mode, Out: a.stderr, Doing: doing})
	if err != nil {
		return err
	}
	defer onStop(d)()
	step := d.Step(title)
	step.Start()
	err = fn(step)
	step.Done(err)
	return errors.Join(err, d.Close(err))
}

func (a *app) pullCommand() *cobra.Command {
	var platform string
	var quiet, all bool
	var registry registryFlags
	cmd := &cobra.Command{
		Use: "pull NAME[:TAG|@DIGEST]", Short: "Fetch an image from a registry into the store",
		Long: "Fetch an image from a registry into the store. Builds fetch what they need by themselves, and only that.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if all {
				return &hintError{usagef("--all-tags is not supported"), "pull the tags one by one; a registry may have thousands under one name"}
			}
			if len(args) != 1 {
				return usagef("%s needs the name of an image", cmd.CommandPath())
			}
			p, err := platformOf(platform)
			if err != nil {
				return err
			}
			ref, err := oci.ParseRef(args[0])
			if err != nil {
				return &usageError{err}
			}
			full := oci.FullName(ref)
			r, err := registry.remote()
			if err != nil {
				return err
			}
			defer r.Close()
			return a.withStore(cmd.Context(), func(s *cache.Store) error {
				old, _ := image.Find(cmd.Context(), s, full) // another, or none
				var img *image.Image
				err := a.shown("pull "+full, quiet, func(step *progress.Step) (err error) {
					img, err = image.Pull(cmd.Context(), s, r, full, p, step)
					return err
				})
				if err != nil {
					return err
				}
				if quiet {
					_, err = fmt.Fprintln(a.stdout, full)
					return err
				}
				status := "Downloaded newer image for"
				if old != nil && old.Desc.Digest == img.Desc.Digest {
					status = "Image is up to date for"
				}
				_, err = fmt.Fprintf(a.stdout, "Digest: %s\nStatus: %s %s\n%s\n", img.Desc.Digest, status, image.Familiar(full), full)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&platform, "platform", "", "the platform to fetch (default: this host's)")
	cmd.Flags().BoolVarP(&all, "all-tags", "a", false, "refused: tags are pulled one by one")
	cmd.Flags().Lookup("all-tags").Hidden = true
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only the name")
	registry.define(cmd.Flags())
	return cmd
}

func (a *app) pushCommand() *cobra.Command {
	var quiet, all bool
	var registry registryFlags
	cmd := &cobra.Command{
		Use: "push NAME[:TAG|@DIGEST]...", Short: "Send images of the store to their registries",
		Long: "Send images of the store to the registries that their names say, under that tag, or by their digest alone. What a registry has is not sent again.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s needs the name of an image", cmd.CommandPath())
			}
			r, err := registry.remote()
			if err != nil {
				return err
			}
			defer r.Close()
			return a.withStore(cmd.Context(), func(s *cache.Store) error {
				for _, name := range args {
					if err := a.push(cmd.Context(), s, r, name, all, quiet); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only the name")
	cmd.Flags().BoolVarP(&all, "all-tags", "a", false, "every tag of the repository that the store has")
	registry.define(cmd.Flags())
	return cmd
}

// push sends an image under one name, or all that the store has of its repository.
func (a *app) push(ctx context.Context, s *cache.Store, r *oci.Remote, name string, all, quiet bool) error {
	if strings.Contains(name, "@") && !all {
		return a.pushDigest(ctx, s, r, name, quiet)
	}
	full, err := image.Name(name)
	if err != nil {
		return &hintError{&usageError{err}, "an image is pushed by a name: fbuild tag IMAGE NAME gives it one"}
	}
	jobs := map[*image.Image][]string{}
	var order []*image.Image
	if all {
		list, err := image.List(ctx, s)
		if err != nil {
			return err
		}
		repo := full[:strings.LastIndex(full, ":")+1]
		for _, img := range list {
			for _, n := range img.Names {
				if strings.HasPrefix(n, repo) && !strings.Contains(n[len(repo):], "/") {
					jobs[img] = append(jobs[img], n)
				}
			}
			if jobs[img] != nil {
				order = append(order, img)
			}
		}
	}
	if len(order) == 0 {
		img, err := findImage(ctx, s, full)
		if err != nil {
			return err
		}
		jobs[img], order = []string{full}, []*image.Image{img}
	}
	for _, img := range order {
		if err := a.pushImage(ctx, r, img, jobs[img], quiet); err != nil {
			return err
		}
	}
	return nil
}

// pushDigest sends an image without a tag.
func (a *app) pushDigest(ctx context.Context, s *cache.Store, r *oci.Remote, name string, quiet bool) error {
	ref, err := oci.ParseRef(name)
	if err != nil {
		return &usageError{err}
	}
	img, err := findImage(ctx, s, ref.Identifier())
	if err != nil {
		return err
	}
	return a.pushImage(ctx, r, img, []string{oci.FullName(ref)}, quiet)
}

func (a *app) pushImage(ctx context.Context, r *oci.Remote, img *image.Image, names []string, quiet bool) error {
	err := a.shown("push "+strings.Join(names, ", "), quiet, func(step *progress.Step) error {
		_, err := r.Push(ctx, names, img.Whole(), func(st oci.Status) {
			if !st.Manifest {
				step.Status(string(st.Digest)+st.Note(), st.Current, st.Total, st.State != oci.Pushing)
			}
		})
		return err
	})
	if err != nil {
		return err
	}
	for _, n := range names {
		line := n
		if !quiet {
			line = fmt.Sprintf("%s: digest: %s size: %d", n, img.Whole().Root().Digest, img.Whole().Root().Size)
		}
		if _, err := fmt.Fprintln(a.stdout, line); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) saveCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "save [-o FILE] IMAGE...", Short: "Write images of the store as an archive that docker, podman and ctr load",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s needs an image", cmd.CommandPath())
			}
			if file == "" {
				if f, ok := a.stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
					return &hintError{usagef("an archive is not for a terminal"), "name a file with -o, or send it somewhere"}
				}
			}
			return a.withStore(cmd.Context(), func(s *cache.Store) error {
				list, err := savedImages(cmd.Context(), s, args)
				if err != nil {
					return err
				}
				write := func(w io.Writer) error { return oci.WriteDockerArchive(cmd.Context(), w, list...) }
				if file == "" {
					return write(a.stdout)
				}
				return outfile.Write(file, write)
			})
		},
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "the file (default: stdout)")
	return cmd
}

// savedImages finds the images of a save: each with the names that were given, or,
// given by its ID, with none.
func savedImages(ctx context.Context, s *cache.Store, args []string) ([]oci.Saved, error) {
	var list []oci.Saved
	for _, arg := range args {
		img, err := findImage(ctx, s, arg)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(list, func(l oci.Saved) bool { return l.Image.Root().Digest == img.Whole().Root().Digest })
		if i < 0 {
			i = len(list)
			list = append(list, oci.Saved{Image: img.Whole()})
		}
		if full, err := image.Name(arg); err == nil && slices.Contains(img.Names, full) && !slices.Contains(list[i].Names, full) {
			list[i].Names = append(list[i].Names, full)
		}
	}
	return list, nil
}

func (a *app) loadCommand() *cobra.Command {
	var file, platform string
	cmd := &cobra.Command{
		Use: "load [-i FILE]", Short: "Put the images of an archive into the store", Args: noArgs,
		Long: "Put the images of an archive of docker save, podman save, buildx or fbuild into the store. It may be compressed with gzip.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := platformOf(platform)
			if err != nil {
				return err
			}
			if file == "" && term.IsTerminal(int(os.Stdin.Fd())) {
				return &hintError{usagef("an archive is not typed"), "name a file with -i, or send one to stdin"}
			}
			return a.withStore(cmd.Context(), func(s *cache.Store) error {
				from := file
				if from == "" {
					if from, err = image.Spool(s, os.Stdin); err != nil {
						return err
					}
					defer func() { _ = os.Remove(from) }() // or the store's sweep does
				}
				list, err := image.Load(cmd.Context(), s, from, p)
				if err != nil && from != file {
					err = &stdinError{err, from}
				}
				if err != nil {
					return err
				}
				return a.sayLoaded(list)
			})
		},
	}
	cmd.Flags().StringVarP(&file, "input", "i", "", "the file (default: stdin)")
	cmd.Flags().StringVar(&platform, "platform", "", "of images for several platforms (default: this host's)")
	cmd.Flags().BoolP("quiet", "q", false, "there is nothing to leave out")
	cmd.Flags().Lookup("quiet").Hidden = true
	return cmd
}

// stdinError is an error about the file that stdin was read into.
type stdinError struct {
	err  error
	file string
}

func (e *stdinError) Error() string { return strings.ReplaceAll(e.err.Error(), e.file, "from stdin") }
func (e *stdinError) Unwrap() error { return e.err }

func (a *app) sayLoaded(list []*image.Image) error {
	for _, img := range list {
		var lines []string
		for _, n := range img.Names {
			lines = append(lines, "Loaded image: "+image.Familiar(n))
		}
		if len(lines) == 0 {
			lines = []string{"Loaded image ID: " + img.ID()}
		}
		for _, line := range lines {
			if _, err := fmt.Fprintln(a.stdout, printable(line)); err != nil {
				return err
			}
		}
	}
	return nil
}
