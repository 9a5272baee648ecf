package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/tree"
)

// VerifyOptions say what to do about what Verify finds.
type VerifyOptions struct {
	Remove bool // remove what is wrong, and records and layer indexes that need it
}

// Problem is one thing in the store that is not what its name says.
type Problem struct {
	Kind    string // record, layer, blob, pack, tree or image
	Name    string
	Err     error
	Removed bool
}

// Verify reads the whole store and reports what is wrong: blobs by digest, packs
// that are the tar of a layer by its diffID, other packs by the digests of their
// contents, records and layer indexes by checksum, images by what they need. The
// error is about the verification itself.
func (s *Store) Verify(ctx context.Context, o VerifyOptions, report func(Problem)) error {
	objects, err := s.scan(ctx, nil)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	v := verification{s: s, o: o, report: report, objects: objects, bad: map[objectKey]error{}, tars: map[tree.PackID]bool{}}
	v.set = pack.NewSet(s.packs.Dir())
	for _, pass := range []struct {
		kind  string
		check func(context.Context, objectKey, *object) error
	}{
		{objPack, v.tarPack},
		{objLayer, v.layerContents},
		{objBlob, v.blob},
		{objLayer, v.layer},
		{objRecord, v.record},
		{objTree, v.tree},
	} {
		if err := v.pass(ctx, pass.kind, pass.check); err != nil {
			return errors.Join(fmt.Errorf("verify: %w", err), v.set.Close())
		}
	}
	if err := v.set.Close(); err != nil { // the leases would keep bad packs from going
		return fmt.Errorf("verify: %w", err)
	}
	for key, err := range v.bad {
		report(Problem{Kind: key.kind, Name: key.name, Err: err, Removed: o.Remove && v.remove(key)})
	}
	v.images()
	return nil
}

// verification is one run of Verify.
type verification struct {
	s       *Store
	o       VerifyOptions
	report  func(Problem)
	set     *pack.Set
	objects map[objectKey]*object
	bad     map[objectKey]error
	tars    map[tree.PackID]bool // packs proved by a diffID
}

// pass checks every object of a kind that is not known to be bad. What vanishes
// meanwhile was pruned and is no problem.
func (v *verification) pass(ctx context.Context, kind string, check func(context.Context, objectKey, *object) error) error {
	for key, obj := range v.objects {
		if key.kind != kind || v.bad[key] != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		err := check(ctx, key, obj)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			continue
		}
		if _, gone := os.Lstat(obj.path); !errors.Is(gone, fs.ErrNotExist) {
			v.bad[key] = err
		}
	}
	return nil
}

func (v *verification) remove(key objectKey) bool {
	f, err := lockObject(v.objects[key].path)
	if err != nil || f == nil {
		return false // in use: it stays until the next time
	}
	defer func() { _ = f.Close() }() // only held
	if key.kind == objTree {
		return os.Rename(v.objects[key].path, filepath.Join(v.s.lease.dir, "trash-"+key.name)) == nil
	}
	return os.Remove(v.objects[key].path) == nil
}

// tarPack compares a pack with the diffID of the layer whose tar it is.
func (v *verification) tarPack(ctx context.Context, key objectKey, obj *object) error {
	name, r, readErr := readRecord(v.s.recordPath(kindTar, key.name), kindTar)
	if readErr != nil || name != key.name {
		return nil //nolint:nilerr // not known to be a tar; the pass over records tells of a bad one
	}
	if err := checkFile(ctx, obj.path, tree.Digest(r.Value)); err != nil {
		return err
	}
	v.tars[tree.PackID(key.name)] = true
	return nil
}

// layerContents reads the contents of a layer index that lie in packs which no
// diffID proves. It is the packs that it finds bad.
func (v *verification) layerContents(ctx context.Context, layer objectKey, obj *object) error {
	cs, err := readLayer(obj.path)
	if err != nil {
		return err
	}
	seen := map[*tree.Node]bool{}
	for i := range cs {
		n := cs[i].Node
		if n == nil || n.Kind != tree.File || seen[n] || v.proved(n) {
			continue
		}
		seen[n] = true
		err := v.content(ctx, n)
		if errors.Is(err, pack.ErrPartial) && v.objects[objectKey{objRecord, KindLazy + "/" + layer.name}] != nil {
			continue // of a base whose contents come when they are read
		}
		if err != nil {
			for _, x := range n.Extents {
				key := objectKey{objPack, string(x.Pack)}
				if v.objects[key] != nil && !v.tars[x.Pack] && v.bad[key] == nil {
					v.bad[key] = fmt.Errorf("contents of %q: %w", cs[i].Path, err)
				}
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// proved reports whether every byte of n lies in packs that were compared with
// a diffID.
func (v *verification) proved(n *tree.Node) bool {
	for _, x := range n.Extents {
		if x.Pack != "" && !v.tars[x.Pack] {
			return false
		}
	}
	return true
}

// content compares a file with its digest; without one it only reads it.
func (v *verification) content(ctx context.Context, n *tree.Node) error {
	r, err := v.set.Open(n)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // only read
	got, err := digestOf(ctx, r)
	if err == nil && n.Digest != "" && got != n.Digest {
		err = fmt.Errorf("%w: got %s, want %s", ErrDigest, got, n.Digest)
	}
	return err
}

// layer fails a layer index that does not verify or whose packs are missing or
// bad.
func (v *verification) layer(_ context.Context, _ objectKey, obj *object) error {
	if _, err := readLayer(obj.path); err != nil {
		return err
	}
	return v.needs(obj.refs)
}

func (v *verification) needs(refs []objectKey) error {
	for _, ref := range refs {
		if err := v.bad[ref]; err != nil {
			return fmt.Errorf("needs %s %s, which is bad", ref.kind, ref.name)
		}
		if ref.kind == objPack && v.objects[ref] == nil {
			return fmt.Errorf("needs pack %s: %w", ref.name, pack.ErrGone)
		}
	}
	return nil
}

func (v *verification) blob(ctx context.Context, key objectKey, obj *object) error {
	return checkFile(ctx, obj.path, tree.Digest("sha256:"+key.name))
}

// record fails a record that does not verify, stands under a wrong name, or
// needs something bad.
func (v *verification) record(_ context.Context, key objectKey, obj *object) error {
	kind, name := filepath.Split(key.name)
	k, _, err := readRecord(obj.path, filepath.Clean(kind))
	if err != nil {
		return err
	}
	if keyName(k) != name {
		return fmt.Errorf("%w: its key is %q", errCorrupt, k)
	}
	return v.needs(obj.refs)
}

// images reports images that lack a blob; removing takes their names away.
func (v *verification) images() {
	index, err := v.s.readImages()
	if err != nil {
		p := Problem{Kind: "image", Name: "index.json", Err: err}
		if v.o.Remove && errors.Is(err, ErrDamaged) {
			p.Removed = os.Remove(v.s.path("index.json")) == nil
		}
		v.report(p)
		return
	}
	for _, d := range index.Manifests {
		for _, ref := range v.s.descRefs(d, 0) {
			if ref.kind != objBlob || v.objects[ref] != nil && v.bad[ref] == nil {
				continue
			}
			name := imageName(d)
			if name == "" {
				name = d.Digest.String()
			}
			p := Problem{Kind: "image", Name: name, Err: fmt.Errorf("blob sha256:%s is missing or bad", ref.name)}
			if v.o.Remove && name != d.Digest.String() {
				p.Removed = v.s.Untag(name) == nil
			}
			v.report(p)
			break
		}
	}
}

func checkFile(ctx context.Context, path string, want tree.Digest) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	got, err := digestOf(ctx, f)
	if err == nil && got != want {
		err = fmt.Errorf("%w: got %s, want %s", ErrDigest, got, want)
	}
	return err
}

func digestOf(ctx context.Context, r io.Reader) (tree.Digest, error) {
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for {
		n, err := r.Read(buf)
		h.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return tree.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))), nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return "", err
		}
	}
}
