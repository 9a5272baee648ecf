package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/progress"
)

func (a *app) buildCommand() *cobra.Command {
	f := &buildFlags{}
	cmd := &cobra.Command{
		Use: "build [flags] PATH | URL | -", Short: "Build an image from a Dockerfile",
		Long: `Build an image from the Dockerfile of a build context: a directory, the address of a
git repository (https://HOST/REPO.git#BRANCH:DIRECTORY, git@HOST:REPO) or of a tar
archive, or - for an archive or a Dockerfile alone on stdin.`,
		Example: `  fbuild build -t app .
  fbuild build -t app --load .
  fbuild build -t registry.example.com/team/app:1.0 --push .
  fbuild build -o type=oci,dest=app.tar https://git.example.com/team/app.git#main`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("build needs exactly one argument: the build context as a directory (often \".\"), a git or http address, or - for stdin")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			warnings, err := checkDocker(cmd)
			if err != nil {
				return err
			}
			for _, w := range warnings {
				fmt.Fprintln(a.stderr, "WARNING:", w)
			}
			return a.build(cmd.Context(), f, args[0])
		},
	}
	f.define(cmd)
	f.complete(cmd)
	return cmd
}

// build does one `fbuild build`.
func (a *app) build(ctx context.Context, f *buildFlags, path string) (err error) {
	o, err := a.options(f, path)
	if err != nil {
		return err
	}
	mode := progress.Mode(f.progress)
	if f.quiet {
		mode = progress.Quiet
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	o.Progress, err = progress.New(progress.Options{Mode: mode, Out: a.stderr, Failed: func(err error) {
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.EIO) { // the reader, or the terminal, is gone
			cancel(err)
		}
	}})
	if err != nil {
		return &hintError{&usageError{err}, "there are auto, plain, tty (on a terminal), quiet, rawjson and none"}
	}
	defer onStop(o.Progress)()
	if err := f.forgetOld(); err != nil {
		return errors.Join(err, o.Progress.Close(err))
	}
	res, err := a.runBuild(ctx, f, o)
	if cerr := o.Progress.Close(err); err == nil {
		err = cerr
	}
	if err != nil {
		err = errors.Join(a.withSource(err, o.File), f.reportFailure(o, err))
		if o.Progress.Lines() {
			a.sayDocker(err)
		}
		return f.withStatus(err)
	}
	if f.after != nil {
		return f.after()
	}
	return a.report(f, o, res)
}

func (a *app) runBuild(ctx context.Context, f *buildFlags, o *build.Options) (_ *build.Result, err error) {
	dir, err := a.storeDir()
	if err != nil {
		return nil, err
	}
	if err := f.findLoader(ctx); err != nil {
		return nil, err
	}
	o.Store, err = cache.Open(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		a.trim(ctx, o.Store)
		err = errors.Join(err, o.Store.Close())
	}()
	o.Origin = origin(o.ContextDir, f.file)
	src, err := openSource(ctx, o, o.ContextDir, f.file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	o.ContextDir = src.Dir
	if err := loadFile(f, o, src); err != nil {
		return nil, err
	}
	if err := checkFilter(o.File, f.noCacheFilter); err != nil {
		return nil, err
	}
	if o.Remote, err = f.registry.remote(); err != nil {
		return nil, err
	}
	defer o.Remote.Close()
	if f.calls() {
		f.after, err = a.call(ctx, f, o)
		return nil, err
	}
	return build.Build(ctx, *o)
}

// loadFile reads and parses the Dockerfile and finds the ignore file.
func loadFile(f *buildFlags, o *build.Options, from *source) error {
	args, err := buildArgs(f.args)
	if err != nil {
		return err
	}
	o.Origin.BuildArgs = args
	name, src, err := from.dockerfile()
	if err != nil {
		return err
	}
	step := o.Progress.Step("[internal] load build definition from " + filepath.Base(name))
	step.Start()
	err = parseFile(o, name, src, args)
	step.Done(err)
	if err != nil {
		return err
	}
	if err := takeEpoch(o); err != nil {
		return err
	}
	step = o.Progress.Step("[internal] load .dockerignore")
	step.Start()
	o.Ignore, err = from.ignore(name)
	step.Done(err)
	return err
}

// parseFile parses the Dockerfile; of one with a fault the lines remain, to show the
// place.
func parseFile(o *build.Options, name string, src []byte, args map[string]string) (err error) {
	opts := dockerfile.Options{BuildArgs: args, Target: o.Target, TargetPlatform: o.Platform.String()}
	for c := range o.Contexts {
		opts.Contexts = append(opts.Contexts, c)
	}
	if o.File, err = dockerfile.Parse(name, src, opts); err != nil {
		o.File = &dockerfile.File{Name: name, Lines: strings.Split(string(src), "\n")}
		return err
	}
	for i := range o.Platforms {
		p := &o.Platforms[i]
		opts.TargetPlatform = p.Platform.String()
		if p.File, err = dockerfile.Parse(name, src, opts); err != nil {
			return fmt.Errorf("for %s: %w", p.Platform, err)
		}
	}
	return nil
}

// takeEpoch reads the time of the build from the Dockerfile's arguments.
func takeEpoch(o *build.Options) error {
	epoch, ok, err := o.File.Epoch()
	if ok {
		o.Epoch = &epoch
	}
	return err
}

// forgetOld removes the files that a successful build writes, so that a failed
// one leaves none. A device or a pipe (/dev/null, /dev/stdout) stays: as root its
// name could be removed.
func (f *buildFlags) forgetOld() error {
	for _, name := range []string{f.iidFile, f.metadata} {
		if st, err := os.Stat(name); name == "" || err == nil && !st.Mode().IsRegular() {
			continue
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return usagef("write result: %w", err)
		}
	}
	return nil
}
