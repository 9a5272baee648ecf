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

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/fetch"
)

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
	git.PasswordHint = "set GIT_TOKEN, or GIT_USERNAME and GIT_PASSWORD, in the environment (in a pod, from a secret)"
	git.KeyHint = "the executor has no keys: give the https:// address and GIT_TOKEN, or use fbuild build with --ssh"
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
	// A variable that is unset is empty, as kaniko has it.
	unset := func(name string) (string, bool) { return os.Getenv(name), true }
	if err := addBuildArgs(args, r.f.list("build-arg"), unset); err != nil {
		return err
	}
	if !fetched.Remote() && fetched.Dir != "" {
		o.Origin = origin(fetched.Dir, name)
		o.Origin.BuildArgs = args
	}
	if err := parseFile(o, name, src, args); err != nil {
		return err
	}
	if err := takeEpoch(o); err != nil {
		return err
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
