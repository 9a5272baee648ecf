//go:build integration

package integration

import (
	"bytes"
	"context"
	"errors"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// home is where one actor works in one test: a home directory with a store, a
// temporary directory and a build context.
type home struct {
	leg
	t     testing.TB
	dir   string
	store string
	tmp   string
	ctx   string // the build context
	env   []string
	// damaged says that the test broke the store on purpose.
	damaged bool
}

// newHome makes one, and checks at the end of the test that nothing is left.
func newHome(t testing.TB, l leg) *home {
	t.Helper()
	dir, err := os.MkdirTemp(suite.dir, "home-") //nolint:usetesting // the user has to reach it, and must not fail to remove it
	if err != nil {
		t.Fatal(err)
	}
	h := &home{leg: l, t: t, dir: dir, ctx: filepath.Join(dir, "ctx")}
	if err := os.Mkdir(h.ctx, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := h.furnish(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, p := range h.leftovers() {
			t.Error(p)
		}
		if os.Getenv("FBUILD_KEEP") == "" {
			h.dropTrees()
			if err := os.RemoveAll(dir); err != nil {
				t.Errorf("remove home: %v", err)
			}
		}
	})
	return h
}

// dropTrees removes the directories of layers, whose files belong to subordinate ids that
// an ordinary user cannot remove by himself (LAWS 26).
func (h *home) dropTrees() {
	if list, err := os.ReadDir(filepath.Join(h.store, "trees")); err == nil && len(list) > 0 && os.Getuid() != 0 {
		h.run("cache", "prune", "--all")
	}
}

// furnish makes the directories and the environment of a home whose dir is set.
func (h *home) furnish() error {
	h.tmp = filepath.Join(h.dir, ".tmp")
	h.store = filepath.Join(h.dir, ".data", "fbuild")
	for _, d := range []string{h.dir, h.tmp, filepath.Join(h.dir, ".data")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(d, 0o755); err != nil {
			return err
		}
	}
	h.env = []string{
		"HOME=" + h.dir, "XDG_DATA_HOME=" + filepath.Join(h.dir, ".data"), "TMPDIR=" + h.tmp, "PATH=" + os.Getenv("PATH"),
		"DOCKER_CONFIG=" + filepath.Join(h.dir, ".docker"),
		varBin + "=" + suite.bin, varUID + "=" + strconv.Itoa(h.uid), varGID + "=" + strconv.Itoa(h.gid),
		varRecorder + "=" + h.recorder, varBases + "=" + suite.bases,
	}
	if check := os.Getenv("FBUILD_CACHE_CHECK"); check != "" { // every hit by trace is run and compared
		h.env = append(h.env, "FBUILD_CACHE_CHECK="+check)
	}
	return h.give(h.dir)
}

// write puts files, named relative to the build context, in place.
func (h *home) write(files map[string]string) {
	h.t.Helper()
	for name, text := range files {
		p := filepath.Join(h.ctx, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			h.t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			h.t.Fatal(err)
		}
	}
	if err := h.give(h.ctx); err != nil {
		h.t.Fatal(err)
	}
}

// dockerfile writes the Dockerfile.
func (h *home) dockerfile(lines ...string) {
	h.t.Helper()
	h.write(map[string]string{"Dockerfile": strings.Join(lines, "\n") + "\n"})
}

// result is how an fbuild ended.
type result struct {
	code           int
	stdout, stderr string
}

// testTime bounds one fbuild.
const testTime = 3 * time.Minute

// command prepares an fbuild under the supervisor, in the build context.
func (h *home) command(args ...string) *osexec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	h.t.Cleanup(cancel)
	cmd := osexec.CommandContext(ctx, "fbuild", args...)
	cmd.Dir = h.ctx
	cmd.Env = h.env
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// run runs one fbuild to its end.
func (h *home) run(args ...string) result {
	h.t.Helper()
	return h.finish(h.command(args...))
}

func (h *home) finish(cmd *osexec.Cmd) result {
	h.t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *osexec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatalf("run fbuild: %v\n%s", err, errs.String())
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// ok runs one fbuild that must succeed.
func (h *home) ok(args ...string) result {
	h.t.Helper()
	r := h.run(args...)
	if r.code != 0 {
		h.t.Fatalf("fbuild %q: got exit code %d, want 0\n%s%s", args, r.code, r.stdout, r.stderr)
	}
	return r
}

// fails runs one fbuild that must end with a code, one clear message that holds
// WANT, and, unless it is empty, a hint that holds HINT.
func (h *home) fails(code int, want, hint string, args ...string) result {
	h.t.Helper()
	r := h.run(args...)
	checkFailure(h.t, r, code, want, hint)
	return r
}

func checkFailure(t testing.TB, r result, code int, want, hint string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code: got %d, want %d\n%s%s", r.code, code, r.stdout, r.stderr)
	}
	if got := taggedLines(r.stderr, "fbuild: error: "); len(got) != 1 || !strings.Contains(got[0], want) {
		t.Errorf("error: got %q, want one that holds %q\n%s", got, want, r.stderr)
	}
	if hint == "" {
		return
	}
	if got := taggedLines(r.stderr, "fbuild: hint: "); len(got) != 1 || !strings.Contains(got[0], hint) {
		t.Errorf("hint: got %q, want one that holds %q\n%s", got, hint, r.stderr)
	}
}

// taggedLines returns the lines that begin with a tag.
func taggedLines(text, tag string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, tag) {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// leftovers says what a finished fbuild should not have left: mounts, temporary
// files, an unsound store.
func (h *home) leftovers() []string {
	var out []string
	for _, m := range mountsUnder(h.dir) {
		out = append(out, "mount left behind: "+m)
	}
	for _, d := range []string{h.tmp, filepath.Join(h.store, "tmp")} {
		list, err := os.ReadDir(d)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			out = append(out, err.Error())
		}
		for _, e := range list {
			if e.Name() == "locks" {
				continue // files of a fixed name, empty
			}
			out = append(out, "temporary file left behind: "+filepath.Join(d, e.Name()))
		}
	}
	if _, err := os.Stat(h.store); err == nil && !h.damaged {
		if r := h.run("cache", "verify"); r.code != 0 {
			out = append(out, "cache verify: "+r.stdout+r.stderr)
		}
	}
	return out
}

// mountsUnder lists the mount points of this namespace at and below a directory.
func mountsUnder(dir string) []string {
	data, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 && (f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			out = append(out, f[4])
		}
	}
	return out
}
