package buildctx

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

var ignoreFiles = map[string]string{
	".dockerignore": "", "Dockerfile": "", "README.md": "", "a/b/c.go": "", "a/b/c.md": "", "a/keep.md": "", "a/.git/x": "",
	"node_modules/p/index.js": "", "node_modules/p/README.md": "", "src/node_modules/q": "", "src/main.go": "", "#x": "", "!y": "", "tmp/": "",
}

func TestIgnore(t *testing.T) {
	dir := write(t, t.TempDir(), ignoreFiles)
	tests := []struct {
		name, ignore string
		source       string
		want         string // space separated
	}{
		{"nothing", "", ".", "!y #x .dockerignore Dockerfile README.md a/ a/.git/ a/.git/x a/b/ a/b/c.go a/b/c.md a/keep.md node_modules/ node_modules/p/ node_modules/p/README.md node_modules/p/index.js src/ src/main.go src/node_modules/ src/node_modules/q tmp/"},
		{"a directory, not below others", "node_modules\na\ntmp", ".", "!y #x .dockerignore Dockerfile README.md src/ src/main.go src/node_modules/ src/node_modules/q"},
		{"leading and trailing slashes, blanks, comments, an empty line, a BOM", "\ufeff# c\n/node_modules/\n\n  a  \n#x\n/src\n/tmp", ".", "!y #x .dockerignore Dockerfile README.md"},
		{"the Dockerfile and the ignore file are files as others", "Dockerfile\n.dockerignore\n**/*.md\nnode_modules\na\nsrc\n*y\ntmp", ".", "#x"},
		{"everything but", "*\n!src/main.go\n!README.md", ".", "README.md src/ src/main.go"},
		{"the last match wins", "*\n!a\na/b\n!a/b/c.go", ".", "a/ a/.git/ a/.git/x a/b/ a/b/c.go a/keep.md"},
		{"an exception with **", "**\n!**/*.go", ".", "a/ a/b/ a/b/c.go src/ src/main.go"},
		{"an exception that names nothing", "*\n!nope/x", ".", ""},
		{"double star in the middle", "*\n!a/**/c.*", ".", "a/ a/b/ a/b/c.go a/b/c.md"},
		{"at any depth", "**/node_modules\n**/.git\na/b\n*.md\n.d*\nDocker*\n[^a-z]*", ".", "a/ a/keep.md src/ src/main.go tmp/"},
		{"an ignored directory is absent", "tmp", "tmp", ""},
		{"an ignored file by its path", "a/b", "a/b/c.go", "a/"},
		{"a path below an ignored directory that an exception reaches", "a\n!a/b/c.go", "a/b/c.go", "a/ a/b/ a/b/c.go"},
		{"a pattern of a source meets ignored files", "**/*.md", "a/*", "a/ a/.git/ a/.git/x a/b/ a/b/c.go"},
		{"dot dot stays inside", "../node_modules", "node_modules/p/index.js", "node_modules/ node_modules/p/ node_modules/p/index.js"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := names(scanTree(t, open(t, dir, Options{Ignore: []byte(tt.ignore)}), tt.source))
			if diff := cmp.Diff(strings.Fields(tt.want), got); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
		})
	}
}

// What is ignored is not even looked at: a directory that nobody may read does not matter, nor do devices in it.
func TestIgnoredIsNotScanned(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{"data/.wh.x": "", "keep": ""})
	for _, ignore := range []string{"data", "*\n!keep", "data\n!other/**"} {
		if got := names(scanTree(t, open(t, dir, Options{Ignore: []byte(ignore)}), ".")); !slices.Equal(got, []string{"keep"}) {
			t.Errorf("ignore %q: got %q, want keep alone", ignore, got)
		}
	}
}

func TestIgnoreErrors(t *testing.T) {
	for ignore, want := range map[string]string{
		"a\n[":                      `read x.dockerignore: pattern "[": syntax error in pattern`,
		"!":                         `read x.dockerignore: pattern "!": illegal exclusion pattern: "!"`,
		"![":                        `read x.dockerignore: pattern "![": syntax error in pattern`,
		"a[z-a]":                    `read x.dockerignore: pattern "a[z-a]": syntax error in pattern`,
		strings.Repeat("x", 70_000): "read x.dockerignore: bufio.Scanner: token too long",
	} {
		_, err := Open(t.TempDir(), Options{Ignore: []byte(ignore), IgnoreName: "x.dockerignore"})
		if err == nil || err.Error() != want {
			t.Errorf("ignore %.20q: got %v, want %s", ignore, err, want)
		}
	}
}

func TestFindIgnore(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{
		"ctx/.dockerignore": "general", "ctx/Dockerfile": "", "ctx/sub/x.Dockerfile.dockerignore": "special", "other/Dockerfile": "", "bare/Dockerfile": "", "bad/.dockerignore/": "",
		"empty/.dockerignore": "",
	})
	tests := []struct{ name, ctx, dockerfile, want, from string }{
		{"the context's", "ctx", "ctx/Dockerfile", "general", "ctx/.dockerignore"},
		{"the Dockerfile's own", "ctx", "ctx/sub/x.Dockerfile", "special", "ctx/sub/x.Dockerfile.dockerignore"},
		{"a Dockerfile elsewhere", "ctx", "other/Dockerfile", "general", "ctx/.dockerignore"},
		{"a Dockerfile from standard input", "ctx", "", "general", "ctx/.dockerignore"},
		{"none", "bare", "bare/Dockerfile", "", ""},
		{"an empty one", "empty", "", "", "empty/.dockerignore"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := tt.dockerfile
			if file != "" {
				file = filepath.Join(dir, file)
			}
			data, name, err := FindIgnore(filepath.Join(dir, tt.ctx), file)
			if err != nil {
				t.Fatal(err)
			}
			from := tt.from
			if from != "" {
				from = filepath.Join(dir, from)
			}
			if string(data) != tt.want || name != from || (data == nil) != (tt.from == "") {
				t.Errorf("FindIgnore: got %q from %q, want %q from %q", data, name, tt.want, from)
			}
		})
	}
	if _, _, err := FindIgnore(filepath.Join(dir, "bad"), ""); err == nil {
		t.Error("a directory called .dockerignore: got no error")
	}
}

// Pruning changes nothing: a scan gives what a walk of everything gives, path by path, with docker's matcher.
func FuzzIgnore(f *testing.F) {
	for _, s := range []string{"*\n!a", "**/b\n!a/b/c.go", "a/**\n!**/*.md", "# x\n!.\n.", "a\n!a/b\na/b/c.md", "**\n!node_modules/p", "a*\n!a/[a-k]*/**"} {
		f.Add(s)
	}
	dir := write(f, f.TempDir(), ignoreFiles)
	f.Fuzz(func(t *testing.T, ignore string) {
		if strings.Count(ignore, "*") > 20 || len(ignore) > 200 {
			return // the matcher's regular expressions get slow
		}
		c, err := Open(dir, Options{Ignore: []byte(ignore)})
		if err != nil {
			return
		}
		defer c.Close()
		got := names(scanTree(t, c, "."))
		if want := walkEverything(t, dir, ignore); !slices.Equal(got, want) {
			t.Errorf("ignore %q: got %q, want %q", ignore, got, want)
		}
	})
}

func walkEverything(t *testing.T, dir, ignore string) []string {
	patterns, err := ignorefile.ReadAll(strings.NewReader(ignore))
	if err != nil {
		t.Fatal(err)
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	infos := map[string]patternmatcher.MatchInfo{}
	keep := map[string]bool{}
	err = fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." {
			return err
		}
		matched, info, err := m.MatchesUsingParentResults(p, infos[filepath.Dir(p)])
		if err != nil {
			t.Fatal(err)
		}
		infos[p] = info
		if matched {
			return nil
		}
		for up := filepath.Dir(p); up != "."; up = filepath.Dir(up) {
			keep[up+"/"] = true
		}
		if d.IsDir() {
			p += "/"
		}
		keep[p] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for p := range keep {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b string) int {
		return strings.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
	})
	return out
}

func TestExcluder(t *testing.T) {
	excluded, err := Excluder([]byte("docs\n!docs/keep\n*.log\n"))
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]bool{"docs/a": true, "docs/keep": false, "x.log": true, "src/main": false, "src/x.log": false} {
		if got, err := excluded(p); got != want || err != nil {
			t.Errorf("%s: got %v, %v, want %v", p, got, err, want)
		}
	}
	if _, err := Excluder([]byte("[\n")); err == nil {
		t.Error("a bad pattern: got no error")
	}
}
