package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/buildctx"
	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/progress"
)

// buildFlags are docker's, with docker's meaning, and three of ours: --root,
// --recorder and --insecure.
type buildFlags struct {
	file, target, platform, network   string
	progress, iidFile, metadata       string
	recorder, isolation               string
	secrets, ssh                      []string
	tags, args, labels, contexts      []string
	hosts, outputs, insecure          []string
	noCache, pull, push, quiet, check bool
}

func (a *app) buildCommand() *cobra.Command {
	f := &buildFlags{}
	cmd := &cobra.Command{
		Use: "build [flags] PATH", Short: "Build an image from a Dockerfile",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("build needs exactly one argument, the directory of the build context (often \".\")")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.build(cmd.Context(), f, args[0]) },
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.file, "file", "f", "", "the Dockerfile (default PATH/Dockerfile, - for stdin)")
	fl.StringArrayVarP(&f.tags, "tag", "t", nil, "name and optionally tag of the image (name:tag)")
	fl.StringArrayVar(&f.args, "build-arg", nil, "set a build argument (K=V, or K from the environment)")
	fl.StringVar(&f.target, "target", "", "stage to build")
	fl.StringArrayVar(&f.labels, "label", nil, "set a label of the image (K=V)")
	fl.StringVar(&f.platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "platform of the image; this host's only")
	fl.BoolVar(&f.noCache, "no-cache", false, "run every step again")
	fl.BoolVar(&f.pull, "pull", false, "ask the registry again for base images")
	fl.StringVar(&f.network, "network", "default", "network of RUN: default, host or none")
	fl.StringArrayVarP(&f.outputs, "output", "o", nil, "where the result goes (type=oci|tar|local|image|registry,dest=PATH)")
	fl.BoolVar(&f.push, "push", false, "push the image; short for -o type=registry")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "print the image id only")
	fl.StringVar(&f.iidFile, "iidfile", "", "write the image id to a file")
	fl.StringVar(&f.metadata, "metadata-file", "", "write the result as JSON to a file")
	fl.StringVar(&f.progress, "progress", envOr("BUILDKIT_PROGRESS", "auto"), "auto, plain, tty, quiet or none")
	fl.StringArrayVar(&f.contexts, "build-context", nil, "additional context (name=DIR, name=docker-image://REF, name=oci-layout://PATH)")
	fl.StringArrayVar(&f.hosts, "add-host", nil, "add a line to /etc/hosts of RUN (host:ip)")
	fl.StringVar(&f.recorder, "recorder", "auto", "how the writes of a RUN are found: auto, fuse or walk")
	fl.StringVar(&f.isolation, "isolation", "auto", "how a RUN is kept apart: auto, namespaces or chroot")
	fl.StringArrayVar(&f.secrets, "secret", nil, "secret for RUN --mount=type=secret (id=ID,src=FILE or id=ID,env=VAR)")
	fl.StringArrayVar(&f.ssh, "ssh", nil, "agent or keys for RUN --mount=type=ssh (default, or ID=SOCKET, or ID=KEY,...)")
	fl.StringArrayVar(&f.insecure, "insecure", nil, "registry host that may be asked without TLS, or without a valid certificate")
	fl.BoolVar(&f.check, "check-layers", false, "compare every sealed layer with the changes it was made of")
	_ = fl.MarkHidden("check-layers") // it exists
	return cmd
}

func envOr(name, value string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return value
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
	o.Progress, err = progress.New(progress.Options{Mode: mode, Out: a.stderr})
	if err != nil {
		return &usageError{err}
	}
	if err := f.forgetOld(); err != nil {
		return err
	}
	res, err := a.runBuild(ctx, f, o)
	if cerr := o.Progress.Close(err); err == nil {
		err = cerr
	}
	if err != nil {
		return a.withSource(err, o.File)
	}
	return a.report(f, o, res)
}

func (a *app) runBuild(ctx context.Context, f *buildFlags, o *build.Options) (_ *build.Result, err error) {
	dir, err := a.storeDir()
	if err != nil {
		return nil, err
	}
	if err := loadFile(f, o); err != nil {
		return nil, err
	}
	o.Store, err = cache.Open(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, o.Store.Close()) }()
	o.Remote = oci.NewRemote(oci.RemoteOptions{Insecure: f.insecure, UserAgent: "fbuild/" + version})
	defer o.Remote.Close()
	return build.Build(ctx, *o)
}

// options checks the flags and turns them into build.Options.
func (a *app) options(f *buildFlags, path string) (*build.Options, error) {
	o := &build.Options{
		ContextDir: path, Target: f.target, Network: f.network, AddHosts: f.hosts,
		NoCache: f.noCache, Pull: f.pull, Recorder: f.recorder, Check: f.check, Stdout: a.stdout,
	}
	if err := checkContext(path); err != nil {
		return nil, err
	}
	var err error
	if o.Isolation, err = parseIsolation(f.isolation); err != nil {
		return nil, err
	}
	if o.Secrets, err = a.parseSecrets(f.secrets); err != nil {
		return nil, err
	}
	if o.SSH, err = parseSSH(f.ssh); err != nil {
		return nil, err
	}
	if o.Labels, err = keyValues("--label", f.labels); err != nil {
		return nil, err
	}
	if o.Contexts, err = keyValues("--build-context", f.contexts); err != nil {
		return nil, err
	}
	if err := build.CheckContexts(o.Contexts); err != nil {
		return nil, &usageError{err}
	}
	if o.Platform, err = hostPlatform(f.platform); err != nil {
		return nil, err
	}
	for _, t := range f.tags {
		ref, err := oci.ParseRef(t)
		if err != nil {
			return nil, &usageError{fmt.Errorf("--tag: %w", err)}
		}
		o.Tags = append(o.Tags, oci.FullName(ref))
	}
	if _, err := build.ParseAddHosts(f.hosts); err != nil {
		return nil, &usageError{err}
	}
	if !slices.Contains([]string{"", "default", "host", "none"}, f.network) {
		return nil, usagef("--network %q is not supported: there are default, host and none", f.network)
	}
	if !slices.Contains([]string{build.RecorderAuto, build.RecorderFUSE, build.RecorderWalk}, f.recorder) {
		return nil, usagef("--recorder %q: there are auto, fuse and walk", f.recorder)
	}
	if o.Outputs, err = parseOutputs(f.outputs, f.push, a.stdout); err != nil {
		return nil, err
	}
	for _, out := range o.Outputs {
		if out.Type == build.OutputRegistry && len(o.Tags) == 0 && out.Name == "" {
			return nil, usagef("pushing needs a name: give -t REGISTRY/NAME:TAG")
		}
	}
	return o, nil
}

// checkContext refuses what is no local directory.
func checkContext(path string) error {
	switch {
	case path == "-":
		return usagef("a context on stdin is not supported yet: unpack it into a directory; a Dockerfile alone can be given with -f - and a directory")
	case strings.Contains(path, "://") || strings.HasPrefix(path, "git@") || strings.HasPrefix(path, "github.com/"):
		return usagef("the context %q is remote, which is not supported yet: fetch it into a directory first", path)
	}
	st, err := os.Stat(path)
	if err != nil {
		return usagef("build context: %w", err)
	}
	if !st.IsDir() {
		return usagef("build context %s is not a directory", path)
	}
	return nil
}

// hostPlatform checks --platform, which may only name the host's own.
func hostPlatform(text string) (v1.Platform, error) {
	host := oci.Normalize(v1.Platform{OS: "linux", Architecture: runtime.GOARCH})
	if text == "" || text == "local" {
		return host, nil
	}
	if strings.Contains(text, ",") {
		return host, usagef("--platform %s: several platforms are not supported yet", text)
	}
	p, err := v1.ParsePlatform(text)
	if err != nil {
		return host, usagef("--platform: %w", err)
	}
	if p.OS != host.OS || p.Architecture != host.Architecture {
		return host, usagef("--platform %s: this host builds %s only", text, host.String())
	}
	return *p, nil
}

// keyValues reads K=V flags.
func keyValues(flag string, list []string) (map[string]string, error) {
	m := map[string]string{}
	for _, s := range list {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			if flag == "--label" && k != "" {
				m[k] = ""
				continue
			}
			return nil, usagef("%s %q: want NAME=VALUE", flag, s)
		}
		m[k] = v
	}
	return m, nil
}

// buildArgs reads --build-arg: a name alone takes the caller's variable, and is
// dropped where that is unset. SOURCE_DATE_EPOCH is passed on as docker does.
func buildArgs(list []string) (map[string]string, error) {
	m := map[string]string{}
	if v, ok := os.LookupEnv("SOURCE_DATE_EPOCH"); ok && v != "" {
		m["SOURCE_DATE_EPOCH"] = v
	}
	for _, s := range list {
		k, v, ok := strings.Cut(s, "=")
		if k == "" {
			return nil, usagef("--build-arg %q: want NAME or NAME=VALUE", s)
		}
		if !ok {
			if v, ok = os.LookupEnv(k); !ok {
				continue
			}
		}
		m[k] = v
	}
	return m, nil
}

// loadFile reads and parses the Dockerfile and finds the ignore file.
func loadFile(f *buildFlags, o *build.Options) error {
	args, err := buildArgs(f.args)
	if err != nil {
		return err
	}
	name, src, err := readDockerfile(f.file, o.ContextDir)
	if err != nil {
		return err
	}
	step := o.Progress.Step("[internal] load build definition from " + filepath.Base(name))
	step.Start()
	opts := dockerfile.Options{BuildArgs: args, Target: f.target, TargetPlatform: o.Platform.String()}
	for c := range o.Contexts {
		opts.Contexts = append(opts.Contexts, c)
	}
	o.File, err = dockerfile.Parse(name, src, opts)
	step.Done(err)
	if err != nil {
		o.File = &dockerfile.File{Name: name, Lines: strings.Split(string(src), "\n")} // to show the place
		return err
	}
	epoch, ok, err := o.File.Epoch()
	if err != nil {
		return err
	}
	if ok {
		o.Epoch = &epoch
	}
	if f.file == "-" {
		name = ""
	}
	step = o.Progress.Step("[internal] load .dockerignore")
	step.Start()
	o.Ignore, _, err = buildctx.FindIgnore(o.ContextDir, name)
	step.Done(err)
	return err
}

// readDockerfile returns the Dockerfile's path and text, bounded in size.
func readDockerfile(file, context string) (string, []byte, error) {
	name := file
	if file == "" {
		name = filepath.Join(context, "Dockerfile")
	}
	var r io.Reader = os.Stdin
	if file != "-" {
		fd, err := os.Open(name)
		if err != nil {
			return name, nil, &hintError{fmt.Errorf("read Dockerfile: %w", err), "name it with -f FILE"}
		}
		defer func() { _ = fd.Close() }() // only read
		r = fd
	} else {
		name = "Dockerfile"
	}
	src, err := io.ReadAll(io.LimitReader(r, dockerfile.MaxSize+1))
	if err != nil {
		return name, nil, fmt.Errorf("read Dockerfile: %w", err)
	}
	return name, src, nil
}

// forgetOld removes the files that a successful build writes, so that a failed
// one leaves none.
func (f *buildFlags) forgetOld() error {
	for _, name := range []string{f.iidFile, f.metadata} {
		if name == "" {
			continue
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return usagef("write result: %w", err)
		}
	}
	return nil
}

// report writes what the caller asked to know.
func (a *app) report(f *buildFlags, o *build.Options, res *build.Result) error {
	if n := len(res.Warnings); n > 0 && !f.quiet {
		plural := "s"
		if n == 1 {
			plural = ""
		}
		fmt.Fprintf(a.stderr, "\n %d warning%s found:\n", n, plural)
		for _, w := range res.Warnings {
			text := w.String()
			if w.Rule == "" {
				text = w.Text
			}
			fmt.Fprintf(a.stderr, " - %s\n", printable(text))
		}
	}
	if f.iidFile != "" && res.ImageID == "" {
		fmt.Fprintln(a.stderr, "fbuild: warning: no image was made, so", f.iidFile, "is not written")
	} else if f.iidFile != "" {
		if err := os.WriteFile(f.iidFile, []byte(res.ImageID), 0o644); err != nil { //nolint:gosec // others read it, as docker's
			return fmt.Errorf("write image id: %w", err)
		}
	}
	if f.metadata != "" {
		if err := writeMetadata(f.metadata, res); err != nil {
			return err
		}
	}
	if f.quiet && res.ImageID != "" && !writesStdout(o.Outputs) {
		fmt.Fprintln(a.stdout, res.ImageID)
	}
	return nil
}

func writeMetadata(name string, res *build.Result) error {
	m := map[string]any{}
	if res.ImageID != "" {
		m["containerimage.config.digest"] = res.ImageID
		m["containerimage.digest"] = res.Descriptor.Digest.String()
		m["containerimage.descriptor"] = res.Descriptor
	}
	if len(res.Names) > 0 {
		m["image.name"] = strings.Join(res.Names, ",")
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write metadata: %w", err)
	}
	if err := os.WriteFile(name, append(data, '\n'), 0o644); err != nil { //nolint:gosec // as above
		return fmt.Errorf("write metadata: %w", err)
	}
	return nil
}
