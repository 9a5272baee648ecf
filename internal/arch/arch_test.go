// Package arch_test holds the architecture as a table that fails.
//
// It reads the source files itself and does not ask "go list": go test caches
// a result by the files that the test process opened, and a child's reads are
// not among them, so a test that asks "go list" stays green from the cache.
package arch_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	root   = "../.."
	module = "github.com/fbuild/fbuild"
)

// mayImport is the architecture. A package that is not a key may import no
// package of this module; one that is may import what stands beside it.
// Everything may import internal/.
var mayImport = map[string][]string{
	"cmd/fbuild":        {"build", "buildctx", "cache", "dockerfile", "exec", "fetch", "image", "oci", "probe", "progress", "trace", "tree"},
	"build":             {"buildctx", "cache", "dockerfile", "exec", "fetch", "fusefs", "oci", "oci/layer", "probe", "progress", "snapshot", "trace", "tree"},
	"probe":             {"exec", "snapshot"},
	"image":             {"cache", "oci", "oci/layer", "tree"},
	"oci":               {"oci/layer", "tree"},
	"oci/layer":         {"tree"},
	"trace":             {"tree"},
	"fusefs":            {"trace", "tree"},
	"snapshot":          {"tree"},
	"buildctx":          {"tree"},
	"cache":             {"tree"},
	"internal/pack":     {"tree"},
	"internal/recorder": {"trace", "tree"},
	"tree/recordertest": {"trace", "tree"},
	"cache/cachetest":   {"cache", "tree"},
}

// pkg is what the non-test files of one folder say.
type pkg struct {
	documented bool
	imports    map[string]string // import path -> file that has it
}

func load(t *testing.T) map[string]*pkg {
	t.Helper()
	pkgs := map[string]*pkg{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() && (base == "testdata" || base == "vendor" || (strings.HasPrefix(base, ".") && name != root)) {
			return fs.SkipDir
		}
		if !strings.HasSuffix(base, ".go") || strings.HasSuffix(base, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(name))
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(rel)
		p := pkgs[dir]
		if p == nil {
			p = &pkg{imports: map[string]string{}}
			pkgs[dir] = p
		}
		p.documented = p.documented || f.Doc != nil
		for _, spec := range f.Imports {
			p.imports[strings.Trim(spec.Path.Value, `"`)] = path.Join(dir, base)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("walk module: %v", err)
	}
	return pkgs
}

func TestImportDirection(t *testing.T) {
	for from, p := range load(t) {
		for imp, file := range p.imports {
			to, ours := strings.CutPrefix(imp, module+"/")
			if !ours || strings.HasPrefix(to, "internal/") || strings.HasPrefix(to, from+"/internal/") {
				continue
			}
			if !slices.Contains(mayImport[from], to) {
				t.Errorf("%s: %s may not import %s", file, from, to)
			}
		}
	}
}

func TestPackageDocs(t *testing.T) {
	for dir, p := range load(t) {
		if !p.documented {
			t.Errorf("%s: no package comment", dir)
		}
	}
}
