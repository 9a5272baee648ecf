package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/exec"
)

// What becomes of a flag of docker.
const (
	isDone    = "works"
	isIgnored = "ignored"
	isWarned  = "ignored with a warning"
	isRefused = "refused with a hint"
)

// dockerBuild is every flag of docker build and docker buildx build, in their
// order, the hidden and the classic ones last, with a use of it.
var dockerBuild = []struct{ args, want string }{
	{"--add-host db=10.0.0.1", isDone},
	{"--add-host db:[2001:db8::7]", isDone},
	{"--add-host host.docker.internal=host-gateway", isDone},
	{"--add-host db", isRefused},
	{"--allow network.host", isIgnored},
	{"--allow security.insecure", isRefused},
	{"--allow device", isRefused},
	{"--annotation a=b", isDone},
	{"--annotation manifest[linux/s390x]:a=b", isRefused},
	{"--annotation index:a=b", isRefused},
	{"--annotation manifest-descriptor:a=b", isRefused},
	{"--attest type=sbom", isRefused},
	{"--attest type=provenance,disabled=true", isIgnored},
	{"--build-arg A=b", isDone},
	{"--build-arg HOME", isDone},
	{"--build-context base=.", isDone},
	{"--builder default", isIgnored},
	{"--builder big", isRefused},
	{"--cache-from example.com/x:cache", isDone},
	{"--cache-from type=registry,ref=example.com/x:cache", isDone},
	{"--cache-from type=registry", isRefused},
	{"--cache-from type=local,src=dir,tag=x", isDone},
	{"--cache-from type=local,src=dir,digest=x", isRefused},
	{"--cache-from type=inline", isRefused},
	{"--cache-from type=gha", isRefused},
	{"--cache-from type=azblob,name=x", isRefused},
	{"--cache-from type=registry,ref=X", isRefused},
	{"--cache-from type=registry,ref=x,mode=max", isRefused},
	{"--cache-from type=s3,bucket=b,region=r,access_key_id=a,secret_access_key=s", isDone},
	{"--cache-from type=s3,region=r,access_key_id=a,secret_access_key=s", isRefused},
	{"--cache-to example.com/x:cache", isDone},
	{"--cache-to type=inline", isDone},
	{"--cache-to type=inline -o out", isRefused},
	{"--cache-to type=inline,mode=max", isRefused},
	{"--cache-to type=gha,mode=max", isRefused},
	{"--cache-to type=registry,ref=example.com/x:cache,mode=max,image-manifest=true,oci-mediatypes=true,compression=gzip,force-compression=true,ignore-error=true", isDone},
	{"--cache-to type=registry,ref=x,oci-mediatypes=false", isDone},
	{"--cache-to type=registry,ref=x,image-manifest=true,oci-mediatypes=false", isRefused},
	{"--cache-to type=registry,ref=x,mode=all", isRefused},
	{"--cache-to type=registry,ref=x,mode", isRefused},
	{"--cache-to type=registry,ref=x,mounts=true,keep=24h", isDone},
	{"--cache-to type=registry,ref=x,keep=day", isRefused},
	{"--cache-to type=registry,ref=x,size=3", isRefused},
	{"--cache-to type=registry,ref=x,compression=zstd", isRefused},
	{"--cache-to type=local,dest=dir,mode=max", isDone},
	{"--cache-to type=local,src=dir", isRefused},
	{"--cache-to type=s3,bucket=b,region=r,name=a;b,prefix=p/,endpoint_url=http://localhost:1,use_path_style=true,access_key_id=a,secret_access_key=s,touch_refresh=1h,upload_parallelism=2", isDone},
	{"--cache-to type=s3,bucket=b,region=r,endpoint_url=ftp://x,access_key_id=a,secret_access_key=s", isRefused},
	{"--cache-key missing", isRefused},
	{"--cache-from x --cache-key secret", isRefused},
	{"--call check", isDone},
	{"--call targets", isDone},
	{"--call outline", isRefused},
	{"--call subrequests.describe", isRefused},
	{"--cgroup-parent x", isRefused},
	{"--check", isDone},
	{"-D", isDone},
	{"--debug", isDone},
	{"-f Dockerfile", isDone},
	{"--file Dockerfile", isDone},
	{"--iidfile id", isDone},
	{"--label a=b", isDone},
	{"--label a", isDone},
	{"--load", isDone},
	{"--metadata-file m", isDone},
	{"--network none", isDone},
	{"--network bridge", isRefused},
	{"--no-cache", isDone},
	{"--no-cache-filter a", isDone},
	{"--no-cache --no-cache-filter a", isRefused},
	{"-o out", isDone},
	{"--output type=docker,dest=x.tar", isDone},
	{"--output type=moby", isRefused},
	{"--platform local", isDone},
	{"--platform plan9/mips", isRefused},
	{"--platform linux/amd64,linux/arm64", isDone},
	{"--platform linux/amd64,linux/arm64 --load", isRefused},
	{"--policy reset=true", isRefused},
	{"--progress plain", isDone},
	{"--provenance=false", isIgnored},
	{"--provenance=mode=max", isRefused},
	{"--pull", isDone},
	{"-t example.com/x:1 --push", isDone},
	{"--push", isRefused},
	{"-q", isDone},
	{"--quiet", isDone},
	{"--resource memory=1g", isRefused},
	{"--sbom=false", isIgnored},
	{"--sbom=true", isRefused},
	{"--secret id=x,src=secret", isDone},
	{"--secret id=x,src=missing", isRefused},
	{"--shm-size 128m", isDone},
	{"--shm-size big", isRefused},
	{"--ssh default=secret", isDone},
	{"--ssh default=missing", isRefused},
	{"-t a:1 -t b", isDone},
	{"--tag a", isDone},
	{"--tag A", isRefused},
	{"--target a", isDone},
	{"--ulimit nofile=64:64", isDone},
	{"--ulimit nofile=2:1", isRefused},
	{"--ulimit files=1", isRefused},
	{"--compress", isIgnored},
	{"--rm", isIgnored},
	{"--rm=false", isIgnored},
	{"--force-rm", isIgnored},
	{"--isolation default", isDone},
	{"--isolation hyperv", isRefused},
	{"--security-opt seccomp=unconfined", isWarned},
	{"--squash", isWarned},
	{"-m 1g", isRefused},
	{"--memory 1g", isRefused},
	{"--memory-swap 1g", isRefused},
	{"-c 2", isRefused},
	{"--cpu-shares 2", isRefused},
	{"--cpu-period 2", isRefused},
	{"--cpu-quota 2", isRefused},
	{"--cpuset-cpus 0", isRefused},
	{"--cpuset-mems 0", isRefused},
	{"--print outline", isRefused},
	{"--disable-content-trust", isIgnored},
	{"--disable-content-trust=false", isRefused},
}

// TestDockerFlags: every flag of docker's build isDone, is ignored where that is
// harmless, or is refused with what to do instead; none is unknown.
func TestDockerFlags(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"Dockerfile": "FROM scratch\n", "secret": "x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	for _, tt := range dockerBuild {
		t.Run(tt.args, func(t *testing.T) {
			got, err := tryFlags(strings.Fields(tt.args))
			if got != tt.want && (got != isDone || tt.want != isIgnored) {
				t.Errorf("got %s (%v), want %s", got, err, tt.want)
			}
		})
	}
}

// tryFlags says what becomes of the flags without building anything.
func tryFlags(args []string) (string, error) {
	a := &app{stdout: io.Discard, stderr: io.Discard}
	f := &buildFlags{}
	cmd := a.buildCommand()
	cmd.SetFlagErrorFunc(flagError)
	cmd.ResetFlags()
	f.define(cmd)
	err := cmd.ParseFlags(args)
	if err != nil && strings.HasPrefix(err.Error(), "unknown") {
		return "unknown", err
	}
	var warnings []string
	if err == nil {
		warnings, err = checkDocker(cmd)
	}
	if err == nil {
		_, err = a.options(f, ".")
	}
	var usage *usageError
	switch {
	case err != nil && errors.As(err, &usage) && hintOf(err) != "":
		return isRefused, err
	case err != nil:
		return "an error that is no refusal, or lacks a hint", err
	case len(warnings) > 0:
		return isWarned, nil
	}
	return isDone, nil
}

func TestParseUlimits(t *testing.T) {
	tests := []struct {
		name string
		in   []string
		want []exec.Limit
	}{
		{"one value", []string{"nofile=64"}, []exec.Limit{{Resource: unix.RLIMIT_NOFILE, Soft: 64, Hard: 64}}},
		{"two values", []string{"nofile=64:128"}, []exec.Limit{{Resource: unix.RLIMIT_NOFILE, Soft: 64, Hard: 128}}},
		{"the last counts", []string{"nofile=64", "core=0", "nofile=32"}, []exec.Limit{{Resource: unix.RLIMIT_CORE}, {Resource: unix.RLIMIT_NOFILE, Soft: 32, Hard: 32}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseUlimits(tt.in)
			if d := cmp.Diff(tt.want, got); err != nil || d != "" {
				t.Errorf("%v, -want +got\n%s", err, d)
			}
		})
	}
}

func TestParseBytes(t *testing.T) {
	for in, want := range map[string]int64{"": 0, "1024": 1024, "64m": 64 << 20, "64MB": 64 << 20, "1GiB": 1 << 30, "1.5k": 1536, "10b": 10} {
		if got, err := parseBytes("shm-size", in); got != want || err != nil {
			t.Errorf("%q: got %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"m", "-1", "1x", "0", "1e30", "nan"} {
		if got, err := parseBytes("shm-size", in); err == nil {
			t.Errorf("%q: got %d, want an error", in, got)
		}
	}
}

func TestParseSecret(t *testing.T) {
	t.Setenv("TOKEN", "x")
	tests := []struct {
		in   string
		id   string
		want build.Secret
		err  string
	}{
		{in: "id=a,src=f", id: "a", want: build.Secret{File: "f"}},
		{in: "id=a,source=f,type=file", id: "a", want: build.Secret{File: "f"}},
		{in: "id=a,env=V", id: "a", want: build.Secret{Env: "V"}},
		{in: "id=a,src=V,type=env", id: "a", want: build.Secret{Env: "V"}},
		{in: "id=TOKEN", id: "TOKEN", want: build.Secret{Env: "TOKEN"}},
		{in: "id=TOKEN,type=file", id: "TOKEN", want: build.Secret{File: "TOKEN"}},
		{in: "id=other", id: "other", want: build.Secret{File: "other"}},
		{in: `id=a,"src=with,comma"`, id: "a", want: build.Secret{File: "with,comma"}},
		{in: "src=f", err: `--secret "src=f": it has no id`},
		{in: "id=a,src=f,env=V", err: `--secret "id=a,src=f,env=V": a secret is a file or a variable, not both`},
		{in: "id=a,type=blob", err: `--secret "id=a,type=blob": unknown type "blob": there are file and env`},
		{in: "id=a,mode=1", err: `--secret "id=a,mode=1": unknown key "mode": there are id, src, env and type`},
		{in: "a", err: `--secret "a": want key=value in "a"`},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			id, s, err := parseSecret(tt.in)
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Errorf("got %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil || id != tt.id || s != tt.want {
				t.Errorf("got %q, %+v, %v, want %q, %+v", id, s, err, tt.id, tt.want)
			}
		})
	}
}

func TestParseSSH(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte("key"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSH_AUTH_SOCK", "")
	if _, err := parseSSH([]string{"default"}); err == nil || !strings.Contains(err.Error(), "SSH_AUTH_SOCK is not set") {
		t.Errorf("no agent: got %v", err)
	}
	got, err := parseSSH([]string{"default=" + key, "work=" + key + "," + key})
	want := map[string]build.SSH{"default": {Paths: []string{key}}, "work": {Paths: []string{key, key}}}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v, -want +got\n%s", err, d)
	}
	if _, err := parseSSH([]string{"a=" + key, "a=" + key}); err == nil || !strings.Contains(err.Error(), "given twice") {
		t.Errorf("twice: got %v", err)
	}
}
