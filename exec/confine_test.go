package exec

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/reexec"
	"github.com/fbuild/fbuild/internal/testenv"
)

// status gives the fields of /proc/self/status that matter here.
func status(out string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(out) {
		if k, v, ok := strings.Cut(line, ":"); ok {
			m[k] = strings.Join(strings.Fields(v), " ")
		}
	}
	return m
}

// LAWS 35, LAWS 8.
func TestRunConfined(t *testing.T) {
	signal.Ignore(unix.SIGHUP) // as nohup does
	defer signal.Reset(unix.SIGHUP)
	f := newFixture(t)
	const docker = "00000000a80425fb"
	for _, tt := range []struct {
		name string
		uid  uint32
		want map[string]string
	}{
		{"root", 0, map[string]string{
			"Uid": "0 0 0 0", "Gid": "0 0 0 0", "Groups": "0 7", "CapInh": "0000000000000000", "CapPrm": docker, "CapEff": docker, "CapBnd": docker,
			"CapAmb": "0000000000000000", "NoNewPrivs": "0", "Seccomp": "2", "SigIgn": "0000000000000000", "SigBlk": "0000000000000000", "Umask": "0022",
		}},
		{"user", 1000, map[string]string{
			"Uid": "1000 1000 1000 1000", "Gid": "1000 1000 1000 1000", "Groups": "0 7", "CapInh": "0000000000000000", "CapPrm": "0000000000000000",
			"CapEff": "0000000000000000", "CapBnd": docker, "CapAmb": "0000000000000000", "NoNewPrivs": "0", "Seccomp": "2", "Umask": "0022",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if f.s.Isolation() == "single" {
				t.Skip("one id only")
			}
			spec := f.spec("cat", "/proc/self/status")
			spec.UID, spec.GID, spec.Groups = tt.uid, tt.uid, []uint32{0, 7}
			out, err := f.run(spec)
			if err != nil {
				t.Fatalf("run: %v\n%s", err, out)
			}
			got := status(out)
			for k, want := range tt.want {
				if got[k] != want {
					t.Errorf("%s: got %q, want %q", k, got[k], want)
				}
			}
		})
	}
}

func TestRunRefuses(t *testing.T) {
	f := newFixture(t)
	for _, tt := range []struct{ name, script, want string }{
		{"mount", "mount -t tmpfs none /tmp", "permitted|denied"},
		{"umount", "umount /proc", "permitted|denied"},
		{"unshare", "unshare -m true", "permitted"},
		{"new user namespace", "unshare -U true", "permitted"},
		{"host name", "hostname other", "permitted"},
		{"write to /proc/sys", "echo x > /proc/sys/kernel/hostname", "Read-only"},
		{"write to /sys", "mkdir /sys/kernel/x", "Read-only|permitted"},
		{"device", "mknod /tmp/sda b 8 0 && cat /tmp/sda", "permitted|denied"},
		{"mode of a device of the host", "chmod 600 /dev/null", "Read-only"},
		{"owner of a device of the host", "chown 0:0 /dev/zero", "Read-only"},
		{"time of a device of the host", "touch -d 2000-01-01 /dev/full", "Read-only"},
		{"terminal", "cat /dev/tty", "No such device"},
		{"init's binary", "cat /proc/1/exe >/dev/null", "denied"},
		{"init's binary by thread", "cat /proc/1/task/1/exe >/dev/null", "denied"},
		{"init's binary by name", "readlink -f /proc/1/exe | grep test && exit 0; echo denied; exit 1", "denied"},
		{"init's descriptors", "cat /proc/1/fd/0", "denied"},
		{"init's status pipe", "echo x > /proc/1/fd/4", "denied"},
		{"init's memory", "cat /proc/1/mem", "denied"},
		{"init's environment", "cat /proc/1/environ", "denied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := f.run(f.spec("sh", "-c", tt.script))
			if _, ok := errors.AsType[*ExitError](err); !ok {
				t.Fatalf("got %v and %q, want a refusal", err, out)
			}
			for w := range strings.SplitSeq(tt.want, "|") {
				if strings.Contains(out, w) {
					return
				}
			}
			t.Errorf("got %q, want %s", out, tt.want)
		})
	}
}

func TestRunInitSurvives(t *testing.T) {
	f := newFixture(t)
	if got, want := f.sh("kill -9 1; kill -15 1; echo alive"), "alive"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// LAWS 19: device nodes of a base cannot be opened.
func TestRunNoDevices(t *testing.T) {
	testenv.NeedRoot(t)
	f := newFixture(t)
	if err := unix.Mknod(f.root+"/work/null", unix.S_IFCHR|0o666, 0x103); err != nil {
		t.Fatal(err)
	}
	out, err := f.run(f.spec("cat", "/work/null"))
	if err == nil || !strings.Contains(out, "denied") {
		t.Errorf("open of a device in the root: got %v, %q, want permission denied", err, out)
	}
}

// LAWS 35: setuid programs work.
func TestRunSetuid(t *testing.T) {
	f := newFixture(t)
	if f.s.Isolation() == "single" {
		t.Skip("one id only")
	}
	if err := os.WriteFile(f.root+"/etc/passwd", []byte("root::0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	f.sh("cp /bin/busybox /work/su && chmod 4755 /work/su")
	spec := f.spec("/work/su", "-c", "id -u", "root")
	spec.UID, spec.GID = 1000, 1000
	if out, err := f.run(spec); err != nil || out != "0" {
		t.Errorf("setuid su: got %q, %v, want 0", out, err)
	}
	spec.Args = []string{"su", "-c", "id -u", "root"}
	if out, err := f.run(spec); err == nil {
		t.Errorf("su without setuid: got %q, want an error", out)
	}
}

func TestRunIDs(t *testing.T) {
	f := newFixture(t)
	if f.s.Isolation() == "single" {
		t.Skip("one id only")
	}
	got := f.sh("touch /work/f && chown 1000:42 /work/f && stat -c %u:%g /work/f && rm /work/f")
	if want := "1000:42"; got != want {
		t.Errorf("chown: got %q, want %q", got, want)
	}
	if f.s.Isolation() == "ranges" {
		spec := f.spec("true")
		spec.UID = 4000000000
		if _, err := f.run(spec); err == nil || !strings.Contains(err.Error(), "/etc/subuid") {
			t.Errorf("unmapped uid: got %v, want an error that names /etc/subuid", err)
		}
	}
}

func TestRunSingleID(t *testing.T) {
	s := open(t, Config{SingleID: true})
	if got, want := s.Isolation(), "single"; got != want {
		t.Errorf("isolation: got %q, want %q", got, want)
	}
	f := &fixture{t, s, testenv.BusyboxRoot(t)}
	if got, want := f.sh("id -u; touch /work/f; stat -c %u /work/f; chown 1 /work/f 2>&1 || true"), "0\n0\nchown: /work/f: Invalid argument"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, tt := range []struct {
		name   string
		change func(*Spec)
	}{
		{"uid", func(s *Spec) { s.UID = 1000 }},
		{"gid", func(s *Spec) { s.GID = 1000 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec := f.spec("true")
			tt.change(&spec)
			_, err := f.run(spec)
			if err == nil || !strings.Contains(err.Error(), "only id 0 exists") {
				t.Errorf("got %v, want an error that says that only id 0 exists", err)
			}
		})
	}
	spec := f.spec("true")
	spec.Groups = []uint32{0, 10} // an image's root is in many groups
	if _, err := f.run(spec); err != nil {
		t.Errorf("groups that do not exist here: %v", err)
	}
}

func TestUnavailable(t *testing.T) {
	err := unavailable(unix.ENOSPC)
	var host *reexec.HostError
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, unix.ENOSPC) || !errors.As(err, &host) || host.Cure == "" {
		t.Errorf("got %v, want ErrUnavailable with a cure", err)
	}
}

// As real root the null device is the host's: what is no pipe of ours is not given to the user of the command.
func TestRunKeepsOwnerOfNull(t *testing.T) {
	testenv.NeedRoot(t)
	f := newFixture(t)
	spec := f.spec("true")
	spec.UID, spec.GID = 1000, 1000
	if err := f.s.Run(context.Background(), spec); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/dev/null", &st); err != nil || st.Uid != 0 {
		t.Errorf("owner of /dev/null: got %d, %v, want 0", st.Uid, err)
	}
}

// LAWS 35: file capabilities work.
func TestRunFileCapabilities(t *testing.T) {
	f := newFixture(t)
	if f.s.Isolation() == "single" {
		t.Skip("one id only")
	}
	name := f.root + "/work/cat"
	copyFile(t, f.root+"/bin/busybox", name)
	file, err := os.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var said strings.Builder
	p, err := f.s.Start(context.Background(), "test-setcap", []*os.File{file}, &said)
	if err == nil {
		err = p.Wait()
	}
	if err != nil {
		t.Fatalf("set file capability: %v %s", err, said.String())
	}
	spec := f.spec("/work/cat", "/proc/self/status")
	spec.UID, spec.GID = 1000, 1000
	out, err := f.run(spec)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := status(out)["CapEff"], "0000000000002000"; got != want {
		t.Errorf("effective capabilities: got %s, want %s (CAP_NET_RAW)", got, want)
	}
}

// LAWS 36.
func TestAbstractSocketsAreScoped(t *testing.T) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 || abi < scopedABI {
		t.Skip("this kernel has no Landlock scopes")
	}
	s := open(t, Config{})
	name := fmt.Sprintf("@fbuild-test-%d", os.Getpid())
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours, theirs := pair(t)
	var said strings.Builder
	p, err := s.Start(context.Background(), "test-scope", []*os.File{theirs}, &said)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Write([]byte(name)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(theirs.Close(), ours.CloseWrite(), p.Wait()); err != nil {
		t.Fatal(err)
	}
	if got, want := said.String(), "before <nil>, confine <nil>, after operation not permitted"; got != want {
		t.Errorf("connect: got %q, want %q", got, want)
	}
}

func TestSetattrOld(t *testing.T) {
	if got, want := runMapped(t, false, "test-setattr", t.TempDir()), "ro true nodev true nosuid false\nro true nodev true nosuid true\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
