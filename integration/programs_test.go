//go:build integration

package integration

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// programsVary are the paths whose contents hold a time or a random number.
var programsVary = regexp.MustCompile(`^(` + strings.Join([]string{
	`tar/snap`, // device, inode and ctime
	`var/log/.*`,
	`var/cache/(ldconfig|debconf|man|apt)/.*`,
	`.*/\.git/index`, // inode and ctime
	`root/\.(cache/go-build|config/go/telemetry)/.*`, // times
	`npm/(_cacache/index-v5|_logs)/.*`,               // times, also in names
	`timed/(.*/)?__pycache__/.*`,                     // mtime of what was copied just now
	`venv/.*\.pyc`,
	`sqlite\.db`, // as readers came
}, "|") + `)$`)

// programs are the targets of programs.Dockerfile, and the target of base.Dockerfile that each begins with.
var programs = []struct{ name, base string }{
	{"apt", "apt"},
	{"git", "tools"},
	{"npm", "npm"},
	{"make", "tools"},
	{"sqlite", "tools"},
	{"python", "tools"},
	{"rsync", "tools"},
	{"go", "go"},
	{"stress", "tools"},
	{"fio", "tools"},
	{"perl", "perl"},
	{"coreutils", "coreutils"},
}

// Real programs do the same on every recorder: what they leave is compared layer by
// layer, path by path. In CI those of a minimal Debian, on two recorders; with
// FBUILD_PROGRAMS set, or FBUILD_MATRIX=all, all, one or a few of them, as -run says.
func TestPrograms(t *testing.T) {
	need(t, haveProgram("debootstrap") || sbin("debootstrap") != "", "debootstrap")
	all := os.Getenv("FBUILD_PROGRAMS") != "" || os.Getenv("FBUILD_MATRIX") == "all"
	on := []string{"fuse", "overlay"}
	if all {
		on = []string{"overlay", "fuse", "walk"}
	}
	samePrograms(t, on, "small", func(t *testing.T) []string {
		args, err := debianArgs(t)
		if err != nil {
			t.Fatal(err)
		}
		return append(args, "-f", "small.Dockerfile")
	})
	for _, p := range programs {
		if all {
			samePrograms(t, on, p.name, func(t *testing.T) []string {
				return []string{"-f", "programs.Dockerfile", "--target=" + p.name, "--build-context=base=oci-layout://" + programsBase(t, p.base)}
			})
		}
	}
}

// samePrograms builds something on several recorders and compares the images, also with
// those of earlier runs of the tests: a recorder may have a run of its own.
func samePrograms(t *testing.T, on []string, name string, args func(*testing.T) []string) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		for _, recorder := range on {
			t.Run(recorder, func(t *testing.T) {
				flags := args(t)
				h := newHome(t, leg{suite.actors[len(suite.actors)-1], recorder})
				h.copyPrograms()
				layout := filepath.Join(h.dir, "image")
				start := time.Now()
				r := h.build(append(append([]string{"build", "--progress=plain", "--network=none", "-o", "type=oci,tar=false,dest=" + layout}, flags...), ".")...)
				t.Logf("%s on %s: %.0f s\n%s", name, recorder, time.Since(start).Seconds(), r.stderr)
				img, err := layoutImage(layout, "")
				if err != nil {
					t.Fatal(err)
				}
				li, err := list(img)
				if err != nil {
					t.Fatal(err)
				}
				comparePrograms(t, name, recorder, li)
			})
		}
	})
}

// comparePrograms keeps a listing beside the bases and compares it with those that the other
// recorders left there for the same Dockerfiles.
func comparePrograms(t *testing.T, name, recorder string, li listing) {
	t.Helper()
	dir, err := cachedBase("programs-listings", programsKey(t), func(string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(li)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+"-"+recorder+".json"), data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range recorders {
		var theirs listing
		data, err := os.ReadFile(filepath.Join(dir, name+"-"+other+".json"))
		if other == recorder || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = json.Unmarshal(data, &theirs)
		}
		if err != nil {
			t.Fatal(err)
		}
		if d := diffListings(theirs, li, programsVary); d != "" {
			t.Errorf("images of %s and %s differ:\n%s", other, recorder, d)
		}
		t.Logf("%s: %s compared with %s: %d paths", name, recorder, other, len(li))
	}
}

// programsKey names the Dockerfiles.
func programsKey(t *testing.T) string {
	t.Helper()
	var key string
	for _, name := range []string{"base", "programs", "small"} {
		data, err := os.ReadFile(filepath.Join("testdata", "programs", name+".Dockerfile"))
		if err != nil {
			t.Fatal(err)
		}
		key += string(data)
	}
	return key
}

// programsBase is a layout of a Debian with what a few programs need offline.
func programsBase(t *testing.T, target string) string {
	t.Helper()
	args, err := nodeArgs(t)
	if err != nil {
		t.Fatal(err)
	}
	golang, err := golangBase()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join("testdata", "programs", "base.Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	layout, err := cachedBase("programs-"+target, string(text), func(dir string) error {
		h := newHome(t, leg{suite.actors[len(suite.actors)-1], "fuse"})
		h.copyPrograms()
		made := filepath.Join(h.dir, "programs")
		h.build(append(append([]string{"build", "--progress=plain", "-f", "base.Dockerfile", "--target=" + target, "--build-context=golang=oci-layout://" + golang, "-o", "type=oci,tar=false,dest=" + made}, args...), ".")...)
		return os.CopyFS(dir, os.DirFS(made))
	})
	if err != nil {
		t.Fatal(err)
	}
	return layout
}

// copyPrograms puts the Dockerfiles, and the packages of the Node input, into the context.
func (h *home) copyPrograms() {
	h.t.Helper()
	err := os.CopyFS(h.ctx, os.DirFS("testdata/programs"))
	for _, name := range []string{"package.json", "package-lock.json"} {
		data, rerr := os.ReadFile(filepath.Join("testdata", "inputs", "node", name))
		err = errors.Join(err, rerr, os.WriteFile(filepath.Join(h.ctx, name), data, 0o644))
	}
	if err == nil {
		err = h.give(h.ctx)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}
