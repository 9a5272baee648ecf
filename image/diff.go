package image

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/tree"
)

// unpacked stands for contents that are compared by digest and stored nowhere.
const unpacked = tree.PackID("tar-00000000000000000000000000000000")

// Tree is the file system of an image. Layers that the store knows are not read.
func Tree(ctx context.Context, s *cache.Store, b *oci.Built) (tree.Tree, error) {
	t := tree.Empty()
	for _, l := range b.Layers {
		cs, err := changes(ctx, s, l)
		if err == nil {
			t, err = t.Apply(cs)
		}
		if err != nil {
			return t, fmt.Errorf("read layer %s: %w", l.Desc.Digest, err)
		}
	}
	return t, nil
}

// changes are what a layer holds, every file with its digest.
func changes(ctx context.Context, s *cache.Store, l oci.Layer) (tree.Changes, error) {
	if cs, err := s.Layer(l.DiffID); err == nil && digested(cs) {
		return cs, nil
	}
	r, err := l.Open(ctx)
	if err != nil {
		return nil, err
	}
	cs, info, err := layer.Read(ctx, r, unpacked, io.Discard, layer.Limits{})
	if err == nil {
		_, err = io.Copy(io.Discard, r) // to the end, where its digest is verified
	}
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	if info.DiffID != l.DiffID {
		return nil, fmt.Errorf("%w: its contents are %s, the image's config says %s", oci.ErrDigest, info.DiffID, l.DiffID)
	}
	return cs, nil
}

func digested(cs tree.Changes) bool {
	for i := range cs {
		if n := cs[i].Node; n != nil && n.Kind == tree.File && n.Size > 0 && n.Digest == "" {
			return false
		}
	}
	return true
}

// Difference is a path that two images have otherwise.
type Difference struct {
	Path string     `json:"path"`
	How  string     `json:"how"` // added, removed, changed
	What []string   `json:"what,omitempty"`
	Old  *tree.Node `json:"-"`
	New  *tree.Node `json:"-"`
}

// Diff lists what differs between two file systems, in the order of paths. Times
// count where times is set.
func Diff(a, b tree.Tree, times bool) []Difference {
	var out []Difference
	diff("", a.Root(), b.Root(), times, &out)
	return out
}

func diff(p string, a, b *tree.Node, times bool, out *[]Difference) {
	switch {
	case a == b:
		return
	case a == nil:
		*out = append(*out, Difference{Path: p, How: "added", New: b})
	case b == nil:
		*out = append(*out, Difference{Path: p, How: "removed", Old: a})
	default:
		if what := differences(a, b, times); len(what) > 0 {
			*out = append(*out, Difference{Path: p, How: "changed", What: what, Old: a, New: b})
		}
	}
	an, bn := names(a), names(b)
	for len(an) > 0 || len(bn) > 0 {
		switch {
		case len(bn) == 0 || len(an) > 0 && an[0] < bn[0]:
			diff(tree.Join(p, an[0]), a.Child(an[0]), nil, times, out)
			an = an[1:]
		case len(an) == 0 || bn[0] < an[0]:
			diff(tree.Join(p, bn[0]), nil, b.Child(bn[0]), times, out)
			bn = bn[1:]
		default:
			diff(tree.Join(p, an[0]), a.Child(an[0]), b.Child(bn[0]), times, out)
			an, bn = an[1:], bn[1:]
		}
	}
}

func names(n *tree.Node) []string {
	if n == nil || n.Kind != tree.Dir {
		return nil
	}
	return n.Names()
}

// differences says in words what of two nodes is not the same.
func differences(a, b *tree.Node, times bool) []string {
	var out []string
	note := func(differ bool, format string, args ...any) {
		if differ {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	note(a.Kind != b.Kind, "type %s, was %s", b.Kind, a.Kind)
	if a.Kind != b.Kind {
		return out
	}
	note(a.Mode != b.Mode, "mode %04o, was %04o", b.Mode, a.Mode)
	note(a.UID != b.UID || a.GID != b.GID, "owner %d:%d, was %d:%d", b.UID, b.GID, a.UID, a.GID)
	note(a.Target != b.Target, "target %q, was %q", b.Target, a.Target)
	note(a.Major != b.Major || a.Minor != b.Minor, "device %d,%d, was %d,%d", b.Major, b.Minor, a.Major, a.Minor)
	if a.Kind == tree.File {
		switch {
		case a.Size != b.Size:
			note(true, "%d bytes, was %d", b.Size, a.Size)
		case a.Size > 0 && a.Digest != b.Digest:
			note(true, "other contents, %d bytes", b.Size)
		}
		note(a.Nlink() != b.Nlink(), "%d names, was %d", b.Nlink(), a.Nlink())
	}
	for _, x := range b.Xattrs {
		old, ok := a.Xattr(x.Name)
		note(!ok, "attribute %s added", x.Name)
		note(ok && old != x.Value, "attribute %s changed", x.Name)
	}
	for _, x := range a.Xattrs {
		_, ok := b.Xattr(x.Name)
		note(!ok, "attribute %s removed", x.Name)
	}
	note(times && a.Mtime != b.Mtime, "time %s, was %s", b.Mtime.Time().Format("2006-01-02T15:04:05Z"), a.Mtime.Time().Format("2006-01-02T15:04:05Z"))
	return out
}

// Anywhere is an image of the store, of a layout or archive (oci-layout://PATH), or
// else of a registry.
func Anywhere(ctx context.Context, s *cache.Store, r *oci.Remote, name string, p oci.Platform) (*oci.Built, error) {
	l, isLayout, err := oci.ParseLayoutRef(name)
	if err != nil {
		return nil, err
	}
	if !isLayout {
		img, err := Find(ctx, s, name)
		if err == nil && img.Index != nil {
			found, err := oci.OpenLayout(ctx, s.Dir(), img.ID(), p)
			if err != nil {
				return nil, err
			}
			b := found.Built()
			return &b, nil
		}
		if err == nil {
			return &img.Built, nil
		}
		if !errors.Is(err, ErrNoImage) {
			return nil, err
		}
	}
	var found *oci.Image
	if isLayout {
		found, err = l.Open(ctx, p)
	} else {
		found, err = r.Resolve(ctx, name, p)
	}
	if err != nil {
		return nil, err
	}
	b := found.Built()
	return &b, nil
}
