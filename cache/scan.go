package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/tree"
)

// The kinds of objects that stay or go.
const (
	objRecord  = "record" // name: KIND/NAME
	objLayer   = "layer"
	objBlob    = "blob"
	objPack    = "pack"
	objContext = "context"
	objTree    = "tree"
	objMount   = "mount"
)

// objectKey names an object of the store.
type objectKey struct{ kind, name string }

// object is one thing that is kept or removed as a whole.
type object struct {
	fileInfo
	path string
	refs []objectKey // what must stay while it does
}

// maxManifest bounds what is read of a blob to follow an image.
const maxManifest = 8 << 20

// recordFiles yields the paths of the records of one kind.
func (s *Store) recordFiles(kind string) iter.Seq[string] {
	return func(yield func(string) bool) {
		top := s.path("records", kind)
		dirs, _ := os.ReadDir(top) // a kind without records has no directory
		for _, d := range dirs {
			names, _ := os.ReadDir(filepath.Join(top, d.Name()))
			for _, n := range names {
				if isHex(n.Name()) && !yield(filepath.Join(top, d.Name(), n.Name())) {
					return
				}
			}
		}
	}
}

// recordKinds lists the kinds of which there are records, layer indexes left
// out.
func (s *Store) recordKinds() ([]string, error) {
	dirs, err := os.ReadDir(s.path("records"))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, d := range dirs {
		if d.IsDir() && d.Name() != kindLayer {
			out = append(out, d.Name())
		}
	}
	return out, nil
}

func readLayer(name string) (tree.Changes, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return tree.Decode(data)
}

// scan lists every object. What known holds unchanged is not read again.
func (s *Store) scan(ctx context.Context, known map[objectKey]*object) (map[objectKey]*object, error) {
	out := map[objectKey]*object{}
	add := func(kind, name, path string, refs func(string) []objectKey) {
		fi, err := lstat(path)
		if err != nil {
			return // gone since it was listed
		}
		key := objectKey{kind, name}
		o := &object{fileInfo: fi, path: path}
		if old := known[key]; old != nil && old.ino == fi.ino && old.ctime == fi.ctime {
			o.refs = old.refs
		} else if refs != nil && ctx.Err() == nil {
			o.refs = refs(path)
		}
		out[key] = o
	}
	kinds, err := s.recordKinds()
	if err != nil {
		return nil, fmt.Errorf("list records: %w", err)
	}
	for _, kind := range kinds {
		for p := range s.recordFiles(kind) {
			add(objRecord, kind+"/"+filepath.Base(p), p, func(p string) []objectKey { return recordRefs(p, kind) })
		}
	}
	for p := range s.recordFiles(kindLayer) {
		add(objLayer, filepath.Base(p), p, layerRefs)
	}
	for _, d := range []struct {
		kind, dir string
		refs      func(string) []objectKey
		valid     func(string) bool
	}{
		{objBlob, "blobs/sha256", nil, isHex},
		{objPack, "packs", tarRefs, func(n string) bool { return pack.Valid(tree.PackID(n)) }},
		{objContext, "contexts", nil, func(string) bool { return true }},
		{objTree, "trees", nil, func(string) bool { return true }},
		{objMount, "mounts", nil, validMount},
	} {
		entries, err := os.ReadDir(s.path(d.dir))
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", d.dir, err)
		}
		for _, e := range entries {
			if d.valid(e.Name()) {
				add(d.kind, e.Name(), s.path(d.dir, e.Name()), d.refs)
			}
		}
	}
	return out, ctx.Err()
}

// recordRefs follows a record; one that does not verify leads nowhere.
func recordRefs(path, kind string) []objectKey {
	_, r, err := readRecord(path, kind)
	if err != nil {
		return nil
	}
	var out []objectKey
	for _, d := range r.Blobs {
		out = append(out, objectKey{objBlob, d.Hex()})
	}
	for _, d := range r.Layers {
		out = append(out, objectKey{objLayer, d.Hex()})
	}
	return out
}

func layerRefs(path string) []objectKey {
	cs, err := readLayer(path)
	if err != nil {
		return nil
	}
	var out []objectKey
	for _, id := range layerPacks(cs) {
		out = append(out, objectKey{objPack, string(id)})
	}
	return out
}

// tarRefs keeps the record that says whose tar a pack is.
func tarRefs(path string) []objectKey {
	return []objectKey{{objRecord, kindTar + "/" + keyName(filepath.Base(path))}}
}

// imageRefs follows everything that index.json names: manifests (of indexes as
// well), configs, layers and their indexes.
func (s *Store) imageRefs() ([]objectKey, error) {
	index, err := s.readImages()
	if err != nil {
		return nil, err
	}
	var out []objectKey
	for _, d := range index.Manifests {
		out = append(out, s.descRefs(d, 0)...)
	}
	return out, nil
}

func (s *Store) descRefs(d v1.Descriptor, depth int) []objectKey {
	out := []objectKey{{objBlob, d.Digest.Hex}}
	var m struct {
		Manifests []v1.Descriptor `json:"manifests"`
		Config    *v1.Descriptor  `json:"config"`
		Layers    []v1.Descriptor `json:"layers"`
	}
	const deepest = 4 // an index in an index is rare, a circle impossible
	if depth > deepest || s.readJSON(d.Digest, &m) != nil {
		return out
	}
	for _, c := range m.Manifests {
		out = append(out, s.descRefs(c, depth+1)...)
	}
	for _, l := range m.Layers {
		out = append(out, objectKey{objBlob, l.Digest.Hex})
	}
	if m.Config == nil {
		return out
	}
	out = append(out, objectKey{objBlob, m.Config.Digest.Hex})
	var cfg struct {
		RootFS struct {
			DiffIDs []tree.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if s.readJSON(m.Config.Digest, &cfg) == nil {
		for _, id := range cfg.RootFS.DiffIDs {
			out = append(out, objectKey{objLayer, id.Hex()})
		}
	}
	return out
}

// readJSON reads a small blob of the store without marking it as used.
func (s *Store) readJSON(h v1.Hash, v any) error {
	if err := checkDigest(tree.Digest(h.String())); err != nil {
		return err
	}
	f, err := os.Open(s.blobPath(tree.Digest(h.String())))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// diskSize adds up what a file or directory takes on the disk.
func diskSize(path string) int64 {
	var sum int64
	_ = filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrPermission) {
			return fs.SkipDir
		}
		if fi, err := lstat(p); err == nil {
			sum += fi.size
		}
		return nil // what is gone takes no space
	})
	return sum
}
