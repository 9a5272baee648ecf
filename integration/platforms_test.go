//go:build integration

package integration

import (
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// cmdIndex is `index IMAGE`: the index of an image for several platforms, which must be
// valid down to its layers: its digest, its annotations, and a line for each platform.
func cmdIndex(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: index IMAGE")
	}
	ref := args[0]
	if !strings.Contains(ref, ":") {
		ref = ts.MkAbs(ref)
	}
	idx, err := openIndex(ref, scriptHome(ts).store)
	if err == nil {
		err = validate.Index(idx)
	}
	if neg {
		if err == nil {
			ts.Fatalf("%s is an index", args[0])
		}
		return
	}
	ts.Check(err)
	digest, err := idx.Digest()
	ts.Check(err)
	m, err := idx.IndexManifest()
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%s %s %v\n", digest, m.MediaType, m.Annotations)
	for _, d := range m.Manifests {
		img, err := idx.Image(d.Digest)
		ts.Check(err)
		cfg, err := img.ConfigFile()
		ts.Check(err)
		fmt.Fprintf(ts.Stdout(), "%s %s/%s %s %v env=%v\n", d.Platform, cfg.OS, cfg.Architecture, d.Digest, d.Annotations, cfg.Config.Env)
	}
}

// openIndex returns the index that a script means, as openImage does images.
func openIndex(ref, store string) (v1.ImageIndex, error) {
	if n, ok := strings.CutPrefix(ref, "registry:"); ok {
		at, err := name.ParseReference(suite.reg.host()+"/"+n, name.Insecure)
		if err != nil {
			return nil, err
		}
		return remote.Index(at, remote.WithTransport(inner{suite.reg.handler}))
	}
	want := ""
	if n, ok := strings.CutPrefix(ref, "store:"); ok {
		ref, want = store, n
	} else if st, err := os.Stat(ref); err != nil {
		return nil, err
	} else if !st.IsDir() {
		dir, err := os.MkdirTemp(suite.dir, "archive-")
		if err != nil {
			return nil, err
		}
		if err := untar(ref, dir); err != nil {
			return nil, err
		}
		ref = dir
	}
	all, err := layout.ImageIndexFromPath(ref)
	if err != nil {
		return nil, err
	}
	m, err := all.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, d := range m.Manifests {
		if d.MediaType.IsIndex() && (want == "" || d.Annotations["io.containerd.image.name"] == want) {
			return all.ImageIndex(d.Digest)
		}
	}
	return nil, fmt.Errorf("%s: no index %s in it", ref, want)
}

// emulatorSource stands for QEMU: the kernel starts it with the program's path, its
// argv[0] (flag P) and its arguments.
const emulatorSource = `package main

import (
	"os"
	"strings"
)

func main() {
	if err := os.WriteFile("/made", []byte(strings.Join(os.Args[1:], " ")+"\n"), 0o644); err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
}
`

// An emulator that is only in PATH runs the commands of another architecture, as any user,
// and the host's binfmt_misc stays as it is.
func TestEmulator(t *testing.T) {
	if list, err := filepath.Glob("/proc/sys/fs/binfmt_misc/*riscv64*"); err != nil || len(list) > 0 {
		t.Logf("this host has an emulator of its own (%v, %v)", list, err)
		return
	}
	src := t.TempDir()
	if err := os.WriteFile(src+"/main.go", []byte(emulatorSource), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := osexec.CommandContext(t.Context(), "go", "build", "-o", suite.dir+"/emulator/qemu-riscv64-static", src+"/main.go")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build emulator: %v\n%s", err, out)
	}
	program := make([]byte, 64) // the header of an ELF executable for RISC-V
	copy(program, "\x7fELF\x02\x01\x01")
	program[16], program[18] = 2, 243
	eachLeg(t, func(t *testing.T, h *home) {
		h.write(map[string]string{"program": string(program)})
		h.dockerfile("FROM scratch", "COPY --chmod=755 program /program", `RUN ["/program", "an argument"]`)
		build := []string{"build", "--platform=linux/riscv64", "-o", "out", "."}
		if r := h.run(build...); r.code != 1 || !strings.Contains(r.stderr, "line 3") || !strings.Contains(r.stderr, "the stage is linux/riscv64") || !strings.Contains(r.stderr, "hint: cross-compile") {
			t.Fatalf("without an emulator: got %d\n%s", r.code, r.stderr)
		}
		for i, e := range h.env {
			if path, ok := strings.CutPrefix(e, "PATH="); ok {
				h.env[i] = "PATH=" + path + ":" + suite.dir + "/emulator"
			}
		}
		r := h.run(build...)
		if !newKernel() {
			if !strings.Contains(r.stderr, "since Linux 6.7") {
				t.Errorf("got no word of the kernel's age\n%s", r.stderr)
			}
			return
		}
		got, err := os.ReadFile(h.ctx + "/out/made")
		if want := "/program /program an argument\n"; err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q\n%s", got, err, want, r.stderr)
		}
	})
}

// newKernel says whether a user namespace can have a binfmt_misc of its own.
func newKernel() bool {
	var u unix.Utsname
	var major, minor int
	if unix.Uname(&u) != nil {
		return false
	}
	n, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return n == 2 && err == nil && (major > 6 || major == 6 && minor >= 7)
}
