package main

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/dockerfile"
)

// executorSays are the flags of kaniko as its three branches have them
// (cmd/executor/cmd/root.go), each with what fbuild must make of a value.
var executorSays = map[string]struct {
	value string
	class flagClass
}{
	"dockerfile": {"D", works}, "context": {"dir://x", works}, "context-sub-path": {"a/b", works}, "destination": {"a/b", works},
	"target": {"x", works}, "build-arg": {"A=b", works}, "label": {"a=b", works}, "annotation": {"a=b", works},
	"custom-platform": {"linux/amd64", works}, "git": {"branch=x", works}, "no-push": {"true", works}, "tar-path": {"x.tar", works},
	"oci-layout-path": {"x", works}, "digest-file": {"/dev/termination-log", works}, "image-name-with-digest-file": {"x", works},
	"image-name-tag-with-digest-file": {"x", works}, "image-format": {"docker", works},
	"compression": {"zstd", works}, "compression-level": {"9", works}, "insecure": {"true", works},
	"insecure-pull": {"true", works}, "insecure-registry": {"x", works}, "skip-tls-verify": {"true", works},
	"skip-tls-verify-pull": {"true", works}, "skip-tls-verify-registry": {"x", works}, "skip-push-permission-check": {"true", works},
	"cache": {"true", works}, "cache-repo": {"a/b", works}, "cache-ttl": {"6h", works}, "no-push-cache": {"true", works},
	"snapshot-mode": {"time", works}, "single-snapshot": {"true", works}, "reproducible": {"true", works}, "secret": {"id=x", works},
	"kaniko-dir": {"/k", works}, "verbosity": {"warn", works}, "log-format": {"json", works}, "log-timestamp": {"true", works},
	"snapshotMode": {"redo", works}, "customPlatform": {"linux/amd64", works}, "tarPath": {"x", works},

	"force": {"true", moot}, "cleanup": {"true", moot}, "pre-cleanup": {"true", moot}, "preserve-context": {"true", moot},
	"compressed-caching": {"false", moot}, "cache-copy-layers": {"true", moot}, "cache-dir": {"/cache", moot},
	"skip-unused-stages": {"true", moot}, "force-build-metadata": {"true", moot}, "ignore-var-run": {"true", moot},
	"whitelist-var-run": {"true", moot}, "use-new-run": {"true", moot}, "push-retry": {"3", moot},
	"image-download-retry": {"3", moot}, "image-fs-extract-retry": {"3", moot},

	"bucket": {"b", refused}, "cache-run-layers": {"false", refused},
	"ignore-path": {"/x", refused}, "push-ignore-immutable-tag-errors": {"true", refused}, "registry-certificate": {"r=f", works},
	"registry-client-cert": {"r=c,k", works}, "registry-map": {"a=b", works}, "registry-mirror": {"m", works},
	"skip-default-registry-fallback": {"true", works}, "credential-helpers": {"ecr", refused}, "materialize": {"true", refused},
	"dryrun": {"true", refused},
}

// parseExecutor reads a command line.
func parseExecutor(args ...string) (*executorFlags, error) {
	f := newExecutorFlags()
	fl := pflag.NewFlagSet("executor", pflag.ContinueOnError)
	fl.SetOutput(io.Discard)
	f.define(fl)
	return f, fl.Parse(args)
}

func TestEveryKanikoFlag(t *testing.T) {
	var names []string
	for _, d := range kanikoFlags {
		names = append(names, d.name)
	}
	slices.Sort(names)
	if d := cmp.Diff(slices.Sorted(maps.Keys(executorSays)), names); d != "" {
		t.Fatalf("flags, -kaniko's +ours:\n%s", d)
	}
	for name, say := range executorSays {
		t.Run(name, func(t *testing.T) {
			f, err := parseExecutor("--" + name + "=" + say.value)
			var no *refusedFlagError
			if got := errors.As(err, &no); got != (say.class == refused) || err != nil && !got {
				t.Fatalf("got error %v, want refused %v", err, say.class == refused)
			}
			d := f.values[name].def
			of := name
			if d.of != "" {
				of = d.of
			}
			switch say.class {
			case refused:
				if no.hint == "" || no.name != name {
					t.Errorf("got %+v, want its name and what to do instead", no)
				}
			case moot:
				if len(f.notes) == 0 || !strings.Contains(f.notes[len(f.notes)-1].text, f.values[of].def.note) || f.values[of].def.note == "" {
					t.Errorf("got notes %v, want why there is nothing to do", f.notes)
				}
			case works:
				if f.text(of) != say.value || d.of == "" && d.usage == "" {
					t.Errorf("value: got %q, want %q, with a line for --help", f.text(of), say.value)
				}
				if wantWarn := d.of != ""; wantWarn != (len(f.notes) > 0) {
					t.Errorf("notes: got %v, want one only for an old spelling", f.notes)
				}
			}
		})
	}
}

func TestExecutorFlagForms(t *testing.T) {
	f, err := parseExecutor("-f", "D", "-c", "dir://x", "-d", "a", "-d=b", "--destination", "c", "--no-push", "--cache=1", "-v", "debug", "--cache-ttl=6h", "--label", "x=1,2")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"a", "b", "c"}, f.list("destination")); d != "" {
		t.Errorf("destinations, -want +got:\n%s", d)
	}
	if !f.on("no-push") || !f.on("cache") || f.on("insecure") || f.duration("cache-ttl").Hours() != 6 || f.text("verbosity") != "debug" {
		t.Errorf("got no-push %v, cache %v, insecure %v, ttl %v, verbosity %s", f.on("no-push"), f.on("cache"), f.on("insecure"), f.duration("cache-ttl"), f.text("verbosity"))
	}
	if d := cmp.Diff([]string{"x=1,2"}, f.list("label")); d != "" {
		t.Errorf("labels, -want +got:\n%s", d)
	}
	for _, bad := range [][]string{{"--cache=maybe"}, {"--cache-ttl=soon"}, {"--push-retry=x"}, {"--nope"}, {"--destination"}} {
		if _, err := parseExecutor(bad...); err == nil {
			t.Errorf("%q: got no error", bad)
		}
	}
	for _, fine := range []string{"--compression=gzip", "--compression-level=-1", "--materialize=false", "--dryrun=0", "--cache-run-layers", "--credential-helpers="} {
		if _, err := parseExecutor(fine); err != nil {
			t.Errorf("%q asks for what happens anyway: got %v", fine, err)
		}
	}
}

func TestExecutorEnvironment(t *testing.T) {
	f, err := parseExecutor()
	if err != nil {
		t.Fatal(err)
	}
	f.environment([]string{
		"KANIKO_NO_PUSH=true", "KANIKO_DIR=/other", "KANIKO_REGISTRY_MAP=a=b", "KANIKO_TELEMETRY_ENDPOINT=x",
		"KANIKO_CLEANUP=1", "KANIKO_EXAMPLE_COM_USER=me", "KANIKO_EXAMPLE_COM_PASSWORD=hidden", "FF_KANIKO_X=1", "HOME=/",
	})
	if !f.on("no-push") || f.text("kaniko-dir") != "/other" || !slices.Equal(f.list("registry-map"), []string{"a=b"}) {
		t.Errorf("got no-push %v, kaniko-dir %s and map %q, want those of the environment", f.on("no-push"), f.text("kaniko-dir"), f.list("registry-map"))
	}
	var got []string
	for _, n := range f.notes {
		got = append(got, strings.Fields(n.text)[0])
		if strings.Contains(n.text, "hidden") {
			t.Errorf("note %q shows a password", n.text)
		}
	}
	want := []string{"KANIKO_TELEMETRY_ENDPOINT", "KANIKO_CLEANUP:", "KANIKO_EXAMPLE_COM_PASSWORD", "FF_KANIKO_X"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("notes, -want +got:\n%s", d)
	}
	f, err = parseExecutor("--kaniko-dir=/flag")
	if err != nil {
		t.Fatal(err)
	}
	if f.environment([]string{"KANIKO_DIR=/other"}); f.text("kaniko-dir") != "/flag" {
		t.Errorf("kaniko-dir: got %s, want the flag before the variable", f.text("kaniko-dir"))
	}
}

func TestArguments(t *testing.T) {
	tests := []struct {
		name       string
		argv, want []string
	}{
		{"fbuild", []string{"/usr/bin/fbuild", "build", "."}, []string{"build", "."}},
		{"executor", []string{"/kaniko/executor", "-c", "x"}, []string{"executor", "-c", "x"}},
		{"by its name alone", []string{"executor"}, []string{"executor"}},
		{"nothing", nil, []string{}},
	}
	for _, tt := range tests {
		if got := arguments(tt.argv); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestExecutorOptions(t *testing.T) {
	tests := []struct {
		name string
		args []string
		err  string
		want func(o *build.Options) bool
	}{
		{"no destination", nil, "you must provide --destination", nil},
		{"no push", []string{"--no-push"}, "", func(o *build.Options) bool {
			return o.NoCache && o.Pull && o.CacheRepo == "" && len(o.Outputs) == 1 && o.Outputs[0].Type == build.OutputImage
		}},
		{"destinations once each", []string{"-d", "a:1", "-d", "docker.io/library/a:1", "-d", "b"}, "", func(o *build.Options) bool {
			return len(o.Outputs) == 1 && o.Outputs[0].Name == "docker.io/library/a:1,docker.io/library/b:latest"
		}},
		{"a digest", []string{"-d", "a@sha256:" + strings.Repeat("0", 64)}, "a digest is no name", nil},
		{"cache beside the first destination", []string{"-d", "host.example/a:1", "--cache"}, "", func(o *build.Options) bool {
			return !o.NoCache && o.CacheRepo == "host.example/a/cache" && !o.CacheReadOnly && o.CacheTTL.Hours() == 336
		}},
		{"cache in a layout", []string{"--no-push", "--cache", "--cache-repo", "oci:x", "--no-push-cache"}, "", func(o *build.Options) bool {
			return o.CacheRepo == "oci:x" && o.CacheReadOnly
		}},
		{"cache repo without --cache", []string{"--no-push", "--cache-repo", "x"}, "", func(o *build.Options) bool { return o.NoCache && o.CacheRepo == "" }},
		{"cache of nothing", []string{"--no-push", "--cache"}, "specify cache repo", nil},
		{"cache with a tag", []string{"--no-push", "--cache", "--cache-repo=a/b:c"}, "without a tag", nil},
		{"all outputs", []string{"-d", "a", "--tar-path=t", "--oci-layout-path=l", "--image-format=docker", "--reproducible"}, "", func(o *build.Options) bool {
			for _, out := range o.Outputs {
				if !out.DockerMediaTypes || !out.RewriteTimestamp {
					return false
				}
			}
			return len(o.Outputs) == 3 && o.Outputs[0].Name == "" && o.Epoch != nil && o.Epoch.Unix() == 0
		}},
		{"two targets", []string{"--no-push", "--target=a", "--target=b"}, "one stage can be built", nil},
		{"snapshot mode", []string{"--no-push", "--snapshot-mode=x"}, "full, redo and time", nil},
		{"image format", []string{"--no-push", "--image-format=x"}, "docker and oci", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := parseExecutor(tt.args...)
			if err != nil {
				t.Fatal(err)
			}
			log, err := newExecutorLog(io.Discard, f, false)
			if err != nil {
				t.Fatal(err)
			}
			r := &executorRun{a: &app{stderr: io.Discard, stdout: io.Discard}, f: f, log: log}
			err = r.options()
			var usage *usageError
			switch {
			case tt.err == "" && err != nil, tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || !errors.As(err, &usage)):
				t.Errorf("got error %v, want a usage error that holds %q", err, tt.err)
			case tt.want != nil && !tt.want(&r.opts):
				t.Errorf("options: got %+v", r.opts)
			}
		})
	}
}

func TestGitFlags(t *testing.T) {
	o, err := gitFlags([]string{"branch=main", "single-branch=true", "recurse-submodules=true", "depth=1"})
	if err != nil || o.Branch != "main" || !*o.Submodules || !o.KeepGitDir {
		t.Errorf("got %+v, %v, want the branch, submodules and .git", o, err)
	}
	if o, err = gitFlags([]string{"branch=main,single-branch=true,recurse-submodules=true"}); err != nil || o.Branch != "main" || !*o.Submodules {
		t.Errorf("with commas: got %+v, %v, want the branch and submodules", o, err)
	}
	if o, err = gitFlags([]string{"branch=a,b"}); err != nil || o.Branch != "a,b" {
		t.Errorf("a comma in a name: got %+v, %v", o, err)
	}
	if o, err = gitFlags(nil); err != nil || *o.Submodules {
		t.Errorf("nothing: got %+v, %v, want no submodules", o, err)
	}
	for _, bad := range []string{"x", "nope=1", "depth=x", "recurse-submodules=x", "insecure-skip-tls=true"} {
		if _, err := gitFlags([]string{bad}); err == nil {
			t.Errorf("--git %s: got no error", bad)
		}
	}
}

func TestBaseRegistries(t *testing.T) {
	f, err := dockerfile.Parse("Dockerfile", []byte(`ARG R=r.example
FROM ${R}/base AS one
FROM one
COPY --from=other.example:5000/x / /
COPY --from=one / /
RUN --mount=from=third.example/y true
`), dockerfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"r.example", "other.example:5000", "third.example"}
	if d := cmp.Diff(want, baseRegistries(f)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestExecutorSteps(t *testing.T) {
	const plain = `#1 [internal] load metadata for docker.io/library/x:latest
#1 DONE 0.0s

#2 [build 2/3] RUN echo "a"
#2 0.123 first
#2 12.34 #3 [x 1/1] forged
#2 0.200
#2 ...

#3 [other 1/2] COPY a b
#3 CACHED

#2 [build 2/3] RUN echo "a"
#2 WARN: mind this
#2 ERROR: it failed
------
 > [build 2/3] RUN echo "a":
0.123 first
------
`
	tests := []struct{ format, verbosity, want string }{
		{"color", "info", `INFO[0000] Retrieving image manifest docker.io/library/x:latest
INFO[0000] RUN echo "a"
first
#3 [x 1/1] forged

INFO[0000] COPY a b
INFO[0000] Using caching version of cmd: COPY a b
WARN[0000] mind this
`},
		{"color", "error", "first\n#3 [x 1/1] forged\n\n"},
	}
	for _, tt := range tests {
		f, err := parseExecutor("--log-format="+tt.format, "--verbosity="+tt.verbosity)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		log, err := newExecutorLog(&out, f, true)
		if err != nil {
			t.Fatal(err)
		}
		s := log.steps()
		for _, part := range []string{plain[:20], plain[20:200], plain[200:]} {
			if _, err := io.WriteString(s, part); err != nil {
				t.Fatal(err)
			}
		}
		if d := cmp.Diff(tt.want, out.String()); d != "" {
			t.Errorf("%s, %s: -want +got\n%s", tt.format, tt.verbosity, d)
		}
	}
}
