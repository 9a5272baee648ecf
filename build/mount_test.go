package build

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fbuild/fbuild/dockerfile"
)

// LAWS 8: every option of a mount is in the key, what is bound and, as in BuildKit,
// what a cache starts from; what a secret or a cache holds is not.
func TestMountKey(t *testing.T) {
	base := runMount{Mount: dockerfile.Mount{Type: dockerfile.MountCache, Target: "/t", ID: "i", Sharing: "shared"}}
	key := func(change func(m *runMount)) Key {
		m := base
		change(&m)
		return (&mountSet{list: []*runMount{&m}}).key("run")
	}
	want := key(func(*runMount) {})
	if (*mountSet)(nil).key("run") != "run" || (&mountSet{}).key("run") != "run" {
		t.Error("no mounts: the key is another one")
	}
	seen := map[Key]string{want: "nothing"}
	for name, change := range map[string]func(m *runMount){
		"type":              func(m *runMount) { m.Type = dockerfile.MountTmpfs },
		"target":            func(m *runMount) { m.Target = "/u" },
		"id":                func(m *runMount) { m.ID = "j" },
		"sharing":           func(m *runMount) { m.Sharing = "locked" },
		"size":              func(m *runMount) { m.Size = 1 },
		"read-only":         func(m *runMount) { m.ReadOnly = true },
		"required":          func(m *runMount) { m.Required = true },
		"variable":          func(m *runMount) { m.Env = new("E") },
		"mode":              func(m *runMount) { m.Mode = new(uint32(0)) },
		"uid":               func(m *runMount) { m.UID = new(uint32(0)) },
		"gid":               func(m *runMount) { m.GID = new(uint32(0)) },
		"what it starts as": func(m *runMount) { m.sum = "tree x" },
		"what is bound":     func(m *runMount) { m.Type, m.sum = dockerfile.MountBind, "tree x" },
		"something else":    func(m *runMount) { m.Type, m.sum = dockerfile.MountBind, "tree y" },
	} {
		got := key(change)
		if other, ok := seen[got]; ok {
			t.Errorf("%s: got the key of %s", name, other)
		}
		seen[got] = name
	}
}

// LAWS 23: the bytes that are mounted decide about the key, whatever was there when
// it was looked up.
func TestMountKeyIsOfMountedBytes(t *testing.T) {
	w := newWorld(t)
	w.write("f", "old")
	b := w.builder()
	b.opts.ContextDir = w.dir
	r := &stageRun{b: b}
	run := &dockerfile.Run{Mounts: []dockerfile.Mount{{Type: dockerfile.MountBind, Target: "/f", Source: "f"}}}
	look := func() *mountSet {
		set, err := r.lookMounts(t.Context(), run, b.opts.Progress.Step("x"))
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	set := look()
	before := set.key("run")
	// Without its contents the tree is only a promise; now they are another's.
	m := set.list[0]
	m.sink.abort()
	m.sink = newSink(b)
	stripped := m.tree.Edit()
	n := m.tree.Lookup("f").Attrs()
	n.Extents = nil
	if err := stripped.Put("f", n); err != nil {
		t.Fatal(err)
	}
	m.tree = stripped.Tree()
	w.write("f", "new")
	if err := set.fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := set.key("run")
	if before == after {
		t.Error("other bytes were mounted under the key of the old ones")
	}
	set.close()
	packs, err := filepath.Glob(filepath.Join(w.store.Packs().Dir(), "*"))
	if err != nil || len(packs) != 0 {
		t.Errorf("packs left by a mount: %q, %v", packs, err)
	}
	again := look()
	defer again.close()
	if again.key("run") != after {
		t.Error("the same bytes: got another key")
	}
}

func TestSecretErrors(t *testing.T) {
	dir := t.TempDir()
	big, nul := filepath.Join(dir, "big"), filepath.Join(dir, "nul")
	for name, text := range map[string]string{big: strings.Repeat("x", maxSecret+1), nul: "a\x00b"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b := &builder{opts: Options{Secrets: map[string]Secret{"big": {File: big}, "gone": {File: dir + "/gone"}, "nul": {File: nul}}}}
	for _, tt := range []struct {
		m    dockerfile.Mount
		want string
	}{
		{dockerfile.Mount{ID: "big"}, "more than 512000 bytes"},
		{dockerfile.Mount{ID: "gone"}, "no such file"},
		{dockerfile.Mount{ID: "none", Required: true}, "is required, and was not given"},
		{dockerfile.Mount{ID: "nul", Env: new("X")}, "holds a NUL byte"},
	} {
		_, _, err := b.secret(&tt.m)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.m.ID, err, tt.want)
		}
	}
	if data, ok, err := b.secret(&dockerfile.Mount{ID: "nul"}); err != nil || !ok || string(data) != "a\x00b" {
		t.Errorf("a NUL byte in a file: got %q, %v, %v", data, ok, err)
	}
	if _, ok, err := b.secret(&dockerfile.Mount{ID: "none"}); err != nil || ok {
		t.Errorf("one that is not there: got %v, %v", ok, err)
	}
}

// Without mounts a directory is in one place, and has no size.
func TestMountsInAChroot(t *testing.T) {
	w := newWorld(t)
	tmpfs := &runMount{Mount: dockerfile.Mount{Type: dockerfile.MountTmpfs, Target: "/t", Size: 1}}
	set := &mountSet{b: w.builder(), step: w.builder().opts.Progress.Step("x"), list: []*runMount{tmpfs}}
	if err := set.checkChroot([]string{"a", "b"}); err != nil {
		t.Errorf("two caches: got %v", err)
	}
	if !strings.Contains(w.out.String(), "not limited") {
		t.Errorf("a tmpfs with a size: got %q, want a warning", w.out.String())
	}
	if _, ok := errors.AsType[*MountError](set.checkChroot([]string{"a", "a", "b"})); !ok {
		t.Error("a cache at two targets: got no *MountError")
	}
}
