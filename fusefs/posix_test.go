package fusefs

import (
	"os"
	osexec "os/exec"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// TestPosix holds go-fuse's laws against a mount, from another process.
func TestPosix(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil)
	cmd := osexec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestPosixInside$", "-test.v")
	cmd.Env = append(os.Environ(), posixVar+"="+r.root)
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("posixtest: %v\n%s", err, out)
	}
	r.finish()
}

// TestPosixInside is the half of TestPosix that uses the mount.
func TestPosixInside(t *testing.T) {
	root := os.Getenv(posixVar)
	if root == "" {
		return // it runs inside TestPosix
	}
	for name, law := range posixtest.All {
		if name == "FcntlFlockLocksFile" {
			continue // demands that a process's own record locks conflict, which no file system of the kernel does
		}
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(root, name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			law(t, dir)
		})
	}
}
