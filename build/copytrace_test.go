package build

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/tree"
)

// traced counts the steps that were reused by trace.
func (w *world) traced() int { return strings.Count(w.out.String(), " CACHED (traced") }

// layers are the diffIDs of an image, bottom first.
func (w *world) layers(res *Result) []tree.Digest {
	w.t.Helper()
	img, err := oci.OpenLayout(w.t.Context(), w.store.Dir(), res.Descriptor.Digest.String(), v1.Platform{OS: "linux", Architecture: "amd64"})
	if err != nil {
		w.t.Fatal(err)
	}
	var out []tree.Digest
	for _, l := range img.Layers {
		out = append(out, l.DiffID)
	}
	return out
}

// touch gives files of the context another time.
func (w *world) touch(at time.Time, names ...string) {
	w.t.Helper()
	for _, n := range names {
		if err := os.Chtimes(filepath.Join(w.dir, n), at, at); err != nil {
			w.t.Fatal(err)
		}
	}
}

// A COPY, ADD or WORKDIR above something that changed is not done again where that does
// not matter to it, and its layer stays.
func TestCopyIsTraced(t *testing.T) {
	const head = "FROM scratch\nCOPY low /\n"
	cases := []struct {
		name, step string
		change     func(w *world)
		traced     bool
	}{
		{"a copy", "COPY two /app/\n", nil, true},
		{"a copy to a name", "COPY two /x\n", nil, true},
		{"an archive", "ADD a.tar /u/\n", nil, true},
		{"heredoc", "COPY <<x /h/\ntext\nx\n", nil, true},
		{"a directory", "WORKDIR /w/x\n", nil, true},
		{"linked", "COPY --link two /app/\n", nil, false}, // by its exact key
		{"the target came into being", "COPY two /app/\n", func(w *world) { w.write("low/app/other", "1") }, false},
		{"a directory came into being", "WORKDIR /app/x\n", func(w *world) { w.write("low/app/other", "1") }, false},
		{"the target became a symlink", "COPY two /etc/x\n", func(w *world) {
			if err := errors.Join(os.Remove(filepath.Join(w.dir, "low/etc/y")), os.Remove(filepath.Join(w.dir, "low/etc")), os.Symlink("usr", filepath.Join(w.dir, "low/etc"))); err != nil {
				w.t.Fatal(err)
			}
		}, false},
		{"what it replaces changed", "COPY two /etc/y\n", func(w *world) { w.write("low/etc/y", "other") }, false},
		{"what it replaces had the same bytes", "COPY two /etc/y\n", func(w *world) {
			w.write("low/etc/y", "1")
			w.touch(time.Unix(1e9, 0), "low/etc/y")
		}, false},
		{"the symlink on the way leads elsewhere", "COPY two /link/x\n", func(w *world) {
			name := filepath.Join(w.dir, "low/link")
			if err := errors.Join(os.Remove(name), os.Symlink("etc", name)); err != nil {
				w.t.Fatal(err)
			}
		}, false},
		{"a neighbour changed", "COPY two /etc/x\n", func(w *world) { w.write("low/etc/y", "other") }, true},
		{"an account changed", "COPY --chown=me two /x\n", func(w *world) { w.write("low/etc/passwd", "me:x:8:8::/:\n") }, false},
		{"accounts stayed", "COPY --chown=me two /x\n", nil, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.write("low/usr/f", "1")
			w.write("low/etc/y", "1")
			w.write("low/etc/passwd", "me:x:7:7::/:\n")
			if strings.Contains(c.name, "symlink") {
				_ = os.Remove(filepath.Join(w.dir, "low/etc/passwd"))
			}
			w.write("two", "2")
			if err := os.Symlink("usr", filepath.Join(w.dir, "low/link")); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(c.name, "same bytes") {
				w.write("low/etc/y", "2")
				w.touch(time.Unix(1e9, 0), "low/etc/y", "two")
			}
			w.archive("a.tar")
			first := w.layers(w.must(head + c.step))
			w.write("low/usr/f", "changed")
			if c.change != nil {
				c.change(w)
			}
			again := w.must(head + c.step)
			if got := w.traced() == 1; got != c.traced {
				t.Errorf("traced: %v, want %v\n%s", got, c.traced, w.out.String())
			}
			second := w.layers(again)
			if c.traced && len(first) > 1 && (second[1] != first[1] || second[0] == first[0]) {
				t.Errorf("layers %q, then %q: want the same on top of another", first, second)
			}
			clean := newWorld(t)
			clean.dir = w.dir
			want, _ := clean.image(clean.must(head + c.step))
			got, _ := w.image(again)
			if a, b := contents(t, got), contents(t, want); !slices.Equal(a, b) {
				t.Errorf("got %q, a build from nothing gives %q", a, b)
			}
			w.must(head+c.step, func(o *Options) { o.Trace = TraceOff })
			if w.cached() != 2 {
				t.Errorf("the build after it: %d steps by their exact keys, want 2\n%s", w.cached(), w.out.String())
			}
		})
	}
}

// contents lists a file system without times.
func contents(t *testing.T, tr tree.Tree) []string {
	t.Helper()
	e := tr.Edit()
	err := tr.Walk(func(p string, n *tree.Node) error {
		if p == "" || n.Links() != nil {
			return nil
		}
		attrs := n.Attrs()
		attrs.Mtime = tree.Time{}
		return e.Put(p, attrs)
	})
	if err != nil {
		t.Fatal(err)
	}
	flat := e.Tree()
	cs, err := tree.Diff(tree.Empty(), flat, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for i := range cs {
		text := strings.TrimSpace(tree.Format(cs[i : i+1]))
		if n := cs[i].Node; n.Kind == tree.File {
			text += " " + string(n.Digest)
		}
		out = append(out, text)
	}
	return out
}

// archive makes an archive of a file in the context.
func (w *world) archive(name string) {
	w.t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	err := tw.WriteHeader(&tar.Header{Name: "packed", Mode: 0o644, Size: 6, ModTime: time.Unix(9, 0)})
	if err == nil {
		_, err = tw.Write([]byte("inside"))
	}
	if err := errors.Join(err, tw.Close()); err != nil {
		w.t.Fatal(err)
	}
	w.write(name, b.String())
}

// --trace=off: what changed below decides.
func TestTraceOff(t *testing.T) {
	w := newWorld(t)
	w.write("one", "1")
	w.write("two", "2")
	text := "FROM scratch\nCOPY one /\nCOPY two /\n"
	off := func(o *Options) { o.Trace = TraceOff }
	w.must(text)
	w.write("one", "changed")
	w.must(text, off)
	if w.traced() != 0 || w.cached() != 0 {
		t.Errorf("%d traced, %d cached, want none\n%s", w.traced(), w.cached(), w.out.String())
	}
}

// --trace=stage: a trace holds on the base that it was made on, and on no other; else
// the output says that the base changed.
func TestTraceStage(t *testing.T) {
	for _, mode := range []string{TraceOn, TraceStage} {
		w := newWorld(t)
		base := t.TempDir()
		if err := os.WriteFile(filepath.Join(base, "doc"), []byte("1"), 0o600); err != nil {
			t.Fatal(err)
		}
		w.write("one", "1")
		w.write("two", "2")
		o := func(o *Options) { o.Trace, o.Contexts = mode, map[string]string{"base": base} }
		text := "FROM base\nCOPY one /\nCOPY two /\n"
		w.must(text, o)
		w.write("one", "changed")
		if w.must(text, o); w.traced() != 1 {
			t.Errorf("%s: on the same base %d traced, want 1\n%s", mode, w.traced(), w.out.String())
		}
		if err := os.WriteFile(filepath.Join(base, "doc"), []byte("2"), 0o600); err != nil {
			t.Fatal(err)
		}
		w.must(text, o)
		said := strings.Count(w.out.String(), "base image changed, not looked at")
		if want := map[string]int{TraceOn: 2, TraceStage: 0}[mode]; w.traced() != want || said != want {
			t.Errorf("%s: on another base %d traced, %d said so, want %d\n%s", mode, w.traced(), said, want, w.out.String())
		}
	}
}

// LAWS 9: of a COPY that is done again, files that are as before keep their times,
// whatever the context's are now.
func TestCopyKeepsTimes(t *testing.T) {
	w := newWorld(t)
	for _, n := range []string{"src/same", "src/changed", "src/mode", "src/below"} {
		w.write(n, "1")
	}
	text := "FROM scratch\nCOPY src/below /app/\nCOPY src /app/\n"
	old, now := time.Now().Add(-48*time.Hour).Truncate(time.Second), time.Now().Add(-time.Hour).Truncate(time.Second)
	all := []string{"src/same", "src/changed", "src/mode", "src/below"}
	w.touch(old, all...)
	w.must(text)
	w.write("src/changed", "2")
	w.write("src/new", "3")
	if err := os.Chmod(filepath.Join(w.dir, "src/mode"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.touch(now, append(all, "src/new")...)
	res := w.must(text)
	tr, top := w.image(res)
	for name, want := range map[string]time.Time{"same": old, "changed": now, "mode": now, "new": now, "below": old} {
		if got := tr.Lookup("app/" + name).Mtime.Time(); !got.Equal(want) {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	if slices.Contains(top, "app/below") {
		t.Errorf("the layer repeats what is below it: %q", top)
	}
	w.write("src/new", "4")
	w.touch(now.Add(time.Minute), all...)
	res = w.must(text, func(o *Options) { o.NoCache = true })
	if tr, _ = w.image(res); tr.Lookup("app/same").Mtime.Time().Equal(old) {
		t.Error("--no-cache kept an earlier time")
	}
	res = w.must(strings.Replace(text, "src /app/", "src /app", 1), func(o *Options) { o.CacheTimes = true })
	if tr, _ = w.image(res); tr.Lookup("app/same").Mtime.Time().Equal(old) {
		t.Error("--cache-times kept an earlier time")
	}
}

// --cache-check does a COPY all the same, and fails where its trace led to something
// else.
func TestCacheCheckOfACopy(t *testing.T) {
	w := newWorld(t)
	w.write("one", "1")
	w.write("two", "2")
	text := "FROM scratch\nCOPY one /\nCOPY two /\n"
	check := func(o *Options) { o.CacheCheck = true }
	w.must(text)
	w.write("one", "changed")
	if w.must(text, check); w.traced() != 1 {
		t.Errorf("%d traced, want 1\n%s", w.traced(), w.out.String())
	}
	w.lie(t)
	w.write("one", "changed again")
	_, err := w.build(text, check)
	if _, ok := errors.AsType[*CheckError](err); !ok || !strings.Contains(err.Error(), "/two") {
		t.Errorf("got %v, want a CheckError about /two", err)
	}
}

// lie makes every list of results lead to the layer of the other list.
func (w *world) lie(t *testing.T) {
	t.Helper()
	b := w.builder()
	dirs, err := filepath.Glob(filepath.Join(w.store.Dir(), "records", kindTraces, "*", "*"))
	if err != nil || len(dirs) < 2 {
		t.Fatalf("%d lists of results, %v", len(dirs), err)
	}
	lists := map[string][]tracedResult{}
	for _, name := range dirs {
		key := filepath.Base(name)
		var list []tracedResult
		if !b.getJSON(kindTraces, key, &list) {
			t.Fatalf("no list %s", key)
		}
		lists[key] = list
	}
	var two, other string
	for key, list := range lists {
		cs, err := w.store.Layer(list[0].Step.DiffID)
		if err != nil {
			t.Fatal(err)
		}
		if cs[0].Path == "two" {
			two = key
		} else {
			other = key
		}
	}
	list := lists[two]
	lied := lists[other][0].Step
	list[0].Step = lied
	if err := b.putJSON(kindTraces, two, list, nil, nil); err != nil {
		t.Fatal(err)
	}
}
