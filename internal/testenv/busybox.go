package testenv

import (
	"debug/elf"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// BusyboxRoot makes a small root file system in a directory of the test: a static /bin/busybox with its applets as symlinks, /etc/passwd and /etc/group, and
// empty proc, sys, dev, tmp (1777), root, work. It skips the test where no static busybox is installed.
func BusyboxRoot(t testing.TB) string {
	t.Helper()
	busybox := staticBusybox(t)
	root := filepath.Join(t.TempDir(), "root")
	for _, dir := range []string{"bin", "etc", "proc", "sys", "dev", "tmp", "root", "work"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatalf("create root: %v", err)
		}
	}
	// 0711 on the way: other ids of the namespace have to pass.
	for _, dir := range []string{filepath.Dir(root), filepath.Dir(filepath.Dir(root))} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatalf("create root: %v", err)
		}
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o1777); err != nil {
		t.Fatalf("create root: %v", err)
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatalf("read busybox: %v", err)
	}
	files := map[string][]byte{
		"bin/busybox": data,
		"etc/passwd":  []byte("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n"),
		"etc/group":   []byte("root:x:0:\nuser:x:1000:\n"),
	}
	for name, data := range files {
		mode := os.FileMode(0o644)
		if name == "bin/busybox" {
			mode = 0o755
		}
		if err := os.WriteFile(filepath.Join(root, name), data, mode); err != nil {
			t.Fatalf("create root: %v", err)
		}
		if err := os.Chmod(filepath.Join(root, name), mode); err != nil {
			t.Fatalf("create root: %v", err)
		}
	}
	out, err := osexec.CommandContext(t.Context(), busybox, "--list").Output()
	if err != nil {
		t.Fatalf("list applets of busybox: %v", err)
	}
	for applet := range strings.FieldsSeq(string(out)) {
		if applet == "busybox" {
			continue
		}
		if err := os.Symlink("busybox", filepath.Join(root, "bin", filepath.Base(applet))); err != nil {
			t.Fatalf("create root: %v", err)
		}
	}
	return root
}

func staticBusybox(t testing.TB) string {
	t.Helper()
	path, err := osexec.LookPath("busybox")
	if err != nil {
		Skip(t, "needs busybox (package busybox-static)")
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatalf("open busybox: %v", err)
	}
	defer func() { _ = f.Close() }() // only read
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			Skip(t, "needs a static busybox (package busybox-static)")
		}
	}
	return path
}
