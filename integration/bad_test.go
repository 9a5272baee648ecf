//go:build integration

package integration

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// badInput is a build that cannot succeed, and what it must say.
type badInput struct {
	dockerfile string
	files      map[string]string
	args       []string
	code       int
	want, hint string
	ran        bool // steps run before the failure
}

// TestBadDockerfile: each ends with one message that names the line, and a hint.
func TestBadDockerfile(t *testing.T) {
	tests := map[string]badInput{
		"empty":               {"", nil, nil, 1, "cannot be empty", "", false},
		"only comments":       {"# nothing\n", nil, nil, 1, "no instructions", "", false},
		"unknown instruction": {"FROM busybox\nRUM true\n", nil, nil, 1, "Dockerfile:2: unknown instruction: RUM", "RUN", false},
		"no FROM":             {"RUN true\n", nil, nil, 1, "Dockerfile:1", "", false},
		"unterminated":        {"FROM busybox\nRUN <<EOF\ntrue\n", nil, nil, 1, "Dockerfile:2: unterminated heredoc", "", false},
		"unknown flag":        {"FROM busybox\nCOPY --form=x a b\n", nil, nil, 1, "Dockerfile:2: unknown flag: --form", "from", false},
		"COPY needs two":      {"FROM busybox\nCOPY a\n", nil, nil, 1, "Dockerfile:2", "", false},
		"bad JSON is a shell": {"FROM busybox\nRUN ['true']\n", nil, nil, 1, "exit code: 127", "", true},
		"bad ENV":             {"FROM busybox\nENV A\n", nil, nil, 1, "Dockerfile:2", "", false},
		"bad substitution":    {"FROM busybox\nARG X\nENV A=${X\n", nil, nil, 1, "Dockerfile:3", "", false},
		"required variable":   {"FROM busybox\nENV A=\"${X:?is needed}\"\n", nil, nil, 1, "is needed", "", false},
		"bad port":            {"FROM busybox\nEXPOSE 99999\n", nil, nil, 1, "Dockerfile:2", "", false},
		"bad signal":          {"FROM busybox\nSTOPSIGNAL SIGNOPE\n", nil, nil, 1, "Dockerfile:2", "", false},
		"bad chmod":           {"FROM busybox\nCOPY --chmod=8888 Dockerfile /\n", nil, nil, 1, "Dockerfile:2", "", false},
		"NUL byte":            {"FROM busybox\nRUN a\x00b\n", nil, nil, 1, "", "", false},
		"stage of the future": {"FROM busybox AS a\nCOPY --from=b.invalid/b /x /\nFROM busybox AS b\n", nil, []string{"--target", "a"}, 1, "b", "", false},
		"stage of itself":     {"FROM busybox AS a\nCOPY --from=a /x /\n", nil, nil, 1, "Dockerfile:2", "", false},
		"empty base":          {"ARG B\nFROM $B\n", nil, nil, 1, "Dockerfile:2", "", false},
		"bad reference":       {"FROM Bad//Name\n", nil, nil, 1, "invalid reference", "", false},
		"bad platform":        {"FROM --platform=nope/nope/nope/nope busybox\n", nil, nil, 1, "platform", "", false},
		"missing file":        {"FROM busybox\nCOPY missing /\n", nil, nil, 1, `"/missing": not found`, ".dockerignore", false},
		"missing in stage":    {"FROM busybox AS a\nFROM scratch\nCOPY --from=a /missing /\n", nil, nil, 1, `"/missing": not found`, "", false},
		"missing stage index": {"FROM busybox\nCOPY --from=7 /x /\n", nil, nil, 1, "Dockerfile:2", "", false},
		"outside the context": {"FROM busybox\nCOPY ../../etc/shadow /\n", nil, nil, 1, "not found", "", false},
		"file onto directory": {"FROM busybox\nCOPY Dockerfile /etc/\nCOPY d /etc/passwd\n", map[string]string{"d/x": ""}, nil, 1, "non-directory", "", false},
		"many into one name":  {"FROM busybox\nCOPY a b /c\n", map[string]string{"a": "", "b": ""}, nil, 1, "slash", "", false},
		"unknown user":        {"FROM busybox\nUSER nobody-here\nRUN true\n", nil, nil, 1, "unable to find user nobody-here", "", true},
		"unknown chown":       {"FROM busybox\nCOPY --chown=nobody-here Dockerfile /\n", nil, nil, 1, "nobody-here", "", false},
		"workdir on a file":   {"FROM busybox\nWORKDIR /etc/passwd\n", nil, nil, 1, "not a directory", "", false},
		"command not found":   {"FROM busybox\nRUN no-such-command --flag\n", nil, nil, 1, "exit code: 127", "PATH", true},
		"program not found":   {"FROM busybox\nRUN [\"no-such-program\"]\n", nil, nil, 1, `exec: "no-such-program": executable file not found in $PATH`, "", true},
		"not executable":      {"FROM busybox\nRUN [\"/etc/passwd\"]\n", nil, nil, 1, "exit code: 126", "", true},
		"no shell":            {"FROM scratch\nRUN true\n", nil, nil, 1, "/bin/sh", "", true},
		"exit status":         {"FROM busybox\nRUN echo the last words; exit 42\n", nil, nil, 1, "exit code: 42", "", true},
		"killed by signal":    {"FROM busybox\nRUN sh -c 'kill -9 $$'\n", nil, nil, 1, "exit code: 137", "", true},
		"killed itself":       {"FROM busybox\nRUN [\"/bin/sh\", \"-c\", \"kill -TERM $$\"]\n", nil, nil, 1, "SIGTERM", "", true},
		"out of memory":       {"FROM busybox\nRUN [\"/bin/sh\", \"-c\", \"kill -KILL $$\"]\n", nil, nil, 1, "SIGKILL", "memory", true},
		"missing Dockerfile":  {"FROM busybox\n", nil, []string{"-f", "nowhere"}, 1, "nowhere", "-f", false},
		"missing target":      {"FROM busybox AS build\n", nil, []string{"--target", "biuld"}, 1, `"biuld"`, "build", false},
		"unreachable":         {"FROM 127.0.0.1:1/x\n", nil, nil, 1, "127.0.0.1:1/x", "registry", false},
		"no such host":        {"FROM registry.invalid/x\n", nil, nil, 1, "registry.invalid/x", "network", false},
		"output nowhere":      {"FROM busybox\nRUN true\n", nil, []string{"-o", "type=oci,dest=/no/such/dir/x.tar"}, 1, "/no/such/dir", "", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, l := range legs(name)[:1] { // the words do not depend on who asks
				h := newHome(t, l)
				h.write(map[string]string{"Dockerfile": tt.dockerfile})
				h.write(tt.files)
				r := h.fails(tt.code, tt.want, tt.hint, append(append([]string{"build", "-o", "type=oci,dest=out.tar"}, tt.args...), ".")...)
				if got := len(ranSteps(r.stderr)) > 0; got && !tt.ran && strings.Contains(tt.dockerfile, "RUN") {
					t.Errorf("steps ran before the mistake was seen: %q", ranSteps(r.stderr))
				}
				if _, err := os.Stat(filepath.Join(h.ctx, "out.tar")); err == nil {
					t.Error("a failed build left an output file")
				}
			}
		})
	}
}

// TestFailureBox: a failing RUN shows file, line, instruction, status and its last
// output.
func TestFailureBox(t *testing.T) {
	eachActor(t, func(t *testing.T, h *home) {
		h.dockerfile("FROM busybox", "RUN true", "RUN echo the last words; exit 42")
		r := h.fails(1, "exit code: 42", "", "build", ".")
		for _, want := range []string{
			"> [3/3] RUN echo the last words; exit 42:", "the last words", "Dockerfile:3", "   3 | >>> RUN echo the last words; exit 42",
		} {
			if !strings.Contains(r.stderr, want) {
				t.Errorf("output: no %q in\n%s", want, r.stderr)
			}
		}
	})
}

// TestRegistryTrouble: images that are not there, credentials, registries that lie.
func TestRegistryTrouble(t *testing.T) {
	t.Run("unknown image", func(t *testing.T) {
		eachActor(t, func(_ *testing.T, h *home) {
			h.dockerfile("FROM " + suite.reg.host() + "/nothing:here")
			h.fails(1, "/nothing:here", "name and the tag", "build", ".")
			h.dockerfile("FROM " + suite.reg.host() + "/busybox@sha256:" + strings.Repeat("0", 64))
			h.fails(1, "MANIFEST_UNKNOWN", "name and the tag", "build", ".")
		})
	})
	t.Run("credentials", func(t *testing.T) {
		reg := newRegistry(registryOptions{user: "me", password: "secret-word"})
		defer reg.close()
		if err := reg.add("busybox", filepath.Join(suite.bases, "busybox")); err != nil {
			t.Fatal(err)
		}
		for _, l := range legs(t.Name()) {
			h := newHome(t, l)
			h.dockerfile("FROM "+reg.host()+"/busybox", "RUN true")
			h.fails(1, "401 Unauthorized", "config.json", "build", ".")
			h.login(reg.host(), "me", "wrong")
			r := h.fails(1, "401 Unauthorized", "config.json", "build", ".")
			if strings.Contains(r.stderr, "wrong") {
				t.Errorf("the message shows the password:\n%s", r.stderr)
			}
			h.login(reg.host(), "me", "secret-word")
			h.ok("build", "--push", "-t", reg.host()+"/pushed", ".")
			if _, err := reg.pull("pushed"); err != nil {
				t.Errorf("pull what was pushed: %v", err)
			}
			h.login(reg.host(), "me", "wrong")
			h.fails(1, "401 Unauthorized", "config.json", "build", "--push", "-t", reg.host()+"/pushed", ".")
		}
	})
}

// login writes the credentials of a registry.
func (h *home) login(host, user, password string) {
	h.t.Helper()
	dir := filepath.Join(h.dir, ".docker")
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, host, auth), 0o644)
	}
	if err == nil {
		err = h.give(dir)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// TestLyingRegistry: what does not match its digest or its size is never used.
func TestLyingRegistry(t *testing.T) {
	flip := func(kind string, change func([]byte) []byte) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			return r.Method == http.MethodGet && strings.Contains(r.URL.Path, kind) && strings.Contains(r.URL.Path, "sha256:") && change != nil && serveChanged(w, r, change)
		}
	}
	tests := map[string]struct {
		kind   string
		change func([]byte) []byte
		want   string
	}{
		"a bit of a blob flips": {"/blobs/", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, "digest"},
		"a blob is cut off":     {"/blobs/", func(b []byte) []byte { return b[:len(b)/2] }, ""},
		"a blob is longer":      {"/blobs/", func(b []byte) []byte { return append(b, "more"...) }, ""},
		"a blob is empty":       {"/blobs/", func([]byte) []byte { return nil }, ""},
		"a manifest differs":    {"/manifests/", func(b []byte) []byte { return append(b, ' ') }, "digest"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var lies lieServer
			reg := newRegistry(registryOptions{lie: lies.serve})
			defer reg.close()
			lies.reg, lies.lie = reg, flip(tt.kind, tt.change)
			if err := reg.add("busybox", filepath.Join(suite.bases, "busybox")); err != nil {
				t.Fatal(err)
			}
			img, err := reg.pull("busybox")
			if err != nil {
				t.Fatal(err)
			}
			digest, err := img.Digest()
			if err != nil {
				t.Fatal(err)
			}
			h := newHome(t, legs(name)[0])
			h.dockerfile("FROM "+reg.host()+"/busybox@"+digest.String(), "RUN true")
			h.fails(1, tt.want, "", "build", ".")
			lies.lie = nil
			h.ok("build", ".")
		})
	}
}
