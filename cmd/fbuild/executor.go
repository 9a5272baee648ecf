package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/progress"
)

const executorHelp = `executor takes the flags of kaniko's executor, so that a pod that ran kaniko runs
fbuild when only its image is another. The binary does the same when it is called
"executor". docs/kaniko.md says what differs.

Exit codes: that of the RUN that failed, else those of fbuild.`

// executorName is what the binary is called in kaniko's images.
const executorName = "executor"

// arguments are those of the command line, as if the subcommand were spelled out
// where the binary is called executor.
func arguments(argv []string) []string {
	if len(argv) > 0 && filepath.Base(argv[0]) == executorName {
		return append([]string{executorName}, argv[1:]...)
	}
	return argv[min(1, len(argv)):]
}

func (a *app) executorCommand() *cobra.Command {
	f := newExecutorFlags()
	cmd := &cobra.Command{
		Use: executorName + " [flags]", Short: "Build as kaniko's executor does", Long: executorHelp,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.executor(cmd.Context(), f) },
	}
	f.define(cmd.Flags())
	cmd.SetFlagErrorFunc(executorFlagError)
	cmd.AddCommand(a.versionCommand(),
		refusedCommand("login", "mount the credentials as config.json at /kaniko/.docker or $DOCKER_CONFIG: a secret of type kubernetes.io/dockerconfigjson"),
		refusedCommand("push", "give every --destination to the build; skopeo copy or crane push sends an archive"))
	return cmd
}

// refusedCommand is a subcommand of the community's executor that is not there.
func refusedCommand(name, hint string) *cobra.Command {
	return &cobra.Command{
		Use: name, Hidden: true, DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return &hintError{usagef("%s %s is not supported", executorName, name), hint}
		},
	}
}

func executorFlagError(cmd *cobra.Command, err error) error {
	if r, ok := errors.AsType[*refusedFlagError](err); ok {
		return &hintError{&usageError{r}, r.hint}
	}
	hint := "see " + cmd.CommandPath() + " --help"
	if strings.HasPrefix(err.Error(), "unknown") {
		hint = "kaniko has no such flag either; " + hint
	}
	return &hintError{&usageError{err}, hint}
}

// executorError is how a build ended that has said so itself.
type executorError struct {
	err  error
	code int
}

func (e *executorError) Error() string { return e.err.Error() }
func (e *executorError) Unwrap() error { return e.err }

// executorRun is one `fbuild executor`.
type executorRun struct {
	a    *app
	f    *executorFlags
	log  *executorLog
	opts build.Options
	// names are the destinations in full, in their order.
	names []string
	// pulled are the registries of base images that --insecure-pull is about.
	pulled []string
}

func (a *app) executor(ctx context.Context, f *executorFlags) error {
	log, err := newExecutorLog(a.stderr, f, os.Getenv("NO_COLOR") != "")
	if err != nil {
		return err
	}
	f.environment(os.Environ())
	for _, n := range f.notes {
		log.say(n.level, "%s", n.text)
	}
	r := &executorRun{a: a, f: f, log: log}
	if err := r.run(ctx); err != nil {
		return r.end(ctx, err)
	}
	return nil
}

// end says what went wrong and with which status to end: a RUN's own, as kaniko.
func (r *executorRun) end(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errInterrupted) {
		r.log.fail("interrupted", "")
		return &executorError{err, exitInterrupted}
	}
	if r.log.format != "json" {
		err = r.a.withSource(err, r.opts.File)
	}
	text, hint, code := explain(err)
	if h := executorHint(err); h != "" {
		hint = h
	}
	if exit := exitOf(err); exit != nil && exit.Code > 0 {
		code = exit.Code
	}
	r.log.fail(text, hint)
	return &executorError{err, code}
}

// executorHint is what to do where fbuild build has flags of other names.
func executorHint(err error) string {
	switch {
	case errors.Is(err, oci.ErrUnauthorized):
		return "credentials are read from config.json in $DOCKER_CONFIG or /kaniko/.docker: a secret of type kubernetes.io/dockerconfigjson, mounted there"
	case errors.Is(err, oci.ErrUnreachable):
		return "is the registry's name right and the network there? A registry without TLS needs --insecure-registry HOST"
	case errors.Is(err, oci.ErrTLS):
		return "a certificate that nobody known has signed: " + authorityNote + ", or allow the registry with --skip-tls-verify-registry HOST"
	}
	return ""
}

func (r *executorRun) run(ctx context.Context) (err error) {
	if err := r.options(); err != nil {
		return err
	}
	dir, err := r.a.storeDir()
	if err != nil {
		return err
	}
	if r.opts.Store, err = cache.Open(ctx, dir); err != nil {
		return err
	}
	defer func() {
		r.a.trim(ctx, r.opts.Store)
		err = errors.Join(err, r.opts.Store.Close())
	}()
	r.opts.Progress, err = progress.New(progress.Options{Mode: progress.Plain, Out: r.log.steps()})
	if err != nil {
		return err
	}
	res, err := r.build(ctx)
	if cerr := r.opts.Progress.Close(err); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return r.report(res)
}

// build asks whether the push will be allowed, fetches the context and builds.
func (r *executorRun) build(ctx context.Context) (_ *build.Result, err error) {
	if err := r.forgetOld(); err != nil {
		return nil, err
	}
	fetched, err := r.context(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, fetched.Close()) }()
	if err := r.loadFile(ctx, fetched); err != nil {
		return nil, err
	}
	remote := oci.RemoteOptions{Insecure: r.insecure(), UserAgent: "fbuild/" + version, ConfigDir: r.credentials(), MirrorsOnly: r.f.on("skip-default-registry-fallback")}
	if remote.Mirrors, err = r.f.mirrors(); err != nil {
		return nil, err
	}
	if remote.Certificates, err = certificates("--registry-certificate", r.f.list("registry-certificate"), "--registry-client-cert", r.f.list("registry-client-cert")); err != nil {
		return nil, err
	}
	r.opts.Remote = oci.NewRemote(remote)
	defer r.opts.Remote.Close()
	if err := r.checkPush(ctx); err != nil {
		return nil, err
	}
	return build.Build(ctx, r.opts)
}

// checkPush finds out before the first step that a destination is misspelled or
// not allowed.
func (r *executorRun) checkPush(ctx context.Context) error {
	if r.f.on("no-push") || r.f.on("skip-push-permission-check") {
		return nil
	}
	var asked []string
	for _, n := range r.names {
		ref, err := oci.ParseRef(n)
		if err != nil {
			return err
		}
		repo := ref.Context().Name()
		if slices.Contains(asked, repo) {
			continue
		}
		asked = append(asked, repo)
		if err := r.opts.Remote.CheckPush(ctx, n); err != nil {
			return fmt.Errorf("check push permission -- is the name right, and are the credentials there: %w", err)
		}
	}
	return nil
}

// credentials is where the registry credentials lie: in $DOCKER_CONFIG, a directory
// or a file, else in kaniko's directory; "" is where docker and podman have them.
func (r *executorRun) credentials() string {
	kaniko := filepath.Join(r.f.text("kaniko-dir"), ".docker")
	places := []string{os.Getenv("DOCKER_CONFIG"), kaniko}
	if len(r.f.list("kaniko-dir")) > 0 { // as kaniko, which moves them there
		places = []string{kaniko, os.Getenv("DOCKER_CONFIG")}
	}
	for _, p := range places {
		if p == "" {
			continue
		}
		// A secret mounted without "items" has the key for a name.
		for _, name := range []string{p, filepath.Join(p, "config.json"), filepath.Join(p, ".dockerconfigjson")} {
			if st, err := os.Stat(name); err == nil && st.Mode().IsRegular() {
				r.log.debug("credentials: %s", name)
				return name
			}
		}
	}
	return ""
}

// mirrors are those of docker.io, and kaniko's map: ORIGINAL=MIRROR;...
func (f *executorFlags) mirrors() ([]oci.Mirror, error) {
	texts := slices.Clone(f.list("registry-mirror"))
	for _, m := range f.list("registry-map") {
		for text := range strings.SplitSeq(m, ";") {
			if !strings.Contains(text, "=") {
				return nil, usagef("--registry-map %q: want ORIGINAL=MIRROR", text)
			}
			texts = append(texts, text)
		}
	}
	var out []oci.Mirror
	for _, text := range texts {
		m, err := oci.ParseMirror(text)
		if err != nil {
			return nil, &usageError{err}
		}
		out = append(out, m)
	}
	return out, nil
}

// insecure lists the registries that may be asked without TLS, or with a
// certificate that nobody knows: fbuild makes no difference.
func (r *executorRun) insecure() []string {
	f := r.f
	hosts := slices.Concat(f.list("insecure-registry"), f.list("skip-tls-verify-registry"))
	if f.on("insecure") || f.on("skip-tls-verify") {
		hosts = append(hosts, registries("", r.names)...)
		if repo := r.opts.CacheRepo; repo != "" && !strings.HasPrefix(repo, "oci:") {
			hosts = append(hosts, registries("", []string{repo})...)
		}
	}
	if f.on("insecure-pull") || f.on("skip-tls-verify-pull") {
		hosts = append(hosts, r.pulled...)
	}
	return hosts
}
