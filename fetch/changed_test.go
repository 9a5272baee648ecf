package fetch

import (
	"errors"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChanged(t *testing.T) {
	top := t.TempDir()
	marker := filepath.Join(t.TempDir(), "ran")
	git := func(args ...string) {
		t.Helper()
		cmd := osexec.CommandContext(t.Context(), "git", append([]string{"-c", "user.name=x", "-c", "user.email=x@example.com"}, args...)...)
		cmd.Dir = top
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(top, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(top, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git("init", "-q", "-b", "main")
	for _, name := range []string{"a", "b", "old name", "sub/c", ".gitignore"} {
		write(name, "ignored\n"+name)
	}
	git("add", ".")
	git("commit", "-qm", "one")
	git("checkout", "-q", "-b", "branch")
	write("b", "changed")
	git("commit", "-qam", "two")
	git("checkout", "-q", "main")
	write("a", "only on main")
	git("commit", "-qam", "three")
	git("checkout", "-q", "branch")
	git("mv", "old name", "näme\nof two lines")
	// What a repository's configuration would start is not started.
	git("config", "core.fsmonitor", "touch "+marker)
	git("config", "diff.external", "touch "+marker)
	write("sub/c", "in the work tree")
	write("new", "untracked")
	write("ignored", "by .gitignore")

	renamed := []string{"new", "näme\nof two lines", "old name", "sub/c"}
	tests := []struct {
		name, dir, rev string
		want           []string
		err            string
	}{
		{"the last commit", "", "HEAD", renamed, ""},
		{"from a directory inside", "sub", "HEAD", renamed, ""},
		{"another branch", "", "main", append([]string{"a", "b"}, renamed...), ""},
		{"where the branch began", "", "main...", append([]string{"b"}, renamed...), ""},
		{"no revision", "", "nothing", nil, `revision "nothing"`},
		{"a flag", "", "--output=" + marker, nil, "revision"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Changed(t.Context(), filepath.Join(top, tt.dir), tt.rev)
			if tt.err != "" {
				var e *Error
				if err == nil || !strings.Contains(err.Error(), tt.err) || !errors.As(err, &e) || e.Hint == "" {
					t.Errorf("error: got %v, want one with %q and a hint", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, name := range tt.want {
				want = append(want, filepath.Join(top, name))
			}
			slices.Sort(want)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("changed (-want +got):\n%s", d)
			}
		})
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("a program of the repository's configuration was started")
	}
	if _, err := Changed(t.Context(), t.TempDir(), "HEAD"); err == nil {
		t.Error("outside of a repository: got no error")
	}
}
