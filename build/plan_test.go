package build

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/google/go-cmp/cmp"

	"github.com/fbuild/fbuild/dockerfile"
)

// plan is what Plan says of a Dockerfile, one line for each step.
func (w *world) plan(text string) []string {
	w.t.Helper()
	f, err := dockerfile.Parse("Dockerfile", []byte(text), dockerfile.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := Plan(w.t.Context(), Options{
		File: f, ContextDir: w.dir, Platform: v1.Platform{OS: "linux", Architecture: "amd64"}, Recorder: RecorderAuto, Store: w.store,
	})
	if err != nil {
		w.t.Fatalf("plan: %v", err)
	}
	var out []string
	for _, s := range r.Steps {
		line := fmt.Sprintf("%s %d %s %s", s.Stage, s.Number, s.Keyword(), s.Verdict)
		if s.Error != "" {
			line += " error"
		}
		out = append(out, line)
	}
	return out
}

// A plan says what a build would do, and changes nothing.
func TestPlanOfABuild(t *testing.T) {
	const text = "FROM scratch AS a\nCOPY one /d/one\nWORKDIR /w\nFROM scratch AS b\nCOPY --from=a /d /e\nADD two /two\nFROM scratch\nCOPY two .\n"
	tests := []struct {
		name   string
		change func(w *world)
		text   string // "" is the one that was built
		want   []string
	}{
		{"nothing changed", func(*world) {}, "", []string{"stage-2 1 COPY exact"}},
		{"a file changed", func(w *world) { w.write("two", "new") }, "", []string{"stage-2 1 COPY run"}},
		{"another file changed", func(w *world) { w.write("one", "new") }, "", []string{"stage-2 1 COPY exact"}},
		{
			"a file that another stage copies", func(w *world) { w.write("one", "new") }, text[:strings.LastIndex(text, "FROM")],
			[]string{"a 1 COPY run", "a 2 WORKDIR trace", "b 1 COPY run", "b 2 ADD trace"},
		},
		{
			"a RUN that nobody did", func(*world) {}, "FROM scratch AS a\nRUN x\nWORKDIR /y\nFROM scratch\nCOPY two .\nCOPY --from=a /x /\nCOPY one .\n",
			[]string{"a 1 RUN run", "a 2 WORKDIR may", "stage-1 1 COPY exact", "stage-1 2 COPY may", "stage-1 3 COPY may"},
		},
		{
			"a stage on one that runs", func(*world) {}, "FROM scratch AS a\nRUN x\nFROM a AS b\nCOPY one .\nFROM b\nCOPY two .\n",
			[]string{"a 1 RUN run", "b 1 COPY may", "stage-2 1 COPY may"},
		},
		{"a base that is not there", func(*world) {}, "FROM nowhere.example/x\nCOPY one .\n", []string{"stage-0 2 COPY may"}},
		{"a file that is not there", func(*world) {}, "FROM scratch\nCOPY three .\nCOPY one .\n", []string{"stage-0 1 COPY run error", "stage-0 2 COPY may"}},
		{"an address", func(*world) {}, "FROM scratch\nADD http://nowhere.example/x .\nCOPY one .\n", []string{"stage-0 1 ADD may", "stage-0 2 COPY may"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.write("one", "1")
			w.write("two", "2")
			w.must(text)
			w.must(text, func(o *Options) { o.Target = "b" })
			tt.change(w)
			before := storeFiles(t, w.store.Dir())
			if tt.text == "" {
				tt.text = text
			}
			if d := cmp.Diff(tt.want, w.plan(tt.text)); d != "" {
				t.Errorf("plan (-want +got):\n%s", d)
			}
			if d := cmp.Diff(before, storeFiles(t, w.store.Dir())); d != "" {
				t.Errorf("the plan changed the store (-before +after):\n%s", d)
			}
		})
	}
}

// storeFiles lists what a store keeps, but for stat caches and what is in progress.
func storeFiles(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, p)
		if d.IsDir() && (rel == "tmp" || rel == "contexts" || rel == "index") {
			return filepath.SkipDir
		}
		if !d.IsDir() {
			out = append(out, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
