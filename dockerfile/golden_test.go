package dockerfile

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

// TestGolden evaluates whole Dockerfiles, every stage of them, and compares all that the engine gets to see.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/*.dockerfile")
	if err != nil || len(files) == 0 {
		t.Fatalf("glob: %v, %d files", err, len(files))
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			f, err := Parse(filepath.Base(file), src, Options{
				BuildPlatform: "linux/amd64", TargetPlatform: "linux/arm64",
				BuildArgs: map[string]string{"VERSION": "v1.2.3", "HTTPS_PROXY": "http://proxy:3128"},
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Target(""); err != nil {
				t.Fatal(err)
			}
			got := dump(f)
			golden := strings.TrimSuffix(file, ".dockerfile") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("differs (-want +got); go test -update writes it:\n%s", diff)
			}
		})
	}
}
