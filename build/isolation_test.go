package build

import (
	"os"
	"runtime"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/exec"
	"github.com/fbuild/fbuild/internal/testenv"
)

// LAWS 8: a builder with one id never serves one with ranges.
func TestRunKeyTellsTheIsolationClass(t *testing.T) {
	s := &state{scope: dockerfile.NewScope(&dockerfile.File{}, dockerfile.ScopeOptions{})}
	b := &builder{opts: Options{Platform: v1.Platform{OS: "linux", Architecture: "amd64"}}}
	run := &dockerfile.Run{Args: []string{"x"}}
	many, manyClass := b.runKey(s, run, "host"), isolationClass("")
	if manyClass == "single" {
		t.Skip("this host has one id")
	}
	t.Setenv("PATH", t.TempDir()) // no newuidmap
	var one Key
	var oneClass string
	asUser(t, func() { one, oneClass = b.runKey(s, run, "host"), isolationClass("") })
	if oneClass != "single" {
		t.Fatalf("class without newuidmap: got %q, want single", oneClass)
	}
	if one == many {
		t.Errorf("classes %q and %q have one key", oneClass, manyClass)
	}
}

// LAWS 8: a chroot never serves namespaces, nor they a chroot.
func TestRunKeyTellsAChroot(t *testing.T) {
	testenv.NeedRoot(t)
	s := &state{scope: dockerfile.NewScope(&dockerfile.File{}, dockerfile.ScopeOptions{})}
	run := &dockerfile.Run{Args: []string{"x"}}
	keys := map[string]Key{}
	for _, isolation := range []string{exec.IsolationNamespaces, exec.IsolationChroot} {
		b := &builder{opts: Options{Platform: v1.Platform{OS: "linux", Architecture: "amd64"}, Isolation: isolation}}
		keys[isolation] = b.runKey(s, run, "host")
	}
	if keys[exec.IsolationNamespaces] == keys[exec.IsolationChroot] {
		t.Error("a RUN in a chroot and one in namespaces: got one key, want two")
	}
}

// asUser runs fn on a thread whose effective user is not root.
func asUser(t *testing.T, fn func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		fn()
		return
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		const keep, nobody = ^uintptr(0), 65534
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, nobody, keep); errno != 0 {
			done <- errno
			return
		}
		fn()
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Fatalf("give up root: %v", err)
	}
}

// LAWS 8: the script of a heredoc is a part of the command.
func TestRunKeyHoldsTheScript(t *testing.T) {
	s := &state{scope: dockerfile.NewScope(&dockerfile.File{}, dockerfile.ScopeOptions{})}
	b := &builder{opts: Options{Platform: v1.Platform{OS: "linux", Architecture: "amd64"}}}
	seen := map[Key]string{}
	for _, script := range []*dockerfile.Script{nil, {Path: "/dev/pipes/EOF", Data: "a"}, {Path: "/dev/pipes/EOF", Data: "b"}, {Path: "/dev/pipes/END", Data: "a"}} {
		key := b.runKey(s, &dockerfile.Run{Args: []string{"/dev/pipes/EOF"}, Script: script}, "host")
		if other, ok := seen[key]; ok {
			t.Errorf("script %+v has the key of %s", script, other)
		}
		if seen[key] = "none"; script != nil {
			seen[key] = script.Path + " " + script.Data
		}
	}
}
