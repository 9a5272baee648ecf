package main

import (
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/fbuild/fbuild/build"
)

// buildFlags are docker's, with docker's meaning, and some of ours: --root,
// --recorder, --insecure, --registry-* and --exit-code.
type buildFlags struct {
	file, target, network           string
	progress, iidFile, metadata     string
	recorder, isolation             string
	exitCode, call                  string
	shmSize                         string
	platforms                       []string
	secrets, ssh                    []string
	lazy                            string
	annotations, noCacheFilter      []string
	ulimits                         []string
	tags, args, labels, contexts    []string
	hosts, outputs                  []string
	registry                        registryFlags
	cacheFrom, cacheTo              []string
	cacheKey, trace                 string
	traceNetTTL                     time.Duration
	cacheTimes, cacheCheck          bool
	noCache, pull, push, load       bool
	reproducible                    bool
	quiet, check, debug, checkLayer bool

	loader        *loader      // who takes the image, filled in before the first step
	loaderContext string       // docker's
	after         func() error // prints what --call asks for
}

// define makes the flags.
func (f *buildFlags) define(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVarP(&f.file, "file", "f", "", "the Dockerfile (default PATH/Dockerfile, - for stdin)")
	fl.StringArrayVarP(&f.tags, "tag", "t", nil, "name and optionally tag of the image (name:tag)")
	fl.StringArrayVar(&f.args, "build-arg", nil, "set a build argument (K=V, or K from the environment)")
	fl.StringVar(&f.target, "target", "", "stage to build")
	fl.StringArrayVar(&f.labels, "label", nil, "set a label of the image (K=V)")
	fl.StringArrayVar(&f.annotations, "annotation", nil, "set an annotation of the manifest (K=V)")
	fl.StringArrayVar(&f.platforms, "platform", nil, "platforms of the image, with commas between them; of several it is an index (default $DOCKER_DEFAULT_PLATFORM, else this host's)")
	fl.BoolVar(&f.noCache, "no-cache", false, "run every step again")
	fl.StringArrayVar(&f.noCacheFilter, "no-cache-filter", nil, "run the steps of this stage again")
	fl.StringArrayVar(&f.cacheFrom, "cache-from", nil, "take results from a shared cache (NAME, or type=registry|local|s3,...)")
	fl.StringArrayVar(&f.cacheTo, "cache-to", nil, "store results in a shared cache (type=registry|local|s3|inline,mode=min|max,...)")
	fl.StringVar(&f.cacheKey, "cache-key", "", "ed25519 key that signs entries of shared caches, or the public one of those that count")
	fl.StringVar(&f.trace, "trace", build.TraceOn, "when a step is used again although something below it changed: on (it looked at nothing that did), stage (nor did the base image change), off (never)")
	fl.DurationVar(&f.traceNetTTL, "trace-net-ttl", build.DefaultTraceNetTTL, "how long that holds for a RUN that used the network; 0 is never")
	fl.BoolVar(&f.cacheTimes, "cache-times", false, "times of files that a step looked at count as well")
	fl.BoolVar(&f.cacheCheck, "cache-check", os.Getenv("FBUILD_CACHE_CHECK") == "1", "run such steps all the same, and fail if one gives something else")
	fl.BoolVar(&f.reproducible, "verify-reproducible", false, "build twice, the second time without any cache, and fail if a step makes other files")
	fl.BoolVar(&f.pull, "pull", false, "ask the registry again for base images")
	fl.StringVar(&f.lazy, "lazy", build.LazyOn, "contents of seekable base layers (eStargz, zstd:chunked) are fetched as they are read: on, all (the rest too, while steps run) or off")
	fl.StringVar(&f.network, "network", "default", "network of RUN: default, host or none")
	fl.StringArrayVarP(&f.outputs, "output", "o", nil, "where the result goes (type=docker|oci|tar|local|image|registry,dest=PATH)")
	fl.BoolVar(&f.push, "push", false, "push the image; short for -o type=registry")
	fl.BoolVar(&f.load, "load", false, "load the image into docker or podman; short for -o type=docker")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "print the image id only")
	fl.StringVar(&f.iidFile, "iidfile", "", "write the image id to a file")
	fl.StringVar(&f.metadata, "metadata-file", "", "write the result as JSON to a file")
	fl.StringVar(&f.exitCode, "exit-code", "build", "exit status after a RUN that failed: build (1) or run (the command's own)")
	fl.StringVar(&f.progress, "progress", envOr("BUILDKIT_PROGRESS", "auto"), "auto, plain, tty, quiet, rawjson or none")
	fl.StringArrayVar(&f.contexts, "build-context", nil, "stands for a stage or image of that name (name=DIR, name=URL of git or http, name=docker-image://REF, name=oci-layout://PATH)")
	fl.StringArrayVar(&f.hosts, "add-host", nil, "add a line to /etc/hosts of RUN (host:ip)")
	fl.StringVar(&f.recorder, "recorder", "auto", "how the writes of a RUN are found: auto, fuse, overlay or walk")
	fl.StringVar(&f.isolation, "isolation", "auto", "how a RUN is kept apart: auto, namespaces or chroot")
	fl.StringArrayVar(&f.secrets, "secret", nil, "secret for RUN --mount=type=secret (id=ID,src=FILE or id=ID,env=VAR)")
	fl.StringArrayVar(&f.ssh, "ssh", nil, "agent or keys for RUN --mount=type=ssh and git over ssh (default, or ID=SOCKET, or ID=KEY,...)")
	f.registry.define(fl)
	fl.BoolVar(&f.check, "check", false, "check the Dockerfile and build nothing; short for --call=check")
	fl.StringVar(&f.call, "call", "build", "build, check (the Dockerfile only) or targets (list the stages)")
	fl.BoolVarP(&f.debug, "debug", "D", false, "show the lines that warnings are about")
	fl.StringArrayVar(&f.ulimits, "ulimit", nil, "limit of RUN (type=soft[:hard], as nofile=1024:4096)")
	fl.StringVar(&f.shmSize, "shm-size", "", "size of /dev/shm in RUN (default 64m)")
	fl.BoolVar(&f.checkLayer, "check-layers", false, "compare every sealed layer with the changes it was made of")
	_ = fl.MarkHidden("check-layers") // it exists
	defineDocker(cmd)
}

func envOr(name, value string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return value
}

// dockerFlag is a flag of docker that does nothing here: it is accepted where
// that is what the caller wants, and refused, with what to do, where it is not.
type dockerFlag struct {
	name, short string
	boolean     bool
	accept      []string // values that ask for what happens anyway; "*" is any
	warn        string   // said when an accepted one is given
	hint        string   // after a refusal
}

const (
	limitHint  = "limit fbuild itself: systemd-run --user --scope -p MemoryMax=2G -p CPUQuota=200% fbuild build ..., or the resources of the pod"
	attestHint = "attestations are not made; --provenance=false and --sbom=false are accepted"
)

// dockerFlags are all flags of docker build and docker buildx build that
// buildFlags lacks.
var dockerFlags = []dockerFlag{
	{name: "allow", accept: []string{"network.host"}, hint: "RUN has the host's network anyway; more privileges than the caller has, and devices, cannot be had without a daemon"},
	{name: "attest", accept: []string{"type=provenance,disabled=true", "type=sbom,disabled=true"}, hint: attestHint},
	{name: "builder", accept: []string{"default"}, hint: "there is no daemon to choose: leave --builder away, and unset BUILDX_BUILDER"},
	{name: "cgroup-parent", hint: "RUN stays in the cgroup of fbuild: start fbuild in the one that you want"},
	{name: "policy", hint: "source policies are not evaluated; pin base images by digest instead"},
	{name: "provenance", accept: []string{"false"}, hint: attestHint},
	{name: "sbom", accept: []string{"false"}, hint: attestHint},
	{name: "resource", hint: limitHint},
	{name: "memory", short: "m", hint: limitHint},
	{name: "memory-swap", hint: limitHint},
	{name: "cpu-shares", short: "c", hint: limitHint},
	{name: "cpu-period", hint: limitHint},
	{name: "cpu-quota", hint: limitHint},
	{name: "cpuset-cpus", hint: "taskset -c 0-3 fbuild build ... keeps everything on some processors"},
	{name: "cpuset-mems", hint: "numactl --membind fbuild build ... chooses the memory"},
	{name: "compress", boolean: true, accept: []string{"*"}},
	{name: "rm", boolean: true, accept: []string{"*"}},
	{name: "force-rm", boolean: true, accept: []string{"*"}},
	{name: "squash", boolean: true, accept: []string{"*"}, warn: "experimental flag squash is removed with BuildKit. You should squash inside build using a multi-stage Dockerfile for efficiency."},
	{name: "security-opt", accept: []string{"*"}, warn: "security-opt has no effect: a RUN has docker's default capabilities and seccomp profile"},
	{name: "disable-content-trust", boolean: true, accept: []string{"true"}, hint: "image signatures are not checked; pin base images by digest instead"},
	{name: "print", hint: "it is called --call now"},
}

// dockerValue is the value of a dockerFlag.
type dockerValue struct {
	flag  *dockerFlag
	given []string
}

func (v *dockerValue) String() string { return "" }

func (v *dockerValue) Set(s string) error {
	v.given = append(v.given, s)
	return nil
}

func (v *dockerValue) Type() string {
	if v.flag.boolean {
		return "bool"
	}
	return "string"
}

// defineDocker adds docker's other flags, hidden: --help shows what does something.
func defineDocker(cmd *cobra.Command) {
	for i := range dockerFlags {
		d := &dockerFlags[i]
		f := cmd.Flags().VarPF(&dockerValue{flag: d}, d.name, d.short, "docker's")
		f.Hidden = true
		if d.boolean {
			f.NoOptDefVal = "true"
		}
	}
}

// checkDocker refuses docker's flags that ask for something that is not there.
// The warnings are for those that are ignored as docker ignores them.
func checkDocker(cmd *cobra.Command) (warnings []string, err error) {
	for _, d := range dockerFlags {
		v, ok := cmd.Flags().Lookup(d.name).Value.(*dockerValue)
		if !ok {
			continue
		}
		for _, given := range v.given {
			if !d.accepts(given) {
				return nil, &hintError{usagef("--%s=%s is not supported", d.name, given), d.hint}
			}
		}
		if d.warn != "" && len(v.given) > 0 {
			warnings = append(warnings, d.warn)
		}
	}
	return warnings, nil
}

func (d *dockerFlag) accepts(value string) bool {
	for _, a := range d.accept {
		if a == "*" || a == value {
			return true
		}
	}
	return false
}
