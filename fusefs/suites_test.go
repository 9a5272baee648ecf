package fusefs

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/reexec"
)

var (
	suite   = flag.String("suite", "", "run a shell command in the root of the file system, and say what it says")
	suiteOn = flag.String("suite-on", "fuse", "the file system: fuse or overlay")
)

// TestSuite runs other people's tests by hand: testdata/suites has the commands.
func TestSuite(t *testing.T) {
	if *suite == "" {
		return // a way to run others, no test
	}
	root, end := suiteRoot(t)
	cmd := reexec.Command(t.Context(), "test-in", "chdir", root, "sh", "-c", *suite)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Errorf("%s: %v", *suite, err)
	}
	end()
}

func suiteRoot(t *testing.T) (root string, end func()) {
	t.Helper()
	w := newWorld(t)
	if *suiteOn == "fuse" {
		w.b = New(Options{give: worldGive()})
		r := w.mount(nil)
		return r.root, func() {
			r.finish()
		}
	}
	for _, d := range []string{"lower", "upper", "over", "merged"} {
		if err := os.Mkdir(filepath.Join(w.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root = filepath.Join(w.dir, "merged")
	options := fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/over,userxattr", w.dir, w.dir, w.dir)
	if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
		t.Fatal(err)
	}
	return root, func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	}
}
