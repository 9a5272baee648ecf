package build

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// law is a rule of LAWS.md that can be switched off in what a step is known to have looked at, and the smallest project that then gives a wrong image.
type law struct {
	name string
	off  func(o *ran)
	// recorder is fuse, or another.
	recorder string
	// file is what follows a base with busybox in it.
	file string
	// setup and edit change the build context, a directory: NAME=TEXT writes, -NAME removes, NAME>TARGET links, NAME+ makes executable, NAME@SECONDS gives a time, NAME/ makes a directory.
	setup, edit []string
}

// without drops questions.
func without(drop func(o *ran, q trace.Question, n *tree.Node) bool) func(o *ran) {
	return func(o *ran) {
		all := o.asked
		o.asked = func(ctx context.Context) ([]trace.Question, string) {
			asked, doubt := all(ctx)
			return slices.DeleteFunc(asked, func(q trace.Question) bool {
				var n *tree.Node
				if q.Root == 0 {
					n = o.parent.Lookup(q.Path)
				}
				return drop(o, q, n)
			}), doubt
		}
	}
}

func withoutKind(k trace.Kind) func(o *ran) {
	return without(func(_ *ran, q trace.Question, _ *tree.Node) bool { return q.Kind == k })
}

// laws are those that decide what is asked. Each is switched off alone.
var laws = []law{
	{
		name: "2 entry of what is not there", off: without(func(_ *ran, q trace.Question, n *tree.Node) bool {
			return q.Kind == trace.Entry && n == nil && q.Root == 0
		}),
		file: "COPY . /w\nRUN if [ -e /w/none ]; then echo yes; fi >/out\n", setup: []string{"a=1"}, edit: []string{"none=1"},
	},
	{
		name: "2 entry", off: without(func(_ *ran, q trace.Question, n *tree.Node) bool { return q.Kind == trace.Entry && n != nil }),
		file: "COPY . /w\nRUN if [ -x /w/a ]; then echo yes; fi >/out\n", setup: []string{"a=1"}, edit: []string{"a+"},
	},
	{
		name: "2 list", off: withoutKind(trace.List),
		file: "COPY . /w\nRUN ls /w/d >/out\n", setup: []string{"d/a=1"}, edit: []string{"d/b=1"},
	},
	{
		name: "2 content", off: withoutKind(trace.Content),
		file: "COPY . /w\nRUN cat /w/a >/out\n", setup: []string{"a=1"}, edit: []string{"a=2"},
	},
	{
		name: "2 link", off: withoutKind(trace.Link),
		file: "COPY . /w\nRUN readlink /w/s >/out; true\n", setup: []string{"s>one"}, edit: []string{"s>two"},
	},
	{
		name: "2 xattr", off: withoutKind(trace.Xattr),
		file: "COPY . /w\nRUN sh /w/prep\nRUN look getxattr /f user.k >/out\n", setup: []string{"prep=:>/f; look setxattr /f user.k 1"}, edit: []string{"prep=:>/f; look setxattr /f user.k 2"},
	},
	{
		name: "3 list of what was removed", off: without(func(o *ran, q trace.Question, _ *tree.Node) bool { return q.Kind == trace.List && o.removed(q.Path) }),
		file: "COPY . /w\nRUN rmdir /w/d || echo full >/out\n", setup: []string{"d/"}, edit: []string{"d/a=1"},
	},
	{
		name: "4 bytes that are in the layer", off: without(func(o *ran, q trace.Question, n *tree.Node) bool { return q.Kind == trace.Content && o.carries(n) }),
		file: "COPY . /w\nRUN chmod 700 /w/a\n", setup: []string{"a=1"}, edit: []string{"a=2"},
	},
	{
		name: "4 what was written again", off: without(func(_ *ran, q trace.Question, _ *tree.Node) bool { return q.Kind == trace.Content }),
		file: "COPY . /w\nRUN echo 1 > /w/a; touch -d @1600000000 /w/a\n", setup: []string{"a=1\n", "a@1600000000"}, edit: []string{"a=2\n", "a@1600000000"},
	},
	{
		name: "4 below what was moved", off: without(func(_ *ran, q trace.Question, _ *tree.Node) bool {
			return strings.HasPrefix(q.Path, "w/d") && (q.Kind == trace.List || q.Kind == trace.Content)
		}),
		file: "COPY . /w\nRUN mv /w/d /d\n", setup: []string{"d/a=1"}, edit: []string{"d/a=2"},
	},
	{
		name: "4 names", off: without(func(_ *ran, q trace.Question, _ *tree.Node) bool { return q.Kind == trace.Names || q.Path == "g" }), // g is asked about because f has that name
		file: "COPY . /w\nRUN sh /w/prep\nRUN chmod 700 /f\n", setup: []string{"prep=echo 1 >/f; ln /f /g"}, edit: []string{"prep=echo 1 >/f; ln /f /h"},
	},
	{
		name: "7 bind mounts", off: without(func(_ *ran, q trace.Question, _ *tree.Node) bool { return q.Root > 0 }),
		file: "RUN --mount=type=bind,target=/w cat /w/a >/out\n", setup: []string{"a=1"}, edit: []string{"a=2"},
	},
	{
		name: "10 doubt", recorder: RecorderWalk, off: func(o *ran) {
			all := o.asked
			o.asked = func(ctx context.Context) ([]trace.Question, string) {
				asked, _ := all(ctx)
				return asked, ""
			}
		},
		file: "COPY . /w\nRUN cat /w/a >/out\n", setup: []string{"a=1"}, edit: []string{"a=2"},
	},
}

// removed reports whether the step took a path of its parent away.
func (o *ran) removed(p string) bool {
	return slices.ContainsFunc(o.changes, func(c tree.Change) bool { return c.Path == p && c.Whiteout() })
}

// carries reports whether the bytes of a file of the parent are in the layer.
func (o *ran) carries(n *tree.Node) bool {
	return n != nil && slices.ContainsFunc(o.changes, func(c tree.Change) bool {
		return c.Node != nil && slices.Equal(c.Node.Extents, n.Extents)
	})
}

// do changes a build context.
func do(t *testing.T, dir string, deeds []string) {
	t.Helper()
	for _, d := range deeds {
		var err error
		name, text, writes := strings.Cut(d, "=")
		link, target, links := strings.Cut(d, ">")
		switch {
		case strings.HasPrefix(d, "-"):
			err = os.RemoveAll(filepath.Join(dir, d[1:]))
		case writes:
			if err = os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err == nil {
				err = os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)
			}
		case links:
			_ = os.Remove(filepath.Join(dir, link)) // the first time there is none
			err = os.Symlink(target, filepath.Join(dir, link))
		case strings.Contains(d, "@"):
			name, at, _ := strings.Cut(d, "@")
			var sec int64
			if sec, err = strconv.ParseInt(at, 10, 64); err == nil {
				err = os.Chtimes(filepath.Join(dir, name), time.Unix(sec, 0), time.Unix(sec, 0))
			}
		case strings.HasSuffix(d, "+"):
			err = os.Chmod(filepath.Join(dir, strings.TrimSuffix(d, "+")), 0o755)
		case strings.HasSuffix(d, "/"):
			err = os.MkdirAll(filepath.Join(dir, d), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Every law that decides what is asked is needed: switched off alone, a result is
// reused that a build from nothing does not give; with all of them none is.
func TestLawsOff(t *testing.T) {
	x := newWildWorld(t, 1)
	for _, l := range laws {
		t.Run(l.name, func(t *testing.T) {
			x.t, x.dir = t, t.TempDir()
			on := "FROM scratch\nCOPY --from=bb . /\n" + l.file
			off := strings.Replace(on, "RUN", "ENV OFF=1\nRUN", 1) // another identity
			build := func(file string, tamper func(*ran)) (map[string]string, string) {
				x.file, x.change = file, func(o *Options) {
					o.tamper = tamper
					if l.recorder != "" {
						o.Recorder = l.recorder
					}
				}
				return x.reuse()
			}
			do(t, x.dir, l.setup)
			build(on, nil)
			build(off, l.off)
			do(t, x.dir, l.edit)
			want := x.anew()
			got, log := build(on, nil)
			if d := diffRoots(got, want); d != "" {
				t.Errorf("with every law: got a wrong image:\n%s\n%s", d, log)
			}
			if got, log = build(off, l.off); diffRoots(got, want) == "" {
				t.Errorf("with the law off: got the right image, want a wrong one\n%s", log)
			}
		})
	}
}
