package dockerfile

import (
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestModeAgainstChmod holds ParseMode to chmod(1) with an umask of 0, where that and BuildKit agree: the oracle is the
// system's own program.
func TestModeAgainstChmod(t *testing.T) {
	sh, err := osexec.LookPath("sh")
	if err != nil {
		t.Fatal("no shell")
	}
	modes := []string{
		"755", "0644", "7777", "0", "u+x", "go-w", "a=rX", "+X", "u=rwx,go=rx", "u=rwx,go=u-w", "go=", "go=u-w", "o=g", "g+u",
		"u+s", "g+s", "+t", "u-rwx", "-w", "+rwx", "u=g,g=o", "a+rX,u+w", "ug=rwX,o=rX", "-st", "a+rwxt",
	}
	var script string
	dir := t.TempDir()
	type tried struct {
		file  string
		mode  string
		start uint32
	}
	var all []tried
	for i, m := range modes {
		for _, start := range []uint32{0o644, 0o755, 0o600, 0o070, 0o777, 0} {
			file := filepath.Join(dir, fmt.Sprintf("%d-%o", i, start))
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			script += fmt.Sprintf("chmod %o %s; chmod -- %s %s\n", start, file, m, file)
			all = append(all, tried{file, m, start})
		}
	}
	cmd := osexec.CommandContext(t.Context(), sh, "-c", "umask 0; set -e\n"+script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("chmod: %v\n%s", err, out)
	}
	for _, c := range all {
		m, err := ParseMode(c.mode)
		if err != nil {
			t.Fatalf("ParseMode(%q): %v", c.mode, err)
		}
		fi, err := os.Stat(c.file)
		if err != nil {
			t.Fatal(err)
		}
		want := uint32(fi.Mode().Perm())
		for bit, set := range map[uint32]os.FileMode{0o4000: os.ModeSetuid, 0o2000: os.ModeSetgid, 0o1000: os.ModeSticky} {
			if fi.Mode()&set != 0 {
				want |= bit
			}
		}
		if got := m.Apply(c.start, false); got != want {
			t.Errorf("%s on %04o: got %04o, want %04o", c.mode, c.start, got, want)
		}
	}
}

// TestModeAgainstBuildKit holds ParseMode to what the library of BuildKit gave: a mode, then what becomes of files and
// then of directories of some modes.
func TestModeAgainstBuildKit(t *testing.T) {
	golden, err := os.ReadFile("testdata/mode.golden")
	if err != nil {
		t.Fatal(err)
	}
	starts := []uint32{0o644, 0o755, 0o600, 0o124, 0o4755, 0o2750, 0o1777}
	for line := range strings.Lines(string(golden)) {
		f := strings.Fields(line)
		m, err := ParseMode(f[0])
		if err != nil || len(f) != 1+2*len(starts) {
			t.Fatalf("%q: %v", line, err)
		}
		for i, text := range f[1:] {
			start, isDir := starts[i%len(starts)], i >= len(starts)
			if got := fmt.Sprintf("%o", m.Apply(start, isDir)); got != text {
				t.Errorf("%s on %o (directory: %v): got %s, want %s", f[0], start, isDir, got, text)
			}
		}
	}
}

func TestModeOfDirectory(t *testing.T) {
	m, err := ParseMode("u=rwX,go=rX")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := m.Apply(0o600, true), uint32(0o755); got != want {
		t.Errorf("directory: got %04o, want %04o", got, want)
	}
	if got, want := m.Apply(0o600, false), uint32(0o644); got != want {
		t.Errorf("file: got %04o, want %04o", got, want)
	}
}

func TestParseModeErrors(t *testing.T) {
	for _, s := range []string{"", "8", "x", "u", "u+q", "u+x,", ",u+x", "10000", "0x1", "-1", "rwx", "u+x g", "99999999999999999999"} {
		if m, err := ParseMode(s); err == nil {
			t.Errorf("ParseMode(%q): got %v, want an error", s, m)
		}
	}
}
