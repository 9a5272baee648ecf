package recordertest

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fbuild/fbuild/internal/recorder"
)

// testWhiteoutName: a name that starts with ".wh." must not get into a layer: it
// is refused when it is made, or fails the step (LAWS 24).
func testWhiteoutName(t *testing.T, newBackend func(t *testing.T) recorder.Backend) {
	b := newBench(t)
	backend := open(t, newBackend)
	_, layers := b.parent()
	spec := b.spec(layers, nil)
	root, err := backend.Mount(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	out, made := command(t.Context(), root, "write", "etc/.wh.motd")
	_, err = backend.Finish(t.Context(), spec.ID)
	if made == nil && (err == nil || !strings.Contains(err.Error(), ".wh.motd")) {
		t.Errorf("finish: got %v, want an error that names .wh.motd", err)
	}
	if made != nil && err != nil {
		t.Errorf("finish after %s: got %v, want none", out, err)
	}
}

func testAbort(t *testing.T, newBackend func(t *testing.T) recorder.Backend) {
	b := newBench(t)
	backend := open(t, newBackend)
	_, layers := b.parent()
	spec := b.spec(layers, nil)
	root, err := backend.Mount(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := command(t.Context(), root, "write", "etc/x"); err != nil {
		t.Fatalf("write: %v\n%s", err, out)
	}
	if err := backend.Abort(spec.ID); err != nil {
		t.Errorf("abort: %v", err)
	}
	if _, err := backend.Finish(t.Context(), spec.ID); err == nil {
		t.Error("finish after abort: got no error")
	}
	if err := backend.Abort(spec.ID); err != nil {
		t.Errorf("abort again: %v", err)
	}
	packs, err := os.ReadDir(b.packDir)
	if err != nil || len(packs) != 1 {
		t.Errorf("packs after abort: got %v, %v, want the parent's alone", packs, err)
	}
	if left, err := os.ReadDir(spec.WorkDir); err != nil || len(left) != 0 {
		t.Errorf("work directory after abort: got %v, %v, want it empty", left, err)
	}
}

// testTwoSteps: steps that run side by side do not see each other.
func testTwoSteps(t *testing.T, newBackend func(t *testing.T) recorder.Backend) {
	b := newBench(t)
	backend := open(t, newBackend)
	_, layers := b.parent()
	start := time.Now()
	specs := []recorder.Spec{b.spec(layers, nil), b.spec(layers, nil)}
	for i, name := range []string{"etc/one", "etc/two"} {
		root, err := backend.Mount(t.Context(), specs[i])
		if err != nil {
			t.Fatal(err)
		}
		if out, err := command(t.Context(), root, "write", name); err != nil {
			t.Fatalf("write: %v\n%s", err, out)
		}
	}
	for i, name := range []string{"etc/one", "etc/two"} {
		res, err := backend.Finish(t.Context(), specs[i].ID)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := text(res.Changes, start), "d0755 0:0 now etc\n-0644 0:0 now 1 "+name+"\n"; got != want {
			t.Errorf("changes of step %d: got %s want %s", i, got, want)
		}
	}
}

// testStubInTheWay: a mount point that the image has as another kind is an error
// with its name.
func testStubInTheWay(t *testing.T, newBackend func(t *testing.T) recorder.Backend) {
	b := newBench(t)
	backend := open(t, newBackend)
	_, layers := b.parent()
	for _, stub := range []recorder.Stub{{Path: "etc/motd", Dir: true}, {Path: "dir"}, {Path: "etc/motd/x"}} {
		spec := b.spec(layers, []recorder.Stub{stub})
		if _, err := backend.Mount(t.Context(), spec); err == nil || !strings.Contains(err.Error(), stub.Path) {
			t.Errorf("mount with stub %+v: got %v, want an error that names it", stub, err)
			if err == nil {
				_ = backend.Abort(spec.ID) // the test has failed already
			}
		}
	}
}
