package main

import (
	"context"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
)

// oldSide is another fbuild, which -against names.
const oldSide = "fbuild-old"

// untracedSide is fbuild without traces: what recording and matching cost.
const untracedSide = "fbuild-untraced"

// fbuildPeer is fbuild as the ordinary user, or as root.
func (e *env) fbuildPeer(label, name, recorder string, root bool) *builder {
	program, version := e.fbuild, e.host.Versions["fbuild"]
	if name == oldSide {
		program, version = e.against, e.host.Versions[oldSide]
	}
	if program == "" {
		return missing("-against names no older fbuild")
	}
	if name == untracedSide && !strings.Contains(e.fbuildHelp("build"), "--trace") {
		return missing("this fbuild has no traces")
	}
	dir := filepath.Join(e.work, label+"-"+name)
	b := &builder{
		version: version, settings: "fbuild build --recorder=" + recorder + " -t REF, as an ordinary user",
		close: func() error { return os.RemoveAll(dir) },
		note:  "this fbuild has no shared cache yet",
	}
	if err := fresh(dir); err != nil {
		return missing("%v", err)
	}
	if root {
		b.settings = strings.Replace(b.settings, "an ordinary user", "root", 1)
	} else {
		var err error
		if b.account, err = e.lookupAccount(dir); err != nil {
			return missing("%v", err)
		}
	}
	store := filepath.Join(dir, "store")
	b.reset = func(context.Context) error { return os.RemoveAll(store) }
	argv := func(j job, more ...string) []string {
		out := []string{program, "--root", store, "build", "--progress=plain", "--recorder=" + recorder, "-t", j.ref, "-f", j.dockerfile}
		if name == untracedSide {
			out = append(out, "--trace=off")
		}
		out = append(append(out, buildArgs(j)...), more...)
		return append(out, j.context)
	}
	b.build = always(func(j job) []string { return argv(j) })
	b.push = always(func(j job) []string { return argv(j, "--push") })
	if e.fbuildShares() {
		share := func(j job) []string {
			return argv(j, "--cache-to=type=registry,mode=max,ref="+j.cache, "--cache-from=type=registry,ref="+j.cache)
		}
		b.share, b.fetch = always(share), always(share)
	} else if e.fbuildExecutes() {
		// kaniko's face: the cache lies in a repository.
		share := func(j job) []string {
			out := []string{
				program, "--root", store, "executor", "--dockerfile", j.dockerfile, "--context", "dir://" + j.context, "--no-push",
				"--cache=true", "--cache-repo", j.cache, "--insecure", "--insecure-pull",
			}
			return append(out, buildArgs(j)...)
		}
		b.share, b.fetch = always(share), always(share)
	}
	return b
}

// buildArgs are the build arguments as docker, buildah, kaniko and fbuild take them.
func buildArgs(j job) []string {
	var out []string
	for _, a := range j.args {
		out = append(out, "--build-arg", a)
	}
	if j.target != "" {
		out = append(out, "--target", j.target)
	}
	return out
}

// fbuildHelp is what fbuild says about one of its commands.
func (e *env) fbuildHelp(command string) string {
	out, err := osexec.Command(e.fbuild, command, "--help").CombinedOutput() //nolint:noctx,gosec // it only prints, and is what is measured
	if err != nil {
		return ""
	}
	return string(out)
}

func (e *env) fbuildShares() bool {
	help := e.fbuildHelp("build")
	return strings.Contains(help, "--cache-to") && strings.Contains(help, "--cache-from")
}

func (e *env) fbuildExecutes() bool {
	return strings.Contains(e.fbuildHelp("executor"), "--cache-repo")
}
