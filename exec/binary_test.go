package exec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/reexec"
	"github.com/fbuild/fbuild/internal/testenv"
)

// testWriteBinary says what happens when somebody who got at the binary of a child writes to it.
func testWriteBinary() int {
	// With O_TRUNC the kernel looks at the mount first; else a running binary is busy, whatever its mount.
	_, err := unix.Open("/proc/self/exe", unix.O_WRONLY|unix.O_TRUNC|unix.O_CLOEXEC, 0)
	name, _ := os.Readlink("/proc/self/exe")
	seals, _ := unix.FcntlInt(mustOpen("/proc/self/exe"), unix.F_GET_SEALS, 0)
	fmt.Fprintf(os.Stderr, "%v; memory %v; sealed %v", err, strings.HasPrefix(name, "/memfd:"), seals > 0 && seals&unix.F_SEAL_WRITE != 0)
	return 0
}

// A command may run our binary through "#!/proc/self/exe" (CVE-2019-5736). A read-only mount and a seal are final; that it is busy holds only until the process ends.
func TestBinaryIsNotWritable(t *testing.T) {
	t.Run("mounted", func(t *testing.T) {
		checkNotWritable(t, open(t, Config{}), "read-only file system; memory false; sealed false")
	})
	t.Run("a binary without a name", func(t *testing.T) {
		testenv.NeedUserNS(t)
		lost := filepath.Join(t.TempDir(), "fbuild")
		copyFile(t, "/proc/self/exe", lost)
		cmd := reexec.Command(context.Background(), "test-lost", lost)
		cmd.Path = lost
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if got, want := string(out), "; memory true; sealed true"; !strings.HasSuffix(got, want) || strings.HasPrefix(got, "<nil>") {
			t.Errorf("binary without a name: got %q, want an error and %q", got, want)
		}
	})
}

func mustOpen(name string) uintptr {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	return uintptr(fd)
}

// testLost removes its own binary, opens a sandbox, and tells what a child of that can do to its binary.
func testLost() int {
	if err := os.Remove(os.Args[1]); err != nil {
		fmt.Println(err)
		return 1
	}
	s, err := Open(context.Background(), Config{})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer s.Close()
	p, err := s.Start(context.Background(), "test-write-binary", nil, os.Stdout)
	if err == nil {
		err = p.Wait()
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func checkNotWritable(t *testing.T, s *Sandbox, want string) {
	t.Helper()
	var said bytes.Buffer
	p, err := s.Start(context.Background(), "test-write-binary", nil, &said)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := said.String(); got != want {
		t.Errorf("open for writing: got %q, want %q", got, want)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(dst, src)
	if err := errors.Join(err, dst.Close()); err != nil {
		t.Fatal(err)
	}
}
