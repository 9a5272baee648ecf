//go:build integration

package integration

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/rogpeppe/go-internal/txtar"
)

// A scenario is a project, an edit, and what has to be done again: an archive of
// testdata/scenarios, whose comment says what it shows. Its files are the build
// context, but for
//
//	setup     a shell script, run in the context before the first build: modes, links
//	edit      one that is run before the second build; "edit 3" before the third, ...
//	want      the verdicts of the second build, "want 1" of the first, "want 3" of the third, ...
//	flags     flags of every build, one a line
//	tools     names of testdata/scenarios/tools, one a line, that the base has in /usr/bin
//	programs  names of programs of this host that the base has, with their libraries
//	base/...  files of the base, and what starts with "base 2/" in their stead from the second build on
//
// @WEB@ in a file is the address of a server, and $WEB in a script the directory that it
// serves. Bases are called "base": busybox and these files. A line of want is a verdict and
// the start of a step's instruction,
//
//	run       it was done
//	exact     it was found, and nothing below it had changed
//	trace     it was found because it looked at nothing that had changed
//	found     one of both
//
// or "flags" and flags of this build alone, "exit" and an exit code, "log" and a
// text that the log has, "differs" and a pattern of paths whose contents a build from
// nothing gives otherwise (they hold a time). Each RUN of a build that succeeds
// needs a verdict; what of COPY, ADD and WORKDIR has none may be done or found. In the first
// build everything is done.
//
// After each further build that succeeds the image must equal, times aside, one that
// is built from nothing in a store of its own.
type scenario struct {
	files map[string]string // of the context
	parts map[string]string // setup, edit 2, want 2, flags
	bases [2]map[string]string
	tools []string
	progs []string // of this host
}

var partRE = regexp.MustCompile(`^(setup|edit|want|flags|tools|programs)( [0-9]+)?$`)

func readScenario(name string) (*scenario, error) {
	a, err := txtar.ParseFile(name)
	if err != nil {
		return nil, err
	}
	s := &scenario{files: map[string]string{}, parts: map[string]string{}, bases: [2]map[string]string{{}, {}}}
	for _, f := range a.Files {
		if p, ok := strings.CutPrefix(f.Name, "base/"); ok {
			s.bases[0][p] = string(f.Data)
			continue
		}
		if p, ok := strings.CutPrefix(f.Name, "base 2/"); ok {
			s.bases[1][p] = string(f.Data)
			continue
		}
		if !partRE.MatchString(f.Name) {
			s.files[f.Name] = string(f.Data)
			continue
		}
		part := f.Name
		if part == "edit" || part == "want" {
			part += " 2"
		}
		s.parts[part] = string(f.Data)
	}
	if len(a.Comment) == 0 || s.parts["want 2"] == "" || s.files["Dockerfile"] == "" {
		return nil, fmt.Errorf("%s: needs a comment, a Dockerfile and want", name)
	}
	s.tools, s.progs = strings.Fields(s.parts["tools"]), strings.Fields(s.parts["programs"])
	return s, nil
}

// builds is how often it builds.
func (s *scenario) builds() int {
	n := 2
	for s.parts[fmt.Sprintf("want %d", n+1)] != "" {
		n++
	}
	return n
}

func TestScenarios(t *testing.T) {
	names, err := filepath.Glob("testdata/scenarios/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	if len(names) < 40 {
		t.Errorf("got %d scenarios, want at least 40", len(names))
	}
	if os.Getenv("FBUILD_MATRIX") == "all" {
		found, err := filepath.Glob("testdata/scenarios/real/*.txtar")
		if err != nil || len(found) == 0 {
			t.Fatalf("scenarios of real programs: %q, %v", found, err)
		}
		names = append(names, found...)
	}
	for _, name := range names {
		for _, l := range tracingLegs(name) {
			t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar")+"/"+l.name, func(t *testing.T) {
				t.Parallel()
				s, err := readScenario(name)
				if err != nil {
					t.Fatal(err)
				}
				s.play(newHome(t, l))
			})
		}
	}
}

// tracingLegs are those whose recorder sees what a step looks at: one by the name, or
// with FBUILD_MATRIX=all both users.
func tracingLegs(name string) []leg {
	var out []leg
	for _, a := range suite.actors {
		out = append(out, leg{a, "fuse"})
	}
	if os.Getenv("FBUILD_MATRIX") == "all" || len(out) == 1 {
		return out
	}
	return out[len(name)%2:][:1]
}

func (s *scenario) play(h *home) {
	h.t.Helper()
	s.serve(h)
	h.write(s.files)
	s.shell(h, "setup")
	for n := 1; n <= s.builds(); n++ {
		s.shell(h, fmt.Sprintf("edit %d", n))
		if err := h.give(h.ctx); err != nil {
			h.t.Fatal(err)
		}
		w, err := parseWant(s.parts[fmt.Sprintf("want %d", n)])
		if err != nil {
			h.t.Fatal(err)
		}
		s.build(h, n, w)
	}
}

// build is the Nth build, and one from nothing.
func (s *scenario) build(h *home, n int, w *want) {
	h.t.Helper()
	base, err := s.base(n)
	if err != nil {
		h.t.Fatal(err)
	}
	made, clean := filepath.Join(h.dir, fmt.Sprint("made-", n)), filepath.Join(h.dir, fmt.Sprint("clean-", n))
	args := []string{"build", "--progress=plain", "--build-context=base=oci-layout://" + base}
	args = append(args, strings.Fields(s.parts["flags"])...)
	args = append(args, w.flags...)
	isNoCache := func(flag string) bool { return strings.HasPrefix(flag, "--no-cache") }
	out := func(dir string) []string { return []string{"-o", "type=oci,tar=false,dest=" + dir, "."} }
	r := h.run(slices.Concat(args, out(made))...)
	if os.Getenv("FBUILD_KEEP") != "" {
		h.t.Logf("build %d:\n%s", n, r.stderr)
	}
	if r.code != w.exit {
		h.t.Fatalf("build %d: got exit code %d, want %d\n%s", n, r.code, w.exit, r.stderr)
	}
	problems := w.check(stepsOf(r.stderr), n == 1 || w.exit != 0)
	for _, text := range w.log {
		if !strings.Contains(r.stderr, text) {
			problems = append(problems, fmt.Sprintf("the log lacks %q", text))
		}
	}
	if len(problems) > 0 {
		h.t.Errorf("build %d: %s\n%s", n, strings.Join(problems, "\n"), r.stderr)
	}
	if w.exit != 0 || n == 1 {
		return
	}
	root := filepath.Join(h.dir, "other") // has the base only, since nothing is used again
	h.ok(slices.Concat(slices.DeleteFunc(args, isNoCache), []string{"--root", root, "--no-cache"}, out(clean))...)
	if d := diffTrees(h.image(made), h.image(clean), w.differs); d != "" {
		h.t.Errorf("build %d: the image, and one from nothing:\n%s\n%s", n, d, r.stderr)
	}
	for _, dir := range []string{made, clean} {
		if err := os.RemoveAll(dir); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *home) image(dir string) v1.Image {
	h.t.Helper()
	img, err := openImage(dir, "", h.dir)
	if err != nil {
		h.t.Fatal(err)
	}
	return img
}

// serve starts the server, if there is a use for it.
func (s *scenario) serve(h *home) {
	const mark = "@WEB@"
	web := filepath.Join(h.dir, "web")
	if err := os.Mkdir(web, 0o755); err != nil {
		h.t.Fatal(err)
	}
	address := ""
	for name, text := range s.files {
		if address == "" && strings.Contains(text, mark) {
			srv := httptest.NewServer(http.FileServer(http.Dir(web)))
			h.t.Cleanup(srv.Close)
			address = srv.URL
		}
		s.files[name] = strings.ReplaceAll(text, mark, address)
	}
}

// shell runs a script of a scenario in the build context.
func (s *scenario) shell(h *home, part string) {
	h.t.Helper()
	script := s.parts[part]
	if script == "" {
		return
	}
	cmd := osexec.CommandContext(h.t.Context(), "sh", "-euc", script)
	cmd.Dir, cmd.Env = h.ctx, append(os.Environ(), "WEB="+filepath.Join(h.dir, "web"))
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// scenarioBases keeps the layouts of bases by what is in them.
var scenarioBases struct {
	mu   sync.Mutex
	made map[string]string
}

// base returns the layout of the base of the Nth build.
func (s *scenario) base(n int) (string, error) {
	files := maps.Clone(s.bases[0])
	if n > 1 {
		maps.Copy(files, s.bases[1])
	}
	for _, tool := range s.tools {
		data, err := os.ReadFile(filepath.Join("testdata/scenarios/tools", tool))
		if err != nil {
			return "", err
		}
		files["usr/bin/"+tool] = string(data)
	}
	key := fmt.Sprint(files, s.progs) // sorted
	b := &scenarioBases
	b.mu.Lock()
	defer b.mu.Unlock()
	if dir := b.made[key]; dir != "" {
		return dir, nil
	}
	dir := filepath.Join(suite.dir, fmt.Sprintf("scenario-base-%d", len(b.made)))
	if err := writeScenarioBase(dir, files, s.progs); err != nil {
		return "", err
	}
	if b.made == nil {
		b.made = map[string]string{}
	}
	b.made[key] = dir
	return dir, nil
}

// writeScenarioBase writes busybox and a layer of files, and one of programs.
func writeScenarioBase(dir string, files map[string]string, programs []string) error {
	below, err := busyboxFiles()
	if err != nil {
		return err
	}
	first, err := tarOf(below...)
	if err != nil {
		return err
	}
	tars := [][]byte{first}
	if len(programs) > 0 {
		data, err := tarPrograms(programs)
		if err != nil {
			return err
		}
		tars = append(tars, data)
	}
	var list []file
	seen := map[string]bool{"": true}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		parts := strings.Split(name, "/")
		for i := range parts[:len(parts)-1] {
			if d := strings.Join(parts[:i+1], "/") + "/"; !seen[d] {
				seen[d] = true
				list = append(list, file{name: d, mode: 0o755})
			}
		}
		mode := int64(0o644)
		if strings.Contains(name, "bin/") {
			mode = 0o755
		}
		list = append(list, file{name: name, data: files[name], mode: mode})
	}
	if len(list) > 0 {
		second, err := tarOf(list...)
		if err != nil {
			return err
		}
		tars = append(tars, second)
	}
	img, err := imageOf(v1.Config{Env: []string{"PATH=/usr/bin:/bin"}, Cmd: []string{"sh"}}, tars...)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return writeLayout(dir, img)
}
