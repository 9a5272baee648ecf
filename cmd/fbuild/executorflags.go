package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// flagClass says what fbuild makes of a flag of kaniko.
type flagClass int

const (
	works   flagClass = iota // it does what it does in kaniko
	moot                     // what it promises holds anyway; the note says why
	refused                  // it is an error; the note says what to do instead
)

// flagKind is the form of a flag's value.
type flagKind int

const (
	kindText flagKind = iota
	kindList          // may be repeated
	kindBool
	kindNumber
	kindDuration
)

// kanikoFlag is one flag of kaniko's executor, of any of its three branches.
type kanikoFlag struct {
	name, short string
	kind        flagKind
	class       flagClass
	value       string // by default
	usage       string // of one that works
	note        string // of one that is moot or refused
	// fulfilled are the values of a refused flag that ask for what happens anyway.
	fulfilled []string
	// of is the flag that an old spelling stands for.
	of string
}

const (
	authorityNote = "add the authority to the system's, or name it in SSL_CERT_FILE or SSL_CERT_DIR"
	wipeNote      = "nothing to wipe: a build changes no file outside fbuild's store"
	retryNote     = "what fails for a passing reason is tried three times more for each request, whatever the number"
	stagesNote    = "stages that the target does not need are never built"
	varRunNote    = "a RUN never sees the pod's /var/run; what it writes there belongs to the image, as with docker build"
)

// kanikoFlags are all flags of reference/kaniko.md: of Google's, Chainguard's and
// the community's executor, with the old spellings.
var kanikoFlags = []kanikoFlag{
	{name: "dockerfile", short: "f", value: "Dockerfile", usage: "path or URL of the Dockerfile; looked for here, then in the context"},
	{name: "context", short: "c", value: "/workspace/", usage: "build context: a directory, dir://DIR, tar://FILE, tar://stdin, git://HOST/REPO#REF#COMMIT or the https:// URL of a tar"},
	{name: "context-sub-path", usage: "sub path inside the context"},
	{name: "destination", short: "d", kind: kindList, usage: "image to push; may be repeated"},
	{name: "target", kind: kindList, usage: "stage to build (default the last)"},
	{name: "build-arg", kind: kindList, usage: "set a build argument (K=V, or K from the environment)"},
	{name: "label", kind: kindList, usage: "set a label of the image (K=V)"},
	{name: "annotation", kind: kindList, usage: "set an annotation of the manifest (K=V)"},
	{name: "custom-platform", usage: "platform of the image (default: this host's)"},
	{name: "git", kind: kindList, usage: "options of a git context: branch=NAME, single-branch=BOOL, recurse-submodules=BOOL, depth=N"},
	{name: "no-push", kind: kindBool, usage: "do not push the image"},
	{name: "tar-path", usage: "write the image as a docker archive"},
	{name: "oci-layout-path", usage: "write the image as an OCI layout"},
	{name: "digest-file", usage: "write the image's digest to a file"},
	{name: "image-name-with-digest-file", usage: "write NAME@DIGEST of each destination to a file"},
	{name: "image-name-tag-with-digest-file", usage: "write NAME:TAG@DIGEST of each destination to a file"},
	{name: "compression", usage: "gzip or zstd (default gzip)"},
	{name: "compression-level", kind: kindNumber, value: "-1", usage: "0 to 9 with gzip, 0 to 22 with zstd; -1 for the usual one"},
	{name: "image-format", usage: "docker or oci (default oci)"},
	{name: "insecure", kind: kindBool, usage: "push without TLS"},
	{name: "insecure-pull", kind: kindBool, usage: "pull base images without TLS"},
	{name: "registry-certificate", kind: kindList, usage: "authority that signed a registry's certificate (HOST=FILE)"},
	{name: "registry-client-cert", kind: kindList, usage: "certificate of this client for a registry (HOST=CERT,KEY)"},
	{name: "registry-map", kind: kindList, usage: "where images of a registry are looked for first (ORIGINAL=MIRROR;...)"},
	{name: "registry-mirror", kind: kindList, usage: "where images of docker.io are looked for first"},
	{name: "skip-default-registry-fallback", kind: kindBool, usage: "ask mirrors only"},
	{name: "insecure-registry", kind: kindList, usage: "registry that may be asked without TLS"},
	{name: "skip-tls-verify", kind: kindBool, usage: "push without checking certificates"},
	{name: "skip-tls-verify-pull", kind: kindBool, usage: "pull without checking certificates"},
	{name: "skip-tls-verify-registry", kind: kindList, usage: "registry whose certificate is not checked"},
	{name: "skip-push-permission-check", kind: kindBool, usage: "do not ask before the build whether the push will be allowed"},
	{name: "cache", kind: kindBool, usage: "use results of earlier builds; without it every step is done"},
	{name: "cache-repo", usage: "repository, or oci:PATH, that holds results (default DESTINATION/cache)"},
	{name: "cache-ttl", kind: kindDuration, value: "336h", usage: "age limit of results in the cache repository"},
	{name: "no-push-cache", kind: kindBool, usage: "store nothing in the cache repository"},
	{name: "snapshot-mode", value: "full", usage: "full, redo or time: changes are found exactly in every mode"},
	{name: "single-snapshot", kind: kindBool, usage: "one layer for all that the build adds to its base"},
	{name: "reproducible", kind: kindBool, usage: "no times: files, config and history of what the build adds are of 1970"},
	{name: "secret", kind: kindList, usage: "secret for RUN --mount=type=secret (id=ID,src=FILE or id=ID,env=VAR)"},
	{name: "kaniko-dir", value: "/kaniko", usage: "directory whose .docker/config.json holds the credentials"},
	{name: "verbosity", short: "v", value: "info", usage: "trace, debug, info, warn, error, fatal or panic"},
	{name: "log-format", value: "color", usage: "text, color or json"},
	{name: "log-timestamp", kind: kindBool, usage: "the time in the lines of --log-format=color"},
	{name: "snapshotMode", of: "snapshot-mode"},
	{name: "customPlatform", of: "custom-platform"},
	{name: "tarPath", of: "tar-path"},

	{name: "force", kind: kindBool, class: moot, note: "outside a container fbuild does what it does inside one"},
	{name: "cleanup", kind: kindBool, class: moot, note: wipeNote},
	{name: "pre-cleanup", kind: kindBool, class: moot, note: wipeNote},
	{name: "preserve-context", kind: kindBool, class: moot, note: "a build never changes its context"},
	{name: "compressed-caching", kind: kindBool, class: moot, value: "true", note: "layers are streamed and not kept in memory"},
	{name: "cache-copy-layers", kind: kindBool, class: moot, note: "a COPY is found again by its contents, in the cache repository too"},
	{name: "cache-dir", class: moot, value: "/cache", note: "images that a warmer put there are not read; base images are kept in the store, whose directory --root can put on a volume"},
	{name: "skip-unused-stages", kind: kindBool, class: moot, note: stagesNote},
	{name: "force-build-metadata", kind: kindBool, class: moot, note: "the config is always complete"},
	{name: "ignore-var-run", kind: kindBool, class: moot, value: "true", note: varRunNote},
	{name: "whitelist-var-run", kind: kindBool, of: "ignore-var-run"},
	{name: "use-new-run", kind: kindBool, class: moot, note: "changes are recorded as they happen; no snapshot is taken"},
	{name: "push-retry", kind: kindNumber, class: moot, value: "0", note: retryNote},
	{name: "image-download-retry", kind: kindNumber, class: moot, value: "0", note: retryNote},
	{name: "image-fs-extract-retry", kind: kindNumber, class: moot, value: "0", note: "base images are not extracted"},

	{name: "bucket", short: "b", class: refused, note: "fetch the archive first (an init container) and give it as --context tar://FILE"},
	{name: "cache-run-layers", kind: kindBool, class: refused, value: "true", fulfilled: []string{"true"}, note: "leave --cache away: then every step is done"},
	{name: "ignore-path", kind: kindList, class: refused, note: "leave it away if it names a mount of the pod, which no RUN sees; files of the image can be removed in the RUN that makes them"},
	{name: "push-ignore-immutable-tag-errors", kind: kindBool, class: refused, fulfilled: []string{"false"}, note: "push under a tag that is new, as the commit"},
	{name: "credential-helpers", kind: kindList, class: refused, fulfilled: []string{""}, note: "name helpers in config.json, as docker does: credHelpers or credsStore"},
	{name: "materialize", kind: kindBool, class: refused, fulfilled: []string{"false"}, note: "fbuild build -o DIR writes the root file system to a directory of its own"},
	{name: "dryrun", kind: kindBool, class: refused, fulfilled: []string{"false"}, note: "fbuild build --check looks at the Dockerfile only"},
}

// executorFlags are the flags of one call.
type executorFlags struct {
	values map[string]*kanikoValue
	// notes are what is to be said about the flags that were given, in their order.
	notes []flagNote
}

// flagNote is one line about a flag.
type flagNote struct {
	level level
	text  string
}

func newExecutorFlags() *executorFlags {
	f := &executorFlags{values: map[string]*kanikoValue{}}
	for i := range kanikoFlags {
		d := &kanikoFlags[i]
		f.values[d.name] = &kanikoValue{flags: f, def: d}
	}
	return f
}

// define adds the flags to a set. Those that do nothing are not in --help.
func (f *executorFlags) define(fl *pflag.FlagSet) {
	for i := range kanikoFlags {
		d := &kanikoFlags[i]
		p := fl.VarPF(f.values[d.name], d.name, d.short, d.usage)
		p.DefValue = d.value
		p.Hidden = d.class != works || d.of != ""
		if d.kind == kindBool {
			p.NoOptDefVal = "true"
		}
	}
}

// kanikoValue is the value of a flag. A refused one fails when it is set.
type kanikoValue struct {
	flags *executorFlags
	def   *kanikoFlag
	given []string
}

func (v *kanikoValue) String() string { return strings.Join(v.given, ",") }

// Set takes one value.
func (v *kanikoValue) Set(s string) error {
	if d := v.def; d.of != "" {
		v.flags.note(warnLevel, "Flag --%s is deprecated. Use: --%s", d.name, d.of)
		return v.flags.values[d.of].Set(s)
	}
	if err := v.def.kind.check(s); err != nil {
		return err
	}
	if v.def.kind == kindBool { // so that 1 and T are true
		on, _ := strconv.ParseBool(s) // checked
		s = strconv.FormatBool(on)
	}
	switch v.def.class {
	case refused:
		if !slices.Contains(v.def.fulfilled, s) {
			return &refusedFlagError{v.def.name, s, v.def.note}
		}
	case moot:
		v.flags.note(infoLevel, "--%s: %s", v.def.name, v.def.note)
	case works:
	}
	if v.def.kind != kindList {
		v.given = nil
	}
	v.given = append(v.given, s)
	return nil
}

// Type is what --help shows.
func (v *kanikoValue) Type() string {
	return [...]string{"string", "stringArray", "bool", "int", "duration"}[v.def.kind]
}

func (k flagKind) check(s string) (err error) {
	switch k {
	case kindBool:
		_, err = strconv.ParseBool(s)
	case kindNumber:
		_, err = strconv.Atoi(s)
	case kindDuration:
		_, err = time.ParseDuration(s)
	case kindText, kindList:
	}
	return err
}

func (f *executorFlags) note(l level, format string, args ...any) {
	f.notes = append(f.notes, flagNote{l, fmt.Sprintf(format, args...)})
}

// refusedFlagError is a flag that fbuild does not have.
type refusedFlagError struct{ name, value, hint string }

func (e *refusedFlagError) Error() string {
	return fmt.Sprintf("--%s=%s is not supported", e.name, e.value)
}

// text returns a flag's value, its default where it was not given.
func (f *executorFlags) text(name string) string {
	v := f.values[name]
	if len(v.given) == 0 {
		return v.def.value
	}
	return v.given[len(v.given)-1]
}

func (f *executorFlags) list(name string) []string { return f.values[name].given }

func (f *executorFlags) on(name string) bool { return f.text(name) == "true" }

func (f *executorFlags) duration(name string) time.Duration {
	d, _ := time.ParseDuration(f.text(name)) // checked when it was set
	return d
}
