package cache

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbuild/fbuild/tree"
)

func TestVerify(t *testing.T) {
	tarData := []byte("the bytes of a tar")
	type parts struct {
		result
		tarID tree.PackID
		tar   tree.Digest
	}
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, s *Store, p parts)
		want  []string // kinds
	}{
		{"nothing", func(*testing.T, *Store, parts) {}, nil},
		{"blob", func(t *testing.T, s *Store, p parts) { damage(t, s.blobPath(p.blob)) }, []string{"blob", "record"}},
		{"record", func(t *testing.T, s *Store, p parts) { damage(t, s.recordPath("step", p.key)) }, []string{"record"}},
		{"record under another name", func(t *testing.T, s *Store, p parts) {
			name := s.recordPath("step", "other")
			if err := os.MkdirAll(name[:strings.LastIndex(name, "/")], 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(s.recordPath("step", p.key), name); err != nil {
				t.Fatal(err)
			}
		}, []string{"record"}},
		{"layer", func(t *testing.T, s *Store, p parts) { damage(t, s.recordPath(kindLayer, string(p.diffID))) }, []string{"layer", "record"}},
		{"contents of a pack", func(t *testing.T, s *Store, p parts) { damage(t, s.path("packs", string(p.node.Extents[0].Pack))) }, []string{"layer", "pack", "record"}},
		{"pack lost", func(t *testing.T, s *Store, p parts) {
			if err := os.Remove(s.path("packs", string(p.node.Extents[0].Pack))); err != nil {
				t.Fatal(err)
			}
		}, []string{"layer", "record"}},
		{"pack cut short", func(t *testing.T, s *Store, p parts) {
			if err := os.Truncate(s.path("packs", string(p.node.Extents[0].Pack)), 1); err != nil {
				t.Fatal(err)
			}
		}, []string{"layer", "pack", "record"}},
		{"tar", func(t *testing.T, s *Store, p parts) { damage(t, s.path("packs", string(p.tarID))) }, []string{"layer", "pack"}},
		{"blob of an image", func(t *testing.T, s *Store, _ parts) {
			img := putImage(t, s, "x:1", "image")
			damage(t, s.blobPath(tree.Digest(img.Digest.String())))
		}, []string{"blob", "image"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			p := parts{result: putResult(t, s, "k", 1000), tar: digestBytes(tarData)}
			w, err := s.CreateTarPack()
			if err != nil {
				t.Fatal(err)
			}
			n, err := storePack(w, tarData)
			if err != nil {
				t.Fatal(err)
			}
			n.Digest = "" // contents of a pulled layer need not have digests
			if p.tarID = w.ID(); s.PutTarLayer(p.tar, tree.Changes{{Path: "f", Node: n}}, w.ID()) != nil {
				t.Fatal("put tar layer")
			}
			tt.spoil(t, s, p)
			s = reopen(t, s)
			for _, o := range []VerifyOptions{{}, {Remove: true}} {
				var got []string
				for _, pr := range problems(t, s, o) {
					got = append(got, pr.Kind)
					if pr.Removed != o.Remove || pr.Err == nil {
						t.Errorf("problem: got %+v", pr)
					}
				}
				slices.Sort(got)
				if d := cmp.Diff(tt.want, got); d != "" {
					t.Errorf("problems (-want +got):\n%s", d)
				}
			}
			for _, pr := range problems(t, s, VerifyOptions{}) {
				t.Errorf("after removal: %+v", pr)
			}
		})
	}
}

// Verify leaves what somebody uses.
func TestVerifyInUse(t *testing.T) {
	s := open(t, t.TempDir())
	r := putResult(t, s, "k", 1000)
	damage(t, s.path("packs", string(r.node.Extents[0].Pack)))
	holder(t, s.Dir(), "pack", string(r.node.Extents[0].Pack))
	for _, p := range problems(t, s, VerifyOptions{Remove: true}) {
		if p.Removed != (p.Kind != "pack") {
			t.Errorf("problem: got %+v", p)
		}
		if p.Kind == "pack" && !errors.Is(p.Err, ErrDigest) {
			t.Errorf("pack: got %v, want ErrDigest", p.Err)
		}
	}
}
