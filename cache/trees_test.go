package cache

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fbuild/fbuild/internal/testenv"
)

// A tree that something happened to since it was made is found, and removed when asked.
func TestVerifyTree(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(dir string) error
		good   bool
	}{
		{"as it was made", func(string) error { return nil }, true},
		{"a file was written", func(dir string) error { return os.WriteFile(filepath.Join(dir, "layer", "f"), []byte("2"), 0o600) }, false},
		{"a file went", func(dir string) error { return os.Remove(filepath.Join(dir, "layer", "f")) }, false},
		{"no word about it", func(dir string) error { return os.Remove(filepath.Join(dir, "info")) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			dir := s.path("trees", "t")
			if err := os.MkdirAll(filepath.Join(dir, "layer"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "layer", "f"), []byte("1"), 0o600); err != nil {
				t.Fatal(err)
			}
			fi, err := lstat(filepath.Join(dir, "layer"))
			if err != nil {
				t.Fatal(err)
			}
			file, err := lstat(filepath.Join(dir, "layer", "f"))
			if err != nil {
				t.Fatal(err)
			}
			last := time.Unix(fi.ctime.Unix())
			if at := time.Unix(file.ctime.Unix()); at.After(last) {
				last = at
			}
			info, err := json.Marshal(TreeInfo{Boot: "x", Entries: 2, Last: last})
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "info"), info, 0o600)
			}
			testenv.Tick(t)
			if err == nil {
				err = tt.change(dir)
			}
			if err != nil {
				t.Fatal(err)
			}
			var found []Problem
			if err := s.Verify(t.Context(), VerifyOptions{Remove: true}, func(p Problem) { found = append(found, p) }); err != nil {
				t.Fatal(err)
			}
			if good := len(found) == 0; good != tt.good {
				t.Errorf("problems: got %+v, want none: %v", found, tt.good)
			}
			if _, err := os.Stat(dir); (err == nil) != tt.good {
				t.Errorf("tree: got %v, want it there: %v", err, tt.good)
			}
		})
	}
}
