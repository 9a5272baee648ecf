package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/fetch"
	"github.com/fbuild/fbuild/oci"
)

// environment takes what kaniko reads from variables, and says which of them do
// nothing here.
func (f *executorFlags) environment(env []string) {
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		switch {
		case name == "KANIKO_NO_PUSH":
			if err := f.values["no-push"].Set(value); err != nil {
				f.note(warnLevel, "%s=%s is neither true nor false and is not used", name, value)
			}
		case name == "KANIKO_DIR":
			if len(f.list("kaniko-dir")) == 0 && value != "" {
				f.values["kaniko-dir"].given = []string{value}
			}
		case name == "KANIKO_REGISTRY_MIRROR", name == "KANIKO_REGISTRY_MAP":
			f.note(warnLevel, "%s is not used: %s", name, mirrorNote)
		case name == "KANIKO_CLEANUP", name == "KANIKO_PRE_CLEANUP":
			f.note(infoLevel, "%s: %s", name, wipeNote)
		case name == "KANIKO_PRESERVE_CONTEXT":
			f.note(infoLevel, "%s: a build never changes its context", name)
		case strings.HasPrefix(name, "KANIKO_") && strings.HasSuffix(name, "_PASSWORD"):
			f.note(warnLevel, "%s is not used: credentials are read from config.json", name)
		case strings.HasPrefix(name, "KANIKO_") && strings.HasSuffix(name, "_USER"): // its _PASSWORD is told of
		case strings.HasPrefix(name, "KANIKO_"), strings.HasPrefix(name, "FF_KANIKO_"):
			f.note(warnLevel, "%s is not used", name)
		}
	}
}

// options checks the flags and turns them into what Build wants.
func (r *executorRun) options() (err error) {
	f, o := r.f, &r.opts
	o.Stdout = r.a.stdout
	o.NoCache, o.Pull = !f.on("cache"), true
	o.CacheTTL, o.CacheReadOnly = f.duration("cache-ttl"), f.on("no-push-cache")
	o.SingleSnapshot = f.on("single-snapshot")
	o.Recorder = build.RecorderAuto
	if o.Labels, err = keyValues("--label", f.list("label")); err != nil {
		return err
	}
	if o.Annotations, err = parseAnnotations(f.list("annotation")); err != nil {
		return err
	}
	if o.Secrets, err = (&app{stderr: r.log}).parseSecrets(f.list("secret")); err != nil {
		return err
	}
	if o.Platform, err = hostPlatform(f.list("custom-platform")); err != nil {
		return err
	}
	if o.Target, err = oneTarget(f.list("target")); err != nil {
		return err
	}
	switch mode := f.text("snapshot-mode"); mode {
	case "full", "redo", "time":
		r.log.debug("--snapshot-mode=%s: changes are recorded exactly, as with full", mode)
	default:
		return usagef("--snapshot-mode %q: there are full, redo and time", mode)
	}
	if err := r.destinations(); err != nil {
		return err
	}
	return r.outputs()
}

func oneTarget(list []string) (string, error) {
	if len(list) > 1 || len(list) == 1 && strings.Contains(list[0], ",") {
		return "", &hintError{usagef("--target %s: one stage can be built at a time", strings.Join(list, ",")), "name the stage whose image is to be pushed; what it needs is built too"}
	}
	if len(list) == 0 {
		return "", nil
	}
	return list[0], nil
}

// destinations reads --destination and --cache-repo.
func (r *executorRun) destinations() error {
	f := r.f
	for _, d := range f.list("destination") {
		ref, err := oci.ParseRef(d)
		if err == nil && strings.Contains(d, "@") {
			err = errors.New("a digest is no name for a new image")
		}
		if err != nil {
			return usagef("--destination: %w", err)
		}
		if name := oci.FullName(ref); !slices.Contains(r.names, name) {
			r.names = append(r.names, name)
		}
	}
	if len(r.names) == 0 {
		if !f.on("no-push") {
			return usagef("you must provide --destination, or use --no-push")
		}
		for _, file := range []string{"image-name-with-digest-file", "image-name-tag-with-digest-file"} {
			if f.text(file) != "" {
				return usagef("you must provide --destination if setting --%s", file)
			}
		}
	}
	if !f.on("cache") {
		for _, n := range []string{"cache-repo", "cache-ttl", "no-push-cache"} {
			if len(f.list(n)) > 0 {
				r.log.info("--%s: nothing is cached without --cache", n)
			}
		}
		return nil
	}
	r.opts.CacheRepo = f.text("cache-repo")
	if r.opts.CacheRepo == "" {
		if f.on("no-push") {
			return usagef("if using cache with --no-push, specify cache repo with --cache-repo")
		}
		ref, err := oci.ParseRef(r.names[0])
		if err != nil {
			return err
		}
		r.opts.CacheRepo = ref.Context().Name() + "/cache"
	}
	if err := build.CheckCacheRepo(r.opts.CacheRepo); err != nil {
		return &usageError{err}
	}
	return nil
}

// outputs says where the image goes. Several tags of one push share what is sent.
func (r *executorRun) outputs() error {
	f := r.f
	common := build.Output{}
	switch f.text("image-format") {
	case "", "oci":
	case "docker":
		common.DockerMediaTypes = true
	default:
		return usagef("--image-format %q: there are docker and oci", f.text("image-format"))
	}
	if f.on("reproducible") {
		zero := time.Unix(0, 0).UTC()
		r.opts.Epoch, common.RewriteTimestamp = &zero, true
	}
	add := func(t build.OutputType, dest, names string) {
		o := common
		o.Type, o.Dest, o.Name = t, dest, names
		r.opts.Outputs = append(r.opts.Outputs, o)
	}
	all := strings.Join(r.names, ",")
	if path := f.text("oci-layout-path"); path != "" {
		add(build.OutputOCI, path, "") // one image without a name, as kaniko's
	}
	if path := f.text("tar-path"); path != "" {
		add(build.OutputDocker, path, all)
	}
	if !f.on("no-push") {
		add(build.OutputRegistry, "", all)
	}
	if len(r.opts.Outputs) == 0 {
		add(build.OutputImage, "", all)
	}
	return nil
}

// context makes of --context a directory.
func (r *executorRun) context(ctx context.Context) (*build.FetchedContext, error) {
	location := r.f.text("context")
	scheme, _, ok := strings.Cut(location, "://")
	switch {
	case location == "":
		return nil, usagef("please specify a path to the build context with the --context flag")
	case ok && (scheme == "gs" || scheme == "s3"):
		return nil, &hintError{usagef("--context %s: %s:// is not supported", fetch.Redact(location), scheme), "fetch the archive first (an init container) and give it as tar://FILE, or give an https:// URL that is signed"}
	}
	git, err := gitFlags(r.f.list("git"))
	if err != nil {
		return nil, err
	}
	git.Username, git.Password = os.Getenv("GIT_USERNAME"), os.Getenv("GIT_PASSWORD")
	if token := os.Getenv("GIT_TOKEN"); token != "" {
		git.Username, git.Password = token, ""
	}
	method := "https"
	if os.Getenv("GIT_PULL_METHOD") == "http" {
		method = "http"
	}
	fetched, err := build.FetchContext(ctx, r.opts.Store, build.ContextSpec{
		Location: location, Stdin: &patientFile{ctx, os.Stdin}, SubPath: r.f.text("context-sub-path"), Git: *git, GitMethod: method,
		Secrets: r.opts.Secrets, Progress: r.opts.Progress,
	})
	if err != nil {
		return nil, err
	}
	if st, err := os.Stat(fetched.Dir); fetched.Dir != "" && (err != nil || !st.IsDir()) {
		return nil, errors.Join(&hintError{
			usagef("build context %s: no such directory", fetched.Dir), "mount it there, or name another with --context",
		}, fetched.Close())
	}
	r.log.debug("Build context located at %s", fetched.Dir)
	return fetched, nil
}

// gitFlags reads --git KEY=VALUE. kaniko clones everything and leaves .git in the
// context; submodules it takes where asked.
func gitFlags(list []string) (*fetch.GitOptions, error) {
	submodules := false
	o := &fetch.GitOptions{KeepGitDir: true, Submodules: &submodules}
	for _, s := range splitGit(list) {
		k, v, _ := strings.Cut(s, "=")
		var err error
		switch k {
		case "branch":
			o.Branch = v
		case "recurse-submodules":
			submodules, err = strconv.ParseBool(v)
		case "single-branch": // no other branch is fetched
			_, err = strconv.ParseBool(v)
		case "depth": // one commit is fetched
			_, err = strconv.Atoi(v)
		case "insecure-skip-tls":
			var on bool
			if on, err = strconv.ParseBool(v); on {
				return nil, &hintError{usagef("--git %s is not supported", s), authorityNote}
			}
		default:
			return nil, usagef("--git %q: there are branch, single-branch, recurse-submodules and depth", s)
		}
		if err != nil {
			return nil, usagef("--git %s: %w", s, err)
		}
	}
	return o, nil
}

// splitGit takes branch=x,single-branch=true apart, which kaniko's README shows. A
// comma may be part of a branch's name.
func splitGit(list []string) []string {
	var out []string
	for _, s := range list {
		parts := strings.Split(s, ",")
		if slices.ContainsFunc(parts, func(p string) bool { return !gitKey.MatchString(p) }) {
			parts = []string{s}
		}
		out = append(out, parts...)
	}
	return out
}

var gitKey = regexp.MustCompile(`^(branch|single-branch|recurse-submodules|depth|insecure-skip-tls)=`)

// loadFile reads the Dockerfile: a URL, a file of this directory or of the context.
func (r *executorRun) loadFile(ctx context.Context, fetched *build.FetchedContext) error {
	o := &r.opts
	o.ContextDir = fetched.Dir
	name, src, err := r.readDockerfile(ctx, fetched)
	if err != nil {
		return err
	}
	args := map[string]string{}
	for _, s := range r.f.list("build-arg") {
		k, v, ok := strings.Cut(s, "=")
		if k == "" {
			return usagef("--build-arg %q: want NAME or NAME=VALUE", s)
		}
		if !ok {
			v = os.Getenv(k) // empty where it is unset, as kaniko has it
		}
		args[k] = v
	}
	o.File, err = dockerfile.Parse(name, src, dockerfile.Options{BuildArgs: args, Target: o.Target, TargetPlatform: o.Platform.String()})
	if err != nil {
		o.File = &dockerfile.File{Name: name, Lines: strings.Split(string(src), "\n")} // to show the place
		return err
	}
	if epoch, ok, err := o.File.Epoch(); err != nil {
		return err
	} else if ok {
		o.Epoch = &epoch
	}
	r.pulled = baseRegistries(o.File)
	o.Ignore, err = (&source{fetched, ""}).ignore(name)
	return err
}

func (r *executorRun) readDockerfile(ctx context.Context, fetched *build.FetchedContext) (string, []byte, error) {
	name := r.f.text("dockerfile")
	if fetched.Dir == "" {
		return "Dockerfile", fetched.Dockerfile, nil
	}
	if strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://") {
		var text bytes.Buffer
		if _, err := fetch.Get(ctx, name, &text, fetch.HTTPOptions{MaxSize: dockerfile.MaxSize + 1, UserAgent: "fbuild/" + version}); err != nil {
			return "", nil, fmt.Errorf("read Dockerfile: %w", err)
		}
		return "Dockerfile", text.Bytes(), nil
	}
	src, err := readBounded(name, dockerfile.MaxSize)
	if errors.Is(err, fs.ErrNotExist) && !filepath.IsAbs(name) {
		if fetched.Remote() { // whose links are not to be trusted
			src, err = build.ReadContextFile(fetched.Dir, name, dockerfile.MaxSize)
		} else {
			name = filepath.Join(fetched.Dir, name)
			src, err = readBounded(name, dockerfile.MaxSize)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, &hintError{
			fmt.Errorf("read Dockerfile: no %s, here or in the context", r.f.text("dockerfile")),
			"please provide a valid path to a Dockerfile within the build context with --dockerfile",
		}
	}
	if err != nil {
		return "", nil, fmt.Errorf("read Dockerfile: %w", err)
	}
	return name, src, nil
}

// baseRegistries lists the registries of the images that a Dockerfile names.
func baseRegistries(f *dockerfile.File) []string {
	var images []string
	for _, st := range f.Stages {
		if st.BaseStage == nil && st.BaseName != dockerfile.Scratch {
			images = append(images, st.BaseName)
		}
		for _, in := range st.Instructions {
			if c, ok := in.(*dockerfile.Copy); ok && c.From != "" && c.FromStage == nil {
				images = append(images, c.From)
			}
			if run, ok := in.(*dockerfile.Run); ok {
				for _, m := range run.Mounts {
					if m.From != "" && m.FromStage == nil {
						images = append(images, m.From)
					}
				}
			}
		}
	}
	return registries("", images)
}
