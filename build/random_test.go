package build

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	goflag "flag"
	"fmt"
	"io"
	"maps"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/internal/reexec"
	"github.com/fbuild/fbuild/internal/testenv"
	"github.com/fbuild/fbuild/progress"
)

// TestMain lets builds of this package run commands.
func TestMain(m *testing.M) {
	children := Children()
	for name, child := range children {
		children[name] = func() int {
			status := child()
			unix.Exit(status) // os.Exit sleeps a second in a race-detecting build
			return status
		}
	}
	reexec.Main(children)
	os.Exit(m.Run())
}

var (
	wildBuilds = goflag.Int("wild", 6, "how many edited builds TestRandomSteps compares with builds from nothing")
	wildSeed   = goflag.Uint64("wildseed", 1, "seed of TestRandomSteps")
)

// wildSteps is how many RUNs a build of TestRandomSteps has: each is a decision.
const wildSteps = 16

// wildWorld is a store where results are kept, and one where none is used again.
type wildWorld struct {
	t           testing.TB
	w           wild
	dir, bb     string
	kept, clean *cache.Store
	file        string
	hits        int // steps that were reused by trace
	decisions   int
	change      func(*Options) // of builds in the kept store
}

func newWildWorld(t testing.TB, seed uint64) *wildWorld {
	t.Helper()
	testenv.NeedUserNS(t)
	testenv.NeedFUSE(t)
	x := &wildWorld{t: t, w: newWild(seed), dir: t.TempDir(), bb: testenv.BusyboxRoot(t)}
	for _, s := range []**cache.Store{&x.kept, &x.clean} {
		var err error
		if *s, err = cache.Open(t.Context(), filepath.Join(t.TempDir(), "store")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := (*s).Close(); err != nil {
				t.Error(err)
			}
		})
	}
	cmd := osexec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", filepath.Join(x.bb, "bin/look"), "./testdata/look")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build look: %v\n%s", err, out)
	}
	return x
}

// project makes a context and a Dockerfile.
func (x *wildWorld) project() {
	x.t.Helper()
	if err := errors.Join(os.RemoveAll(x.dir), os.Mkdir(x.dir, 0o755), os.WriteFile(filepath.Join(x.dir, "prep"), nil, 0o644)); err != nil {
		x.t.Fatal(err)
	}
	for _, d := range []string{"a/d/g", "a/e", "b/f", "c"} {
		if err := os.MkdirAll(filepath.Join(x.dir, d), 0o755); err != nil {
			x.t.Fatal(err)
		}
	}
	for range 30 {
		x.w.edit(x.dir)
	}
	var b strings.Builder
	b.WriteString("FROM scratch\nCOPY --from=bb . /\nCOPY . /w\nWORKDIR /w\nRUN mkdir /out; sh prep >/out/prep 2>&1; true\n")
	for i := range wildSteps - 1 {
		mount, cd := "", ""
		if x.w.IntN(6) == 0 {
			mount, cd = "--mount=type=bind,rw,target=/m ", "cd /m\n"
		}
		fmt.Fprintf(&b, "RUN %s<<END\nexec >/out/%d 2>&1\n%s%strue\nEND\n", mount, i, cd, x.w.script(1+x.w.IntN(3), x.w.command))
	}
	x.file = b.String()
}

// build gives the file system, one line for each name, and the log.
func (x *wildWorld) build(s *cache.Store, change func(*Options)) (map[string]string, string) {
	x.t.Helper()
	f, err := dockerfile.Parse("Dockerfile", []byte(x.file), dockerfile.Options{Contexts: []string{"bb"}})
	if err != nil {
		x.t.Fatalf("%v\n%s", err, x.file)
	}
	var log strings.Builder
	d, err := progress.New(progress.Options{Mode: progress.Plain, Out: &log})
	if err != nil {
		x.t.Fatal(err)
	}
	out := filepath.Join(x.t.TempDir(), "root.tar")
	o := Options{
		File: f, ContextDir: x.dir, Contexts: map[string]string{"bb": x.bb}, Platform: v1.Platform{OS: "linux", Architecture: "amd64"},
		Recorder: RecorderFUSE, Store: s, Progress: d, Stdout: &log, Outputs: []Output{{Type: OutputTar, Dest: out}}, Check: true,
	}
	if change != nil {
		change(&o)
	}
	ctx, cancel := context.WithTimeout(x.t.Context(), testenv.Patience)
	defer cancel()
	_, err = Build(ctx, o)
	if cerr := d.Close(err); err != nil || cerr != nil {
		x.t.Fatalf("build: %v, %v\n%s\n%s", err, cerr, x.file, log.String())
	}
	tree, err := readRoot(out)
	if err := errors.Join(err, os.Remove(out)); err != nil {
		x.t.Fatal(err)
	}
	return tree, log.String()
}

// readRoot reads a tar of a root file system, times aside.
func readRoot(name string) (map[string]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]string{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		p := strings.Trim(h.Name, "/")
		if strings.HasPrefix(p, "bin/") {
			continue
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		text := fmt.Sprintf("%c %o %d:%d %s %s", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, data)
		if len(data) > 200 {
			text = fmt.Sprintf("%c %o %d:%d %x", h.Typeflag, h.Mode, h.Uid, h.Gid, sha256.Sum256(data))
		}
		for _, k := range slices.Sorted(maps.Keys(h.PAXRecords)) {
			if strings.HasPrefix(k, "SCHILY.xattr.") {
				text += fmt.Sprintf(" %s=%q", k, h.PAXRecords[k])
			}
		}
		out[p] = text
	}
}

// reuse builds where results are kept.
func (x *wildWorld) reuse() (map[string]string, string) {
	x.t.Helper()
	got, log := x.build(x.kept, x.change)
	x.hits += strings.Count(log, "CACHED (traced")
	x.decisions += wildSteps
	return got, log
}

// anew builds from nothing.
func (x *wildWorld) anew() map[string]string {
	x.t.Helper()
	want, _ := x.build(x.clean, func(o *Options) { o.NoCache, o.Trace = true, TraceOff })
	return want
}

// compare builds in both stores and says how the results differ.
func (x *wildWorld) compare() string {
	x.t.Helper()
	got, log := x.reuse()
	if d := diffRoots(got, x.anew()); d != "" {
		return d + "\n" + x.file + log
	}
	return ""
}

func diffRoots(got, want map[string]string) string {
	all := maps.Clone(got)
	maps.Copy(all, want)
	var out []string
	for _, p := range slices.Sorted(maps.Keys(all)) {
		if got[p] != want[p] {
			out = append(out, fmt.Sprintf("%s: got %q, want %q", p, got[p], want[p]))
		}
	}
	return strings.Join(out, "\n")
}

// run compares COUNT builds after random edits, in projects of some edits each, and
// returns the first difference.
func (x *wildWorld) run(count int) string {
	x.t.Helper()
	for i := range count {
		if i%5 == 0 {
			x.project()
		}
		if d := x.compare(); d != "" {
			return fmt.Sprintf("build %d: %s", i, d)
		}
		for range 1 + x.w.IntN(3) {
			x.w.edit(x.dir)
		}
	}
	return ""
}

// LAWS 1 to 5: whatever is in a tree, whatever a step does and whatever is edited, the
// result of a build that reuses what it can is that of a build from nothing.
func TestRandomSteps(t *testing.T) {
	seed := *wildSeed
	x := newWildWorld(t, seed)
	if d := x.run(*wildBuilds); d != "" {
		t.Errorf("seed %d (-wildseed %d -wild %d): the result differs from one from nothing:\n%s", seed, seed, *wildBuilds, d)
	}
	t.Logf("seed %d: %d of %d steps were reused by trace", seed, x.hits, x.decisions)
	if x.hits < x.decisions/20 {
		t.Errorf("reused by trace: got %d of %d steps, want enough to prove something", x.hits, x.decisions)
	}
}
