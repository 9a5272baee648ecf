package fusefs

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/internal/reexec"
	"github.com/fbuild/fbuild/internal/testenv"
	"github.com/fbuild/fbuild/tree"
	"github.com/fbuild/fbuild/tree/recordertest"
)

// posixVar names the directory in which a second run of this binary holds go-fuse's laws.
const posixVar = "FBUILD_FUSEFS_POSIX"

func TestMain(m *testing.M) {
	if os.Getenv(posixVar) != "" {
		os.Exit(m.Run())
	}
	children := map[string]func() int{"test-in": runIn, "test-ask": runAsk, "test-figure": runFigure, "test-warm": runWarm, "test-fsx": runFsx, "test-normal": serveNormally, "test-guest": serveAsGuest, "test-plain": servePlainly}
	maps.Copy(children, Children())
	maps.Copy(children, recordertest.Children())
	os.Exit(testenv.InUserNS(m, children))
}

// serveNormally and serveAsGuest are recorder processes that never and always hand over to the guest of samecore.go.
func serveNormally() int { return serveWith(Options{core: coreNever}) }
func serveAsGuest() int  { return serveWith(Options{core: coreAlways}) }

// servePlainly is one that gives no entries in lists (walk.go).
func servePlainly() int { return serveWith(Options{give: giveNever}) }

// runIn enters a root that another process serves (chroot or chdir) and becomes a command. The serving process must not do that itself:
// it would deadlock with one CPU.
func runIn() int {
	how, root, args := os.Args[1], os.Args[2], os.Args[3:]
	var err error
	if how == "chroot" {
		err = unix.Chroot(root)
		root = "/"
	}
	if err == nil {
		err = os.Chdir(root)
	}
	if err == nil && how == "chdir-user" {
		err = syscall.Setuid(1000)
	}
	path := args[0]
	if err == nil && !strings.Contains(path, "/") {
		path, err = osexec.LookPath(path)
	}
	if err == nil {
		err = unix.Exec(path, args, os.Environ())
	}
	fmt.Fprintln(os.Stderr, "run in root:", err)
	return 126
}

// alwaysGuest holds every test to a recorder whose guest serves whenever it can (samecore.go).
var alwaysGuest = flag.Bool("guest", false, "hand every step over")

// alwaysGive holds every test to a recorder that gives every name that is listed (walk.go).
var alwaysGive = flag.Bool("give", false, "take every program that lists a directory for one that looks at all")

func worldGive() giveMode {
	if *alwaysGive {
		return giveAlways
	}
	return giveToWalks
}

func worldCore() coreMode {
	if *alwaysGuest {
		return coreAlways
	}
	return coreWhereFree
}

// world is a store directory and a recorder over it.
type world struct {
	t     *testing.T
	b     recorder.Backend
	dir   string
	packs *pack.Set
	count int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	testenv.NeedFUSE(t)
	w := &world{t: t, b: New(Options{check: checkChanges, core: worldCore(), give: worldGive(), tells: 1}), dir: t.TempDir()}
	for _, d := range []string{"packs", "work", "layers"} {
		if err := os.Mkdir(filepath.Join(w.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.packs = pack.NewSet(filepath.Join(w.dir, "packs"))
	t.Cleanup(func() {
		if err := w.b.Close(); err != nil {
			t.Errorf("close recorder: %v", err)
		}
		if err := w.packs.Close(); err != nil {
			t.Errorf("close packs: %v", err)
		}
	})
	return w
}

// layer stores changes as a layer index and returns its file.
func (w *world) layer(cs tree.Changes) string {
	w.t.Helper()
	cs.Sort()
	w.count++
	name := filepath.Join(w.dir, "layers", fmt.Sprint(w.count))
	if err := os.WriteFile(name, tree.Encode(cs), 0o644); err != nil {
		w.t.Fatal(err)
	}
	return name
}

// contents stores each string and returns its extent.
func (w *world) contents(data ...string) []tree.Extent {
	w.t.Helper()
	p, err := pack.Create(w.packs.Dir(), "copy")
	if err != nil {
		w.t.Fatal(err)
	}
	var out []tree.Extent
	for _, d := range data {
		out = append(out, tree.Extent{Pack: p.ID(), Off: p.Offset(), Len: int64(len(d))})
		if _, err := p.Write([]byte(d)); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := p.Commit(); err != nil {
		w.t.Fatal(err)
	}
	return out
}

// file is a node with contents.
func (w *world) file(mode uint32, data string) *tree.Node {
	n := &tree.Node{Kind: tree.File, Mode: mode, Mtime: tree.Time{Sec: 1000}, Size: int64(len(data))}
	if data != "" {
		n.Extents = w.contents(data)
	}
	return n
}

func dirNode() *tree.Node {
	return &tree.Node{Kind: tree.Dir, Mode: 0o755, Mtime: tree.Time{Sec: 1000}}
}

// fromDir makes a layer of a directory of this machine.
func (w *world) fromDir(dir string) string {
	w.t.Helper()
	var cs tree.Changes
	p, err := pack.Create(w.packs.Dir(), "copy")
	if err != nil {
		w.t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		n := &tree.Node{Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, Mtime: tree.Time{Sec: st.Mtim.Sec}}
		switch d.Type() {
		case fs.ModeDir:
			n.Kind = tree.Dir
		case fs.ModeSymlink:
			n.Kind = tree.Symlink
			n.Target, err = os.Readlink(name)
			n.Size = int64(len(n.Target))
		case 0:
			data, rerr := os.ReadFile(name)
			n.Kind, n.Size, err = tree.File, int64(len(data)), rerr
			if len(data) > 0 {
				n.Extents = []tree.Extent{{Pack: p.ID(), Off: p.Offset(), Len: n.Size}}
				if _, err := p.Write(data); err != nil {
					return err
				}
			}
		default:
			return nil
		}
		if rel == "." {
			rel = ""
		}
		cs = append(cs, tree.Change{Path: rel, Node: n})
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := p.Commit(); err != nil {
		w.t.Fatal(err)
	}
	return w.layer(cs)
}

// running is a mounted step.
type running struct {
	w      *world
	id     string
	root   string
	layers []string
}

func (w *world) mount(stubs []recorder.Stub, layers ...string) *running {
	w.t.Helper()
	w.count++
	r := &running{w: w, id: fmt.Sprint("step", w.count), layers: layers}
	work := filepath.Join(w.dir, "work", r.id)
	if err := os.Mkdir(work, 0o755); err != nil {
		w.t.Fatal(err)
	}
	root, err := w.b.Mount(context.Background(), recorder.Spec{ID: r.id, Layers: layers, Stubs: stubs, PackDir: w.packs.Dir(), WorkDir: work, Trace: true})
	if err != nil {
		w.t.Fatalf("mount: %v", err)
	}
	r.root = root
	return r
}

func (r *running) command(how string, args ...string) *osexec.Cmd {
	cmd := osexec.CommandContext(r.w.t.Context(), "sh", append([]string{"-c", `cd "$0" && exec "$@"`, r.root}, args...)...)
	if how != "chdir" { // this binary starts slowly, with the race detector above all
		cmd = reexec.Command(r.w.t.Context(), "test-in", append([]string{how, r.root}, args...)...)
	}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/tmp", "LC_ALL=C"}
	cmd.Dir = "/"
	return cmd
}

// try runs a shell script in the root's directory with this machine's programs.
func (r *running) try(script string) (string, error) {
	var out bytes.Buffer
	cmd := r.command("chdir", "sh", "-ec", script)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

func (r *running) sh(script string) string {
	r.w.t.Helper()
	out, err := r.try(script)
	if err != nil {
		r.w.t.Fatalf("sh -c %q: %v\n%s", script, err, out)
	}
	return out
}

func (r *running) finish() recorder.Result {
	r.w.t.Helper()
	res, err := told{r.w.b}.Finish(context.Background(), r.id)
	if err != nil {
		r.w.t.Fatalf("finish: %v", err)
	}
	return res
}

// told is a backend that finishes steps as builds do: changes come in pieces.
type told struct{ recorder.Backend }

func (b told) Finish(ctx context.Context, id string) (recorder.Result, error) {
	g := tree.Gather()
	var whole recorder.Result
	res, err := b.Backend.(recorder.Streamer).FinishTo(ctx, id, recorder.Sink{
		Piece: func(p tree.Piece) error { return g.Add(p) },
		Again: func() error { g = tree.Gather(); return nil },
		Whole: func(r recorder.Result) error { whole = r; return nil },
	})
	if err != nil {
		return res, err
	}
	whole.Questions, whole.Doubt = res.Questions, res.Doubt
	whole.Changes, _, err = g.End()
	return whole, err
}

// expect compares the changes with golden text in which times that are not 1000 read "now".
func expect(t *testing.T, res recorder.Result, want string) {
	t.Helper()
	var lines []string
	for line := range strings.Lines(tree.Format(res.Changes)) {
		f := strings.Split(line, " ")
		if len(f) > 3 && f[0] != "x" && f[0] != "h" && len(f[2]) > 6 {
			f[2] = "now"
		}
		lines = append(lines, strings.Join(f, " "))
	}
	got := strings.Join(lines, "")
	var trimmed []string
	for line := range strings.Lines(want) {
		if l := strings.TrimSpace(line); l != "" {
			trimmed = append(trimmed, l+"\n")
		}
	}
	if want := strings.Join(trimmed, ""); got != want {
		t.Errorf("changes: got\n%swant\n%s", got, want)
	}
}

// data returns the bytes of the changed file p.
func (r *running) data(res recorder.Result, p string) string {
	r.w.t.Helper()
	for i := range res.Changes {
		if res.Changes[i].Path == p {
			n := res.Changes[i].Node
			buf := make([]byte, n.Size)
			if _, err := r.w.packs.ReadAt(n, buf, 0); err != nil && n.Size > 0 && err.Error() != "EOF" {
				r.w.t.Fatalf("read %s: %v", p, err)
			}
			return string(buf)
		}
	}
	r.w.t.Fatalf("no change at %q", p)
	return ""
}
