package exec

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/reexec"
	"github.com/fbuild/fbuild/internal/testenv"
)

// newChroot is a fixture without namespaces.
func newChroot(t *testing.T) *fixture {
	t.Helper()
	testenv.NeedRoot(t)
	s, err := Open(context.Background(), Config{Isolation: IsolationChroot})
	if err != nil {
		t.Fatalf("open sandbox: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close sandbox: %v", err)
		}
	})
	if got, want := s.Isolation(), IsolationChroot; got != want {
		t.Errorf("isolation: got %q, want %q", got, want)
	}
	return &fixture{t, s, testenv.BusyboxRoot(t)}
}

// listing is what a root holds: names, modes, owners, times and contents.
func listing(t *testing.T, root string) string {
	t.Helper()
	out, err := osexec.CommandContext(t.Context(), "sh", "-c", `cd "$0" && find . -type f -exec md5sum {} + 2>/dev/null | sort -k2; find . -printf '%p %M %U:%G %T@ %s %l\n' | sort`, root).CombinedOutput()
	if err != nil {
		t.Fatalf("list root: %v\n%s", err, out)
	}
	return string(out)
}

// LAWS 25: what the command finds beside its root leaves no name, no time and nothing beside it.
func TestChrootPlaces(t *testing.T) {
	f := newChroot(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		f.root + "/etc/hosts": "image\n", f.root + "/data/old": "old\n", f.root + "/dev/own": "own\n",
		dir + "/hosts": "placed\n", dir + "/ro/a/b": "ro\n", dir + "/cache/kept": "kept\n",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	before := listing(t, f.root)
	spec := f.spec("sh", "-c", `set -e
		cat /etc/hosts /ro/a/b /data/kept /run/secret; ls /dev/own 2>&1 || true; ls /ram /dev; cat /proc/mounts; ls -l /run/secret
		echo gone >/dev/null; head -c 3 /dev/zero | wc -c; echo x >/dev/stdout || echo no stdout
		echo new >/data/new; echo changed >/ro/a/b; echo y >/ram/y; id -u`)
	spec.Mounts = []Mount{
		{Type: "bind", Source: dir + "/hosts", Target: "/etc/hosts", ReadOnly: true},
		{Type: "bind", Source: dir + "/ro", Target: "/ro", ReadOnly: true},
		{Type: "bind", Source: dir + "/cache", Target: "/data"},
		{Type: "tmpfs", Target: "/ram"},
		{Type: "file", Target: "/run/secret", Data: []byte("hush\n"), Perm: 0o400, UID: 7, GID: 8},
	}
	out, err := f.run(spec)
	if err != nil {
		t.Fatalf("run: %v\n%s", err, out)
	}
	for _, want := range []string{"placed\nro\nkept\nhush\n", "no stdout", "none / chroot", "-r--------    1 7        8", "\n3\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("got output\n%s\nwant %q in it", out, want)
		}
	}
	if diff := cmp.Diff(before, listing(t, f.root)); diff != "" {
		t.Errorf("the root after (-before +after):\n%s", diff)
	}
	for name, want := range map[string]string{"/cache/kept": "kept\n", "/cache/new": "new\n", "/ro/a/b": "ro\n", "/hosts": "placed\n"} {
		if got, err := os.ReadFile(dir + name); err != nil || string(got) != want {
			t.Errorf("source %s: got %q, %v, want %q", name, got, err, want)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(f.root))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside the root: got %v, %v, want nothing", entries, err)
	}
}

// A command that tears down what was placed: what was in the way is what remains, and a cache never turns into something else.
func TestChrootPlacesHostile(t *testing.T) {
	f := newChroot(t)
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(dir+"/cache/x", 0o750), os.MkdirAll(f.root+"/etc", 0o755), os.WriteFile(f.root+"/etc/hosts", []byte("image\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	spec := f.spec("sh", "-c", `rm -rf /cache && ln -s /etc /cache; mv /run/secret /kept; mv /etc /etc2 && ln -s / /etc; rm -rf /dev /proc; mkdir /dev; echo z >/dev/null`)
	spec.Mounts = []Mount{
		{Type: "bind", Source: dir + "/cache", Target: "/cache"},
		{Type: "file", Target: "/etc/hosts", Data: []byte("placed\n"), Perm: 0o644},
		{Type: "file", Target: "/run/secret", Data: []byte("hush\n"), Perm: 0o400},
	}
	if out, err := f.run(spec); err != nil {
		t.Fatalf("run: %v\n%s", err, out)
	}
	st, err := os.Lstat(dir + "/cache")
	if err != nil || !st.IsDir() || st.Mode().Perm() != 0o750 {
		t.Errorf("cache: got %v, %v, want an empty directory of mode 0750", st, err)
	}
	if got, err := os.ReadFile(f.root + "/etc2/hosts"); err != nil || string(got) != "image\n" {
		t.Errorf("hosts in the directory that was renamed: got %q, %v, want the image's", got, err)
	}
	if got, err := os.ReadFile(f.root + "/kept"); err != nil || len(got) != 0 {
		t.Errorf("a secret that was moved away: got %q, %v, want it wiped", got, err)
	}
}

// LAWS 12 without a pid namespace: daemons and double forks, with signals ignored, end with the command.
func TestChrootKillsWhatIsLeft(t *testing.T) {
	f := newChroot(t)
	f.sh("trap '' HUP TERM INT; for i in 1 2 3; do setsid sh -c 'setsid sleep 887771 & setsid sh -c \"sleep 887771 & sleep 887771\" &' </dev/null >/dev/null 2>&1; done; echo started")
	if running(t, "887771") {
		t.Error("daemons left behind: got them running after Run, want them killed")
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cause := errors.New("enough")
	done := f.runInBackground(ctx, f.spec("sh", "-c", "trap '' TERM INT HUP; setsid sh -c 'setsid sleep 887771 &'; echo ready; sleep 887771"))
	cancel(cause)
	if err := <-done; !errors.Is(err, cause) {
		t.Errorf("cancelled: got %v, want the cause of the context", err)
	}
	if running(t, "887771") {
		t.Error("a cancelled command: got processes of it, want none")
	}
	if got := f.sh("echo next"); got != "next" {
		t.Errorf("after a cancelled command: got %q, want the next one to run", got)
	}
}

// testChrootCaller is an A that runs a command with daemons and waits to be killed.
func testChrootCaller() int {
	s, err := Open(context.Background(), Config{Isolation: IsolationChroot})
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	err = s.Run(context.Background(), Spec{
		Root: os.Args[1], Args: []string{"sh", "-c", "touch /cache/kept; setsid sh -c 'setsid sleep 887772 &'; echo running; sleep 887772"}, Env: []string{"PATH=/bin"}, Stdout: os.Stdout, Stderr: os.Stdout,
		Mounts: []Mount{{Type: "bind", Source: os.Args[2], Target: "/cache"}, {Type: "file", Target: "/work/secret", Data: []byte("hush"), Perm: 0o400}},
	})
	fmt.Println("error:", err)
	return 1
}

// LAWS 12: however the caller dies, or the keeper, nothing is left. LAWS 25: nor is a secret, and what was moved into the root is where it was.
func TestChrootCallerKilled(t *testing.T) {
	for _, victim := range []string{"caller", "keeper", "init"} {
		t.Run(victim, func(t *testing.T) {
			f := newChroot(t)
			moved := f.root + ".moved"
			if err := os.Mkdir(moved, 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := reexec.Command(context.Background(), "test-chroot-caller", f.root, moved)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait() // killed
			}()
			if line, err := bufio.NewReader(out).ReadString('\n'); line != "running\n" {
				t.Fatalf("got %q, %v, want running", line, err)
			}
			pid := cmd.Process.Pid
			if victim != "caller" {
				pid = childNamed(t, pid, "fbuild:chroot-keeper")
			}
			if victim == "init" {
				pid = childNamed(t, pid, "fbuild:chroot-init")
			}
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			testenv.Until(t, "end of the command's processes after the kill", func() bool { return !running(t, "887772") })
			after := func() string {
				secret, _ := os.ReadFile(f.root + "/work/secret") // none is as good
				_, err := os.Stat(moved + "/kept")
				return fmt.Sprintf("secret %q, moved directory: %v", secret, err)
			}
			const want = `secret "", moved directory: <nil>`
			testenv.Until(t, want+" after the kill", func() bool { return after() == want })
		})
	}
}

// childNamed finds a process below PID by its first argument.
func childNamed(t *testing.T, pid int, name string) int {
	t.Helper()
	below, err := descendants(pid, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range below {
		if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p)); err == nil && strings.HasPrefix(string(data), name+"\x00") {
			return p
		}
	}
	t.Fatalf("no %s below %d: %v", name, pid, below)
	return 0
}

// LAWS 35, 36: what a command without namespaces is left with.
func TestChrootConfined(t *testing.T) {
	f := newChroot(t)
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", fmt.Sprintf("@fbuild-test-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	build := osexec.CommandContext(t.Context(), "go", "build", "-o", f.root+"/probe", "./testdata/escape")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build probe: %v\n%s", err, out)
	}
	for _, uid := range []uint32{0, 1000} {
		t.Run(fmt.Sprint("uid ", uid), func(t *testing.T) {
			spec := f.spec("/probe", fmt.Sprint(os.Getpid()), l.Addr().String())
			spec.UID, spec.GID, spec.Groups = uid, uid, []uint32{7}
			out, err := f.run(spec)
			if err != nil {
				t.Fatalf("run: %v\n%s", err, out)
			}
			if strings.Contains(out, "BROKE") || !strings.Contains(out, "done") {
				t.Errorf("got\n%s\nwant no trick to work", out)
			}
		})
	}
	for network, want := range map[string]string{"none": "address family not supported", "host": "connection refused"} {
		spec := f.spec("/probe", "1")
		spec.Network = network
		if out, err := f.run(spec); err != nil || !strings.Contains(out, want) {
			t.Errorf("network %s: got %v and\n%s\nwant %q in it", network, err, out, want)
		}
	}
}
