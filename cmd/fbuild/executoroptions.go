package main

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fbuild/fbuild/build"
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
			flag := f.values[strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, "KANIKO_")), "_", "-")]
			if len(flag.given) == 0 && value != "" {
				flag.given = strings.Split(value, ",")
			}
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
	o.TraceNetTTL, o.CacheCheck = build.DefaultTraceNetTTL, os.Getenv("FBUILD_CACHE_CHECK") == "1"
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
	if o.Platform, err = onePlatform(f.list("custom-platform")); err != nil {
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

// compression is that of the layers.
func (r *executorRun) compression(c *build.Compression) error {
	switch kind := r.f.text("compression"); kind {
	case "", "gzip", "zstd":
		c.Type = kind
	default:
		return usagef("--compression %q: there are gzip and zstd", kind)
	}
	level, err := strconv.Atoi(r.f.text("compression-level"))
	if err != nil {
		return usagef("--compression-level %q: want a number", r.f.text("compression-level"))
	}
	if level == -1 {
		return nil
	}
	c.Level = &level
	if err := c.Check(); err != nil {
		return usagef("--compression-level: %w", err)
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
	if err := r.compression(&common.Compression); err != nil {
		return err
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
