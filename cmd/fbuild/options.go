package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/oci"
)

const severalHint = "push it (--push), write an OCI archive (-o type=oci,dest=FILE), which podman load and ctr image import take, or build for one --platform at a time"

const nameHint = "for example -t app:1.0 or -t registry.example.com/team/app; names are in lower case"

// options checks the flags and turns them into build.Options.
func (a *app) options(f *buildFlags, path string) (*build.Options, error) {
	o := &build.Options{
		ContextDir: path, Target: f.target, Network: f.network, AddHosts: f.hosts,
		NoCache: f.noCache, VerifyReproducible: f.reproducible, NoCacheFilter: f.noCacheFilter, Pull: f.pull, Lazy: f.lazy, Recorder: f.recorder, Check: f.checkLayer, Stdout: a.stdout,
		Trace: f.trace, TraceNetTTL: f.traceNetTTL, CacheTimes: f.cacheTimes, CacheCheck: f.cacheCheck,
	}
	if err := checkContext(path, f.file); err != nil {
		return nil, err
	}
	if err := f.checkWords(); err != nil {
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
	if o.Limits, err = parseUlimits(f.ulimits); err != nil {
		return nil, err
	}
	if o.ShmSize, err = parseBytes("shm-size", f.shmSize); err != nil {
		return nil, err
	}
	if o.Labels, err = keyValues("--label", f.labels); err != nil {
		return nil, err
	}
	if o.Annotations, err = parseAnnotations(f.annotations); err != nil {
		return nil, err
	}
	if o.Contexts, err = keyValues("--build-context", f.contexts); err != nil {
		return nil, err
	}
	if err := build.CheckContexts(o.Contexts); err != nil {
		return nil, &usageError{err}
	}
	platforms, err := parsePlatforms(f.platforms)
	if err != nil {
		return nil, err
	}
	o.Platform = platforms[0]
	if len(platforms) > 1 {
		for _, p := range platforms {
			o.Platforms = append(o.Platforms, build.PlatformFile{Platform: p})
		}
	}
	for _, t := range f.tags {
		ref, err := oci.ParseRef(t)
		if err != nil {
			return nil, &hintError{usagef("--tag: %w", err), nameHint}
		}
		o.Tags = append(o.Tags, oci.FullName(ref))
	}
	if err := f.caches(o); err != nil {
		return nil, err
	}
	if err := a.outputs(f, o); err != nil {
		return nil, err
	}
	return o, needImage(o)
}

// checkWords checks the flags that take one of a few words.
func (f *buildFlags) checkWords() error {
	if _, err := build.ParseAddHosts(f.hosts); err != nil {
		return &hintError{&usageError{err}, "for example --add-host db=10.0.0.7, --add-host db=[2001:db8::7] or --add-host host.docker.internal=host-gateway"}
	}
	for _, c := range []struct {
		flag, value string
		words       []string
	}{
		{"network", f.network, []string{"default", "host", "none"}},
		{"recorder", f.recorder, []string{build.RecorderAuto, build.RecorderFUSE, build.RecorderOverlay, build.RecorderWalk}},
		{"trace", f.trace, []string{build.TraceOn, build.TraceStage, build.TraceOff}},
		{"lazy", f.lazy, []string{build.LazyOn, build.LazyAll, build.LazyOff}},
		{"exit-code", f.exitCode, []string{"build", "run"}},
		{"call", f.call, []string{"build", "check", "targets"}},
	} {
		if !slices.Contains(c.words, c.value) {
			n := len(c.words) - 1
			return &hintError{usagef("--%s %q is not supported", c.flag, c.value), fmt.Sprintf("there are %s and %s", strings.Join(c.words[:n], ", "), c.words[n])}
		}
	}
	if f.traceNetTTL < 0 {
		return &hintError{usagef("--trace-net-ttl %s is negative", f.traceNetTTL), "for example --trace-net-ttl 12h; 0 runs such steps whenever something below them changed"}
	}
	if f.noCache && len(f.noCacheFilter) > 0 {
		return &hintError{usagef("--no-cache and --no-cache-filter are given together"), "--no-cache runs every stage again, the filter some of them"}
	}
	if f.check && f.call != "build" && f.call != "check" {
		return &hintError{usagef("--check and --call=%s are given together", f.call), "--check is short for --call=check"}
	}
	return nil
}

// outputs reads -o, --push and --load.
func (a *app) outputs(f *buildFlags, o *build.Options) error {
	outs, err := parseOutputs(f.outputs, f.push, f.load, a.stdout)
	if err != nil {
		return err
	}
	if err := checkAnnotations(o.Annotations, o); err != nil {
		return err
	}
	images := len(outs) == 0
	for _, out := range outs {
		if out.Type == build.OutputRegistry && len(o.Tags) == 0 && out.Name == "" {
			return &hintError{usagef("pushing needs a name"), "give -t REGISTRY/NAME:TAG"}
		}
		if out.insecure {
			f.registry.insecure = append(f.registry.insecure, registries(out.Name, o.Tags)...)
		}
		if out.loads() {
			if f.loader != nil && out.context != f.loaderContext {
				return &hintError{usagef("the image can be loaded into one daemon at a time"), "run docker load for the second, with the archive of -o type=docker,dest=FILE"}
			}
			f.loader, f.loaderContext = &loader{}, out.context
			out.Load = f.loader.load
		}
		if out.Type == build.OutputDocker && len(o.Platforms) > 0 {
			return &hintError{usagef("an image for several platforms cannot be loaded, nor be an archive of type=docker"), severalHint}
		}
		if out.split != nil && *out.split != (len(o.Platforms) > 0) {
			return &hintError{usagef("--output: platform-split=%v is not supported here", *out.split), "files of several platforms are in a folder for each, those of one are not"}
		}
		if err := checkAnnotations(out.Annotations, o); err != nil {
			return err
		}
		images = images || out.Type.IsImage()
		o.Outputs = append(o.Outputs, out.Output)
	}
	if len(o.Annotations) > 0 && !images {
		return &hintError{usagef("--annotation needs an image"), "annotations are those of a manifest, which " + noImage}
	}
	return nil
}

// registries returns the registries of an output's names, else of the build's.
func registries(names string, tags []string) []string {
	if names != "" {
		tags = strings.Split(names, ",")
	}
	var hosts []string
	for _, t := range tags {
		if ref, err := oci.ParseRef(t); err == nil {
			hosts = append(hosts, ref.Context().RegistryStr())
		}
	}
	return hosts
}

// findLoader looks for who takes the image, where an output wants that.
func (f *buildFlags) findLoader(ctx context.Context) error {
	if f.loader == nil {
		return nil
	}
	found, err := findLoader(ctx, f.loaderContext)
	if err == nil {
		*f.loader = *found
	}
	return err
}

// checkFilter refuses a filter for a stage that the Dockerfile does not have.
func checkFilter(file *dockerfile.File, names []string) error {
	for _, n := range names {
		if !slices.ContainsFunc(file.Stages, func(s *dockerfile.Stage) bool { return strings.EqualFold(s.Label(), n) }) {
			return &hintError{usagef("--no-cache-filter %q: the Dockerfile has no such stage", n), "fbuild build --call=targets lists the stages"}
		}
	}
	return nil
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
	return m, addBuildArgs(m, list, os.LookupEnv)
}

// addBuildArgs adds NAME=VALUE, and what lookup has for a NAME alone, to m.
func addBuildArgs(m map[string]string, list []string, lookup func(name string) (string, bool)) error {
	for _, s := range list {
		k, v, ok := strings.Cut(s, "=")
		if k == "" {
			return usagef("--build-arg %q: want NAME or NAME=VALUE", s)
		}
		if !ok {
			v, ok = lookup(k)
		}
		if ok {
			m[k] = v
		}
	}
	return nil
}
