//go:build integration

package integration

import (
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var buildProbe = sync.OnceValues(func() ([]byte, error) {
	out := filepath.Join(suite.dir, "probe")
	cmd := osexec.CommandContext(context.Background(), "go", "build", "-trimpath", "-o", out, "testdata/probe/main.go")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build probe: %w\n%s", err, msg)
	}
	return os.ReadFile(out)
})

// probe puts the program probe into the build context.
func (h *home) probe() {
	h.t.Helper()
	data, err := buildProbe()
	if err != nil {
		h.t.Fatal(err)
	}
	h.write(map[string]string{"probe": string(data)})
}

// cat returns a file of an image in the store.
func (h *home) cat(image, name string) string {
	h.t.Helper()
	return h.describe(image, "cat", name)
}

func (h *home) describe(image, view string, args ...string) string {
	h.t.Helper()
	ref := image
	if !strings.Contains(ref, "/") {
		ref = "store:docker.io/library/" + image + ":latest"
	}
	img, err := openImage(ref, h.store, h.dir)
	if err != nil {
		h.t.Fatal(err)
	}
	var b strings.Builder
	if err := describe(&b, img, view, args); err != nil {
		h.t.Fatal(err)
	}
	return b.String()
}

// LAWS 12: the end of a RUN waits for nobody, kills what it left, and keeps what
// was in a shared mapping; what was unlinked is gone.
func TestLaw12EndOfRun(t *testing.T) {
	eachLeg(t, func(t *testing.T, h *home) {
		h.probe()
		h.dockerfile("FROM busybox", "COPY --chmod=755 probe /probe",
			"RUN (sleep 1000 &) ; (trap '' TERM HUP INT; sleep 1000 &) ; echo done > /done",
			"RUN /probe dirty /mapped",
			"RUN /probe unlinked /unlinked",
			"RUN (while :; do echo x >> /growing; done) & while [ ! -s /growing ]; do sleep 0.01; done",
			"RUN wc -c < /growing > /size; sleep 0.2; test $(wc -c < /growing) = $(cat /size)",
			"RUN ! test -e /unlinked; head -c 10 /mapped > /page1; tail -c 4096 /mapped | head -c 11 > /page2",
		)
		h.ok("build", "-t", "end", ".") // what is left behind lasts longer than a build may
		if got, want := h.cat("end", "page1")+"|"+h.cat("end", "page2"), "first page|second page"; got != want {
			t.Errorf("mapped file: got %q, want %q", got, want)
		}
	})
}

// LAWS 13: what a step sees is the same whether the steps before it ran in this
// build, in another, or came as layers of a base.
func TestLaw13RoundTrip(t *testing.T) {
	eachLeg(t, func(t *testing.T, h *home) {
		h.probe()
		first := []string{
			"FROM busybox", "COPY --chmod=755 probe /probe", "COPY tree /tree",
			"RUN cp -a /tree /copy; mkdir -p /a/b/c; echo x > /a/b/c/f; ln /a/b/c/f /a/hard; ln -s b /a/sym; mkfifo /a/fifo; chmod 1777 /a; chown -R 7:8 /a/b",
			"RUN cp /probe /capable; /probe setcap /capable; /probe setxattr /a/b/c/f user.probe hello; touch -d '2001-02-03 04:05:06' /a/b; chmod 4711 /capable; rm /etc/group",
			"RUN touch /tree/one; mv /tree/sub /tree/moved; chown 5:6 /home/app; dd if=/dev/zero of=/holes bs=1 count=1 seek=1000000 2>/dev/null; /probe socket /socket; test -S /socket",
		}
		h.write(map[string]string{"tree/one": "1", "tree/sub/two": "2", "tree/sub/deep/three": "3"})
		list := []string{"RUN /probe list / > /tmp/list"}
		h.dockerfile(append(slices.Clone(first), list...)...)
		h.ok("build", "-t", "warm", ".")
		warm := h.cat("warm", "tmp/list")

		h.dockerfile(append(slices.Clone(first), "# again", "ENV X=1", list[0])...)
		h.ok("build", "-t", "stored", ".")
		if diff := cmp.Diff(lines(warm), lines(h.cat("stored", "tmp/list"))); diff != "" {
			t.Errorf("steps from the store (-ran in this build +stored):\n%s", diff)
		}

		h.dockerfile(first...)
		h.ok("build", "-o", "type=oci,tar=false,dest=base", ".")
		h.dockerfile("FROM base", list[0])
		h.ok("build", "--root", filepath.Join(h.dir, "other"), "--build-context", "base=oci-layout://"+filepath.Join(h.ctx, "base"), "-o", "type=oci,tar=false,dest=pulled", ".")
		if diff := cmp.Diff(lines(warm), lines(h.describe(filepath.Join(h.ctx, "pulled"), "cat", "tmp/list"))); diff != "" {
			t.Errorf("layers of a base (-ran in this build +base):\n%s", diff)
		}
		if !strings.Contains(warm, "security.capability=01000002") || !strings.Contains(warm, "user.probe=68656c6c6f") {
			t.Errorf("attributes are missing:\n%s", warm)
		}
	})
}

// lines splits a listing; the root's own times move with what is made in it.
func lines(s string) []string {
	var out []string
	for l := range strings.Lines(s) {
		if !strings.HasPrefix(l, `"/" `) && !strings.HasPrefix(l, `"/tmp`) && !strings.HasPrefix(l, `"/etc" `) && !strings.HasPrefix(l, `"/etc/hosts"`) && !strings.HasPrefix(l, `"/etc/resolv.conf"`) {
			out = append(out, strings.TrimSpace(l))
		}
	}
	return out
}

// LAWS 20 and 36: a RUN has its three descriptors and no other, stdin is empty,
// and FUSE's device cannot be had.
func TestLaw36Descriptors(t *testing.T) {
	eachLeg(t, func(t *testing.T, h *home) {
		h.probe()
		h.dockerfile("FROM busybox", "COPY --chmod=755 probe /probe",
			"RUN [\"/probe\", \"fds\"]", "RUN /probe fds > /fds; test ! -e /dev/fuse; test -z \"$(cat)\"; ls -l /proc/1/fd > /init 2>&1; true")
		h.ok("build", "-t", "fds", ".")
		got := strings.Fields(strings.ReplaceAll(h.cat("fds", "fds"), "\n", " "))
		if len(got) != 6 || got[1] != "/dev/null" || got[5] != "pipe" {
			t.Errorf("descriptors: got %q, want 0 /dev/null, 1 a file, 2 a pipe", got)
		}
		for _, bad := range []string{"fuse", "socket", ".data", "pack"} {
			if strings.Contains(h.cat("fds", "init"), bad) {
				t.Errorf("descriptors of init: %q in\n%s", bad, h.cat("fds", "init"))
			}
		}
	})
}

// LAWS 35: no_new_privs is not set, the filter is; setuid programs and file
// capabilities work; root has docker's capabilities, a user none.
func TestLaw35Privileges(t *testing.T) {
	eachLeg(t, func(t *testing.T, h *home) {
		h.probe()
		h.dockerfile("FROM busybox", "COPY --chmod=755 probe /probe",
			"RUN /probe status NoNewPrivs Seccomp CapEff CapBnd CapInh CapAmb > /root-status",
			"RUN cp /probe /suid && chmod 4755 /suid && cp /probe /capable && /probe setcap /capable",
			"USER app", "WORKDIR /home/app",
			"RUN /probe status CapEff CapPrm CapAmb Groups > status; /suid euid > euid; /capable status CapEff > capable; /probe euid > own",
		)
		h.ok("build", "-t", "priv", ".")
		got := map[string]string{}
		for _, f := range []string{"root-status", "home/app/status", "home/app/euid", "home/app/capable", "home/app/own"} {
			got[f] = strings.TrimSpace(h.cat("priv", f))
		}
		want := map[string]string{
			"root-status":      "CapInh: 0000000000000000\nCapEff: 00000000a80425fb\nCapBnd: 00000000a80425fb\nCapAmb: 0000000000000000\nNoNewPrivs: 0\nSeccomp: 2",
			"home/app/status":  "Groups: 10 1000 2000\nCapPrm: 0000000000000000\nCapEff: 0000000000000000\nCapAmb: 0000000000000000",
			"home/app/euid":    "0",
			"home/app/capable": "CapEff: 0000000000002000",
			"home/app/own":     "1000",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("privileges (-want +got):\n%s", diff)
		}
		if l := h.describe("priv", "layers"); !strings.Contains(l, " capable security.capability=01000002") || !strings.Contains(l, "- 4755 0:0") {
			t.Errorf("layers: no setuid file or capability of revision 2 in\n%s", l)
		}
	})
}

// LAWS 23: a file that changes right after it was hashed, to the same size and
// even with its old time, is seen.
func TestLaw23RacyFiles(t *testing.T) {
	eachActor(t, func(t *testing.T, h *home) {
		h.dockerfile("FROM scratch", "COPY f /f")
		old := time.Now().Add(-time.Hour)
		for i := range 12 {
			want := fmt.Sprintf("content %04d", i)
			h.write(map[string]string{"f": want})
			if i%2 == 0 {
				if err := os.Chtimes(filepath.Join(h.ctx, "f"), old, old); err != nil {
					t.Fatal(err)
				}
			}
			h.ok("build", "-t", "racy", ".")
			if got := h.cat("racy", "f"); got != want {
				t.Fatalf("round %d: got %q, want %q", i, got, want)
			}
		}
	})
}

// LAWS 32: collection takes nothing that a running build uses.
func TestLaw32InUse(t *testing.T) {
	eachLeg(t, func(t *testing.T, h *home) {
		g := newGate(t)
		h.dockerfile("FROM busybox", "RUN echo one > /one", "RUN echo two > /two; echo ready; "+g.wait+"; cat /one /two > /both; cp /bin/busybox /copy", "RUN cmp /bin/busybox /copy")
		p := h.start("build", "-t", "used", ".")
		p.waitReady()
		for range 3 {
			if r := h.run("cache", "prune", "--all"); r.code != 0 {
				t.Errorf("prune beside a build: got exit code %d\n%s", r.code, r.stderr)
			}
		}
		g.open()
		if r := p.wait(); r.code != 0 {
			t.Fatalf("build beside prune: got exit code %d\n%s", r.code, r.stderr)
		}
		h.describe("used", "validate")
		if got := h.cat("used", "both"); got != "one\ntwo\n" {
			t.Errorf("got %q, want one, two", got)
		}
	})
}
