package exec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// watched runs a command and tells how often OnNetwork was called.
func watched(f *fixture, spec Spec) (calls int32, out string, err error) {
	var n atomic.Int32
	spec.OnNetwork = func() { n.Add(1) }
	out, err = f.run(spec)
	return n.Load(), out, err
}

// LAWS 6: whether a command asked for a socket that leads to other machines, in both sandboxes.
func TestNetWatch(t *testing.T) {
	for name, fixture := range map[string]func(*testing.T) *fixture{"namespaces": newFixture, "chroot": newChroot} {
		t.Run(name, func(t *testing.T) { testNetWatch(t, fixture(t)) })
	}
}

func testNetWatch(t *testing.T, f *fixture) {
	for name, code := range map[string][]byte{"sock32": socket32, "sockcall32": socketcall32} {
		if err := os.WriteFile(filepath.Join(f.root, "bin", name), program32(code), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name, script, network string
		want                  int32
	}{
		{"nothing", "ls / >/dev/null; cat /bin/sh | wc -c >/dev/null; true | true", "", 0},
		{"unix socket", "logger x; true", "", 0},
		{"http", "wget -q -O- http://127.0.0.1:1/ 2>/dev/null; true", "", 1},
		{"tcp", "echo | nc 127.0.0.1 1 2>/dev/null; true", "", 1},
		{"ping", "ping -c 1 -W 1 127.0.0.1 >/dev/null 2>&1; true", "", 1},
		{"of a failed command", "wget -q -O- http://127.0.0.1:1/ 2>/dev/null; exit 3", "", 1},
		{"often", "for i in 1 2 3 4 5; do nc 127.0.0.1 1 </dev/null 2>/dev/null & done; wait; true", "", 1},
		{"of a grandchild", "(sh -c '(sh -c \"nc 127.0.0.1 1 </dev/null 2>/dev/null\"; true)'; true)", "", 1},
		{"none", "nc 127.0.0.1 1 </dev/null 2>/dev/null; true", "none", 0},
		{"32 bit", "sock32", "", 1},
		{"32 bit socketcall", "sockcall32", "", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if strings.Contains(tt.name, "32 bit") && runtime.GOARCH != "amd64" {
				t.Skip("a program of i386")
			}
			spec := f.spec("sh", "-c", tt.script)
			spec.Network = tt.network
			got, out, err := watched(f, spec)
			var exit *ExitError
			if err != nil && (!errors.As(err, &exit) || exit.Code != 3) {
				t.Fatalf("got %v, want an end of its own\n%s", err, out)
			}
			if got != tt.want {
				t.Errorf("calls of OnNetwork: got %d, want %d\n%s", got, tt.want, out)
			}
		})
	}
}

// Where somebody listens already, as with a kernel that has no listeners, the network counts as used and the command runs on.
func TestNetWatchWithoutListener(t *testing.T) {
	done := make(chan [2]int)
	go func() {
		runtime.LockOSThread() // never unlocked: the filter goes with the thread
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			t.Error(err)
		}
		p := listenerProgram(socketSection)
		done <- [2]int{listen(p), listen(p)}
	}()
	fds := <-done
	if fds[0] < 0 || fds[1] >= 0 {
		t.Errorf("descriptors of two listeners on one thread: got %v, want the first only", fds)
	}
	if fds[0] >= 0 {
		_ = unix.Close(fds[0])
	}
	for release, want := range map[string]bool{"5.4.0-1-amd64": false, "5.5.0": true, "6.18.1-cloud": true, "4.19": false, "10.0": true, "": false, "gVisor": false} {
		if got := releaseLetsGoOn(release); got != want {
			t.Errorf("release %q lets calls go on: got %v, want %v", release, got, want)
		}
	}
	var w netWatch
	w.note()
	if !w.last() {
		t.Error("a watch that could not: got no use of the network, want one")
	}
}

// A listener that fails is no silence: the step fails.
func TestNetWatchBroken(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	broken := make(chan error, 1)
	watch := &netWatch{}
	watch.serve(&listener{fd: int(r.Fd()), watch: watch}, func(err error) { broken <- err })
	if err := <-broken; !errors.Is(err, unix.ENOTTY) {
		t.Errorf("listening to a pipe: got %v, want %v", err, unix.ENOTTY)
	}
	s := &Sandbox{}
	err = s.verdict(t.Context(), []byte(`{"Error":"listen to calls of the command: x","Network":true}`), nil, func() {})
	if err == nil || !strings.Contains(err.Error(), "listen to calls") {
		t.Errorf("verdict: got %v, want the listener's error", err)
	}
}

// LAWS 36, 35: the listener reaches no command, and setuid programs still work.
func TestNetWatchLeavesNothing(t *testing.T) {
	f := newFixture(t)
	_, out, err := watched(f, f.spec("sh", "-c", "ls /proc/$$/fd; grep -h NoNewPrivs /proc/self/status"))
	if want := "0\n1\n2\nNoNewPrivs:\t0"; err != nil || out != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
}

func TestNetWatchProgram(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("numbers of amd64")
	}
	const (
		x64, i386 = unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386
		allow     = uint32(unix.SECCOMP_RET_ALLOW)
		ask       = uint32(unix.SECCOMP_RET_USER_NOTIF)
	)
	prog := listenerProgram(linkSection, socketSection)
	for _, tt := range []struct {
		name       string
		arch       uint32
		number, a0 uint32
		want       uint32
	}{
		{"read", x64, unix.SYS_READ, 2, allow},
		{"connect", x64, unix.SYS_CONNECT, 2, allow},
		{"unix", x64, unix.SYS_SOCKET, unix.AF_UNIX, allow},
		{"netlink", x64, unix.SYS_SOCKET, unix.AF_NETLINK, allow},
		{"inet", x64, unix.SYS_SOCKET, unix.AF_INET, ask},
		{"inet6", x64, unix.SYS_SOCKET, unix.AF_INET6, ask},
		{"packet", x64, unix.SYS_SOCKET, unix.AF_PACKET, ask},
		{"smc, which is tcp", x64, unix.SYS_SOCKET, unix.AF_SMC, ask},
		{"socketpair", x64, unix.SYS_SOCKETPAIR, unix.AF_INET, allow},
		{"readlink", x64, unix.SYS_READLINK, 0, ask},
		{"i386 unix", i386, 359, unix.AF_UNIX, allow},
		{"i386 inet", i386, 359, unix.AF_INET, ask},
		{"i386 socketcall socket", i386, 102, 1, ask},
		{"i386 socketcall connect", i386, 102, 3, allow},
		{"another machine", unix.AUDIT_ARCH_S390X, unix.SYS_SOCKET, unix.AF_INET, allow}, // the other filter kills it
	} {
		if got := evaluate(t, prog, map[uint32]uint32{dataArch: tt.arch, dataNumber: tt.number, dataArg0: tt.a0}); got != tt.want {
			t.Errorf("%s: got %#x, want %#x", tt.name, got, tt.want)
		}
		n := &notification{nr: int32(tt.number), arch: tt.arch}
		if got, want := isSocketCall(n), tt.want == ask && tt.name != "readlink"; tt.want == ask && got != want {
			t.Errorf("%s is a socket's: got %v, want %v", tt.name, got, want)
		}
	}
	for _, a := range abis {
		if n := &(notification{nr: int32(a.socket), arch: a.audit}); !isSocketCall(n) {
			t.Errorf("socket of ABI %#x: got no socket call", a.audit)
		}
	}
}

// i386 code: a TCP socket by either call, then exit(0).
var (
	socket32     = []byte{0xb8, 0x67, 1, 0, 0, 0xbb, 2, 0, 0, 0, 0xb9, 1, 0, 0, 0, 0x31, 0xd2, 0xcd, 0x80}
	socketcall32 = []byte{0x6a, 0, 0x6a, 1, 0x6a, 2, 0xb8, 0x66, 0, 0, 0, 0xbb, 1, 0, 0, 0, 0x89, 0xe1, 0xcd, 0x80}
	exit32       = []byte{0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80}
)

// program32 is an ELF executable of i386.
func program32(code []byte) []byte {
	const at, headers = 0x08048000, 52 + 32
	code = slices.Concat(code, exit32)
	le := binary.LittleEndian
	b := []byte("\x7fELF\x01\x01\x01" + strings.Repeat("\x00", 9))
	for _, v := range []uint16{2, 3} { // executable, of i386
		b = le.AppendUint16(b, v)
	}
	for _, v := range []uint32{1, at + headers, 52, 0, 0} {
		b = le.AppendUint32(b, v)
	}
	for _, v := range []uint16{52, 32, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	size := uint32(headers + len(code))
	for _, v := range []uint32{1, 0, at, at, size, size, 5, 0x1000} { // loaded, readable, executable
		b = le.AppendUint32(b, v)
	}
	if len(b) != headers {
		panic(fmt.Sprintf("headers: got %d bytes, want %d", len(b), headers))
	}
	return append(b, code...)
}
