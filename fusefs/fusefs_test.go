package fusefs

import (
	"testing"

	"github.com/fbuild/fbuild/internal/testenv"
)

func TestShellWritesAFile(t *testing.T) {
	w := newWorld(t)
	base := w.fromDir(testenv.BusyboxRoot(t))
	r := w.mount(nil, base)
	out, err := r.command("chroot", "/bin/sh", "-c", "echo hi > /f && cat /f && ls /").CombinedOutput()
	if err != nil {
		t.Fatalf("run: %v\n%s", err, out)
	}
	res := r.finish()
	expect(t, res, `-0644 0:0 now 3 f`)
	if got := r.data(res, "f"); got != "hi\n" {
		t.Errorf("f: got %q, want %q", got, "hi\n")
	}
}
