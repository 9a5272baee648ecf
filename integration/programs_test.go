//go:build integration

package integration

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// programsVary are the paths whose contents hold a time or a random number.
var programsVary = regexp.MustCompile(`^(` + strings.Join([]string{
	`tar/snap`, // device, inode and ctime
	`var/log/.*`,
	`var/cache/(ldconfig|debconf|man|apt)/.*`,
	`.*/\.git/index`,           // inode and ctime
	`root/\.cache/go-build/.*`, // times
	`npm/_cacache/index-v5/.*`,
	`timed/(.*/)?__pycache__/.*`, // mtime of what was copied just now
	`venv/.*\.pyc`,
	`sqlite\.db`, // as readers came
}, "|") + `)$`)

// Real programs do the same on every recorder: what they leave is compared layer by
// layer, path by path. In CI those of a minimal Debian, on two recorders; with
// FBUILD_PROGRAMS set, or FBUILD_MATRIX=all, more of them, on all.
func TestPrograms(t *testing.T) {
	need(t, haveProgram("debootstrap") || sbin("debootstrap") != "", "debootstrap")
	all := os.Getenv("FBUILD_PROGRAMS") != "" || os.Getenv("FBUILD_MATRIX") == "all"
	on := []string{"fuse", "overlay"}
	if all {
		on = recorders
	}
	args, err := debianArgs(t)
	if err != nil {
		t.Fatal(err)
	}
	samePrograms(t, on, "small.Dockerfile", args)
	if all {
		samePrograms(t, on, "programs.Dockerfile", []string{"--build-context=programs=oci-layout://" + programsBase(t)})
	}
}

// samePrograms builds a Dockerfile on several recorders and compares the images.
func samePrograms(t *testing.T, on []string, name string, args []string) {
	t.Helper()
	var ls listings
	t.Run(strings.TrimSuffix(name, ".Dockerfile"), func(t *testing.T) {
		for _, r := range on {
			t.Run(r, func(t *testing.T) {
				h := newHome(t, leg{suite.actors[len(suite.actors)-1], r})
				h.copyPrograms()
				layout := filepath.Join(h.dir, "image")
				h.build(append([]string{"build", "--progress=plain", "--network=none", "-f", name, "-o", "type=oci,tar=false,dest=" + layout}, append(args, ".")...)...)
				img, err := layoutImage(layout, "")
				if err != nil {
					t.Fatal(err)
				}
				li, err := list(img)
				if err != nil {
					t.Fatal(err)
				}
				ls.add(h.leg, li)
			})
		}
	})
	ls.compare(t, programsVary)
}

// programsBase is a layout of a Debian with the programs and what they need offline.
func programsBase(t *testing.T) string {
	t.Helper()
	node, err := nodeArgs(t)
	if err != nil {
		t.Fatal(err)
	}
	golang, err := golangBase()
	if err != nil {
		t.Fatal(err)
	}
	h := newHome(t, leg{suite.actors[len(suite.actors)-1], "fuse"})
	h.copyPrograms()
	layout := filepath.Join(h.dir, "programs")
	args := append([]string{"build", "--progress=plain", "-f", "base.Dockerfile", "--build-context=golang=oci-layout://" + golang, "-o", "type=oci,tar=false,dest=" + layout}, node...)
	h.build(append(args, ".")...)
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
