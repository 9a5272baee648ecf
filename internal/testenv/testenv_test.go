package testenv

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { os.Exit(InUserNS(m, nil)) }

func TestInUserNSCanMount(t *testing.T) {
	NeedUserNS(t)
	if ns, err := os.Readlink("/proc/self/ns/user"); err != nil || ns == initUserNS {
		t.Fatalf("user namespace: got %q, %v, want a new one", ns, err)
	}
	if got := os.Geteuid(); got != 0 {
		t.Errorf("euid: got %d, want 0", got)
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatalf("unmount tmpfs: %v", err)
	}
}

func TestInUserNSMountsArePrivate(t *testing.T) {
	NeedUserNS(t)
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, " shared:") || strings.Contains(line, " master:") {
			t.Errorf("mount: got %q, want a private one", line)
		}
	}
}

func TestInUserNSHidesItsMark(t *testing.T) {
	if got := os.Getenv(innerVar); got != "" {
		t.Errorf("%s: got %q, want unset: a child would think that it is inside", innerVar, got)
	}
}

func TestBusyboxRoot(t *testing.T) {
	root := BusyboxRoot(t)
	for _, name := range []string{"bin/sh", "proc", "sys", "dev", "etc/passwd"} {
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			t.Errorf("busybox root: %v", err)
		}
	}
}
