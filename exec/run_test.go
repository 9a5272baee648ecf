package exec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

func TestRunEnvironmentIsExact(t *testing.T) {
	t.Setenv("FBUILD_TEST_SECRET", "leak")
	f := newFixture(t)
	spec := f.spec("/bin/env")
	spec.Env = []string{"A=1", "B=two words", "C="}
	out, err := f.run(spec)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Join(spec.Env, "\n"), out); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	spec.Env = nil
	if out, err = f.run(spec); err != nil || out != "" {
		t.Errorf("empty environment: got %q, %v", out, err)
	}
}

// LAWS 36: no descriptor of ours, nor of whoever started us, is open in a command.
func TestRunDescriptors(t *testing.T) {
	leak, err := unix.Open("/", unix.O_RDONLY, 0) // not close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	f := newFixture(t)
	got := f.sh("ls /proc/$$/fd; readlink /proc/$$/fd/0; cat")
	if want := "0\n1\n2\n/dev/null"; got != want {
		t.Errorf("descriptors and stdin: got %q, want %q", got, want)
	}
}

func TestRunSurroundings(t *testing.T) {
	f := newFixture(t)
	for _, tt := range []struct{ name, script, want string }{
		{"host name", "hostname", "fbuild"},
		{"umask", "umask", "0022"},
		{"working directory", "pwd", "/"},
		{"root is all", "ls /", "bin\ndev\netc\nproc\nroot\nsys\ntmp\nwork"},
		{"dev", "ls /dev", "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero"},
		{"null and zero", "echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 2 /dev/urandom | wc -c", "3\n2"},
		{"shm", "echo x > /dev/shm/f; cat /dev/shm/f; stat -c %a /dev/shm", "x\n1777"},
		{"new terminals", "ls -l /dev/ptmx /dev/pts/ptmx | cut -c1-10; exec 3<>/dev/ptmx && ls /dev/pts", "lrwxrwxrwx\ncrw-rw-rw-\n0\nptmx"},
		{"pid namespace", "ls /proc | grep -c '^[0-9]*$' | grep -q '^[2-5]$' && cat /proc/1/comm | wc -l", "1"},
		{"open files", "ulimit -n", "1024"},
		{"core files", "ulimit -c", "0"},
		{"stack", "ulimit -s", "8192"},
		{"session of its own", "cut -d' ' -f6,7 /proc/$$/stat | tr -d '\\n'; echo \" $$\"", ""},
		{"masked", "cat /proc/kcore /proc/keys /proc/interrupts 2>/dev/null | wc -c; ls /sys/firmware | wc -l", "0\n0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := f.sh(tt.script)
			if tt.name == "session of its own" {
				fields := strings.Fields(got)
				if len(fields) != 3 || fields[0] != fields[2] || fields[1] != "0" {
					t.Errorf("session, terminal, pid: got %q, want the pid, 0, the pid", got)
				}
				return
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	checkMounts(t, f.sh("cat /proc/self/mountinfo"))
	entries, err := os.ReadDir(filepath.Join(f.root, "dev"))
	if err != nil || len(entries) != 0 {
		t.Errorf("dev in the root afterwards: got %v, %v, want nothing", entries, err)
	}
}

// checkMounts demands that only the root, /proc, /sys and /dev are there, and that what must be read-only is.
func checkMounts(t *testing.T, mountinfo string) {
	t.Helper()
	seen := 0
	for line := range strings.Lines(mountinfo) {
		fields := strings.Fields(line)
		at, flags := fields[4], fields[5]
		top := strings.SplitN(at, "/", 3)[1]
		if !slices.Contains([]string{"", "proc", "sys", "dev"}, top) {
			t.Errorf("mount: got %q, want none of the host's", line)
		}
		if top == "sys" || slices.Contains(readOnlyPaths, at) {
			seen++
			if !strings.HasPrefix(flags, "ro,") {
				t.Errorf("mount: got %q, want it read-only", line)
			}
		}
	}
	if seen < 4 {
		t.Errorf("read-only mounts: got %d, want /sys and some of /proc", seen)
	}
}

func TestRunUserCanOpenStdout(t *testing.T) {
	f := newFixture(t)
	if f.s.Isolation() == "single" {
		t.Skip("one id only")
	}
	spec := f.spec("sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr")
	spec.UID, spec.GID = 1000, 1000
	if out, err := f.run(spec); err != nil || out != "out\nerr" {
		t.Errorf("got %q, %v, want out and err", out, err)
	}
}

func TestRunCannotStart(t *testing.T) {
	f := newFixture(t)
	for name, data := range map[string]string{"plain": "x", "script": "#!/no/such\n", "garbage": "\x7fELFxxxx"} {
		mode := os.FileMode(0o755)
		if name == "plain" {
			mode = 0o644
		}
		if err := os.WriteFile(filepath.Join(f.root, "work", name), []byte(data), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name, command, want string
		code                int
	}{
		{"not in PATH", "nonesuch", `exec: "nonesuch": executable file not found in $PATH`, 127},
		{"no such path", "/no/such", `exec: "/no/such": stat /no/such: no such file or directory`, 127},
		{"not executable", "/work/plain", `exec: "/work/plain": permission denied`, 126},
		{"directory", "/work", `exec: "/work": is a directory`, 126},
		{"missing interpreter", "/work/script", "exec /work/script: no such file or directory", 127},
		{"exec format", "/work/garbage", "exec /work/garbage: exec format error", 126},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := f.run(f.spec(tt.command))
			var exit *ExitError
			if !errors.As(err, &exit) {
				t.Fatalf("got %v, want *ExitError", err)
			}
			if exit.Code != tt.code || !strings.HasPrefix(exit.Reason, tt.want) {
				t.Errorf("got %d %q, want %d %q", exit.Code, exit.Reason, tt.code, tt.want)
			}
		})
	}
	spec := f.spec("true")
	spec.Dir = "/no/such"
	if _, err := f.run(spec); err == nil || !strings.Contains(err.Error(), `working directory "/no/such": no such file or directory`) {
		t.Errorf("working directory: got %v", err)
	}
	for name, spec := range map[string]Spec{
		"no command":     {Root: f.root},
		"network":        {Root: f.root, Args: []string{"true"}, Network: "bridge"},
		"mount type":     {Root: f.root, Args: []string{"true"}, Mounts: []Mount{{Type: "nfs", Target: "/x"}}},
		"relative mount": {Root: f.root, Args: []string{"true"}, Mounts: []Mount{{Type: "tmpfs", Target: "x/../.."}}},
		"relative root":  {Root: "root", Args: []string{"true"}},
		"no root":        {Root: "/no/such/root", Args: []string{"true"}},
	} {
		if _, err := f.run(spec); err == nil {
			t.Errorf("%s: got nil, want an error", name)
		}
	}
}

func TestRunRelativeCommand(t *testing.T) {
	f := newFixture(t)
	if err := os.WriteFile(filepath.Join(f.root, "work/hello"), []byte("#!/bin/sh\necho $0 in $(pwd)\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	spec := f.spec("./hello")
	spec.Dir = "/work"
	if out, err := f.run(spec); err != nil || out != "./hello in /work" {
		t.Errorf("got %q, %v, want ./hello in /work", out, err)
	}
}

// LAWS 25: mounts leave nothing in the root, and a symlink in the root leads nowhere.
func TestRunMounts(t *testing.T) {
	f := newFixture(t)
	source := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(source, []byte("from outside\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.root, "etc/hosts"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	spec := f.spec("sh", "-c", "cat /etc/hosts; echo x > /etc/hosts; echo y > /work/f; cat /work/f; stat -c %a /work")
	spec.Mounts = []Mount{
		{Type: "bind", Source: source, Target: "/etc/hosts", ReadOnly: true},
		{Type: "tmpfs", Target: "/work", Options: "size=1m,mode=700"},
	}
	out, err := f.run(spec)
	if want := "from outside\nsh: can't create /etc/hosts: Read-only file system\ny\n700"; err != nil || out != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
	if entries, err := os.ReadDir(filepath.Join(f.root, "work")); err != nil || len(entries) != 0 {
		t.Errorf("root afterwards: got %v, %v, want nothing", entries, err)
	}

	spec.Mounts[0].ReadOnly = false
	spec.Args = []string{"sh", "-c", "echo written > /etc/hosts"}
	if out, err := f.run(spec); err != nil {
		t.Errorf("writable mount: %v %s", err, out)
	}
	if got, err := os.ReadFile(source); err != nil || string(got) != "written\n" {
		t.Errorf("source of a writable mount: got %q, %v", got, err)
	}

	if err := os.Symlink("/etc", filepath.Join(f.root, "link")); err != nil {
		t.Fatal(err)
	}
	spec.Mounts = []Mount{{Type: "bind", Source: source, Target: "/link/hosts"}}
	if _, err := f.run(spec); !strings.Contains(fmt.Sprint(err), "symbolic link") {
		t.Errorf("mount over a symlink: got %v, want a refusal", err)
	}
}

func TestRunNetwork(t *testing.T) {
	f := newFixture(t)
	spec := f.spec("sh", "-c", "ls /sys/class/net; ping -c 1 -W 2 127.0.0.1 | grep -c '1 packets received'")
	spec.Network = "none"
	if out, err := f.run(spec); err != nil || out != "lo\n1" {
		t.Errorf("none: got %q, %v, want a loopback device that answers", out, err)
	}
	want, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if got := f.sh("readlink /proc/self/ns/net"); got != want {
		t.Errorf("host: got %q, want the caller's %q", got, want)
	}
}

func TestRunHostname(t *testing.T) {
	f := newFixture(t)
	spec := f.spec("hostname")
	spec.Hostname = "builder.example"
	if out, err := f.run(spec); err != nil || out != spec.Hostname {
		t.Errorf("got %q, %v, want %q", out, err, spec.Hostname)
	}
}

func TestRunLargeCommand(t *testing.T) {
	f := newFixture(t)
	arg := strings.Repeat("x", 100_000)
	spec := f.spec("sh", "-c", "echo ${#A} ${#B} ${#C} ${#1}", "sh", arg)
	spec.Env = append(spec.Env, "A="+arg, "B="+arg, "C="+arg)
	if out, err := f.run(spec); err != nil || out != "100000 100000 100000 100000" {
		t.Errorf("got %q, %v", out, err)
	}
	var out bytes.Buffer
	spec = f.spec("sh", "-c", "head -c 3000000 /dev/zero")
	spec.Stdout = &out
	if err := f.s.Run(context.Background(), spec); err != nil || out.Len() != 3_000_000 {
		t.Errorf("output: got %d bytes, %v, want 3000000", out.Len(), err)
	}
}

func TestRunAtOnce(t *testing.T) {
	f := newFixture(t)
	var g errgroup.Group
	got := make([]string, 8)
	for i := range got {
		g.Go(func() error {
			var out bytes.Buffer
			spec := f.spec("sh", "-c", fmt.Sprintf("echo %d; hostname; exit %d", i, i))
			spec.Stdout, spec.Hostname = &out, fmt.Sprintf("h%d", i)
			err := f.s.Run(context.Background(), spec)
			if exit, ok := errors.AsType[*ExitError](err); ok {
				got[i] = fmt.Sprintf("%s%d", out.String(), exit.Code)
				return nil
			}
			got[i] = out.String() + "0"
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for i, g := range got {
		if want := fmt.Sprintf("%d\nh%d\n%d", i, i, i); g != want {
			t.Errorf("command %d: got %q, want %q", i, g, want)
		}
	}
}

func TestIsolation(t *testing.T) {
	f := newFixture(t)
	if got := f.s.Isolation(); !slices.Contains([]string{"root", "ranges", "single"}, got) || (os.Geteuid() == 0) != (got == "root") {
		t.Errorf("isolation of uid %d: got %q", os.Geteuid(), got)
	}
}
