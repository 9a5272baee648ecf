package build

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

// A shared cache (--cache-from, --cache-to) is one manifest and blobs by digest, in a
// registry, an OCI layout or a bucket. The manifest is an OCI image manifest whose
// config is a sharedDoc and whose layers are all blobs that the entries need, so that
// a registry keeps them; with image-manifest=false it is an index with the same in one
// list. The doc has a record of the store in each entry: what a key, an identity or a
// layer leads to. Layers of steps are ordinary layers; larger records and layer
// indexes are zstd streams of their own.
const (
	sharedVersion = 1

	typeSharedDoc    types.MediaType = "application/vnd.fbuild.cache.v1+json"
	typeSharedRecord types.MediaType = "application/vnd.fbuild.cache.record.v1+zstd"
	typeSharedIndex  types.MediaType = "application/vnd.fbuild.cache.index.v1+zstd"
	typeSharedMount  types.MediaType = "application/vnd.fbuild.cache.mount.v1.tar+zstd"
)

// What is believed of a cache that anybody may have written.
const (
	maxSharedDoc     = 16 << 20  // bytes of a doc
	maxSharedEntries = 20000     // of a doc
	maxSharedBlob    = 64 << 20  // bytes of a record or index as it is sent
	maxSharedValue   = 256 << 20 // and unpacked
	inlineValue      = 4 << 10   // a larger record is a blob
)

// The kinds of entries beside the kinds of records.
const (
	kindIndex = "index" // a layer's index without places of contents, under its diffID
	kindCache = "cache" // a cache mount's files, under its id
)

// entryName names an entry.
type entryName struct{ kind, key string }

// sharedEntry is one record of a shared cache.
type sharedEntry struct {
	Kind string `json:"kind"`
	Key  string `json:"key"`
	// At is when somebody stored or used it, for those who make room.
	At time.Time `json:"at"`
	// Value is the record where that is JSON and short.
	Value json.RawMessage `json:"value,omitempty"`
	// Blob has the record, or what the entry is about, where Value does not.
	Blob *v1.Descriptor `json:"blob,omitempty"`
	// Layer is the layer of a step. It is only there where the manifest lists it.
	Layer *v1.Descriptor `json:"layer,omitempty"`
	Sig   []byte         `json:"sig,omitempty"`
}

func (e *sharedEntry) name() entryName { return entryName{e.Kind, e.Key} }

// signed is what a signature is made of: all that a result follows from. At is for
// housekeeping, and changed by those who have no key.
func (e *sharedEntry) signed() []byte {
	k := newKey("shared entry").str(e.Kind).str(e.Key).str(string(e.Value))
	for _, d := range []*v1.Descriptor{e.Blob, e.Layer} {
		if d == nil {
			k.num(0)
			continue
		}
		k.num(1).str(d.Digest.String()).num(uint64(d.Size)).str(string(d.MediaType))
	}
	return []byte(k.sum())
}

// same reports whether two entries say the same.
func (e *sharedEntry) same(o *sharedEntry) bool {
	return bytes.Equal(e.signed(), o.signed())
}

func (e *sharedEntry) check() error {
	known := []string{kindStep, kindAlias, kindIndex, kindCache}
	switch {
	case !slices.Contains(known, e.Kind) && !slices.Contains(travelling, e.Kind):
		return fmt.Errorf("entry of kind %.20q", e.Kind)
	case e.Key == "" || len(e.Key) > 200:
		return fmt.Errorf("entry with a key of %d bytes", len(e.Key))
	}
	for _, d := range []*v1.Descriptor{e.Blob, e.Layer} {
		if d != nil && (d.Digest.Algorithm != "sha256" || len(d.Digest.Hex) != 64 || d.Size <= 0) {
			return fmt.Errorf("entry %s %s: a blob of %d bytes without a digest", e.Kind, e.Key, d.Size)
		}
	}
	limit := int64(maxSharedBlob)
	if e.Kind == kindCache {
		limit = maxSharedMount
	}
	if e.Blob != nil && e.Blob.Size > limit {
		return fmt.Errorf("entry %s %s: a blob of %d bytes, at most %d are read", e.Kind, e.Key, e.Blob.Size, limit)
	}
	return nil
}

// sharedDoc is the list of a cache's entries.
type sharedDoc struct {
	Version int           `json:"version"`
	Entries sharedEntries `json:"entries"`
}

// sharedEntries are read one by one, so that a list of millions of empty ones takes no
// memory.
type sharedEntries []sharedEntry

var errManyEntries = fmt.Errorf("it has too many entries, at most %d are read", maxSharedEntries)

// UnmarshalJSON ends with errManyEntries behind the last entry that is read.
func (l *sharedEntries) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	t, err := d.Token()
	if err != nil || t == nil { // null
		return err
	}
	if t != json.Delim('[') {
		return errors.New("entries are a list")
	}
	for d.More() {
		if len(*l) == maxSharedEntries {
			return errManyEntries
		}
		var e sharedEntry
		if err := d.Decode(&e); err != nil {
			return err
		}
		*l = append(*l, e)
	}
	return nil
}

// encodeDoc writes a doc, entries in the order of their names. One that decodeDoc would
// not read is an error.
func encodeDoc(entries []sharedEntry) ([]byte, error) {
	slices.SortFunc(entries, func(a, b sharedEntry) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Key, b.Key))
	})
	data, err := json.Marshal(sharedDoc{sharedVersion, entries})
	switch {
	case err != nil:
	case len(entries) > maxSharedEntries:
		err = fmt.Errorf("%d entries, and at most %d are read", len(entries), maxSharedEntries)
	case len(data) > maxSharedDoc:
		err = fmt.Errorf("a list of %d bytes, and at most %d are read", len(data), maxSharedDoc)
	}
	if err != nil {
		return nil, fmt.Errorf("encode cache: %w", err)
	}
	return data, nil
}

// decodeDoc reads what anybody may have written. Entries that make no sense are left
// out and counted.
func decodeDoc(data []byte) (doc map[entryName]*sharedEntry, bad int, err error) {
	if len(data) > maxSharedDoc {
		return nil, 0, fmt.Errorf("its list has %d bytes, at most %d are read", len(data), maxSharedDoc)
	}
	var d sharedDoc
	switch err := json.Unmarshal(data, &d); {
	case errors.Is(err, errManyEntries):
		return nil, 0, errManyEntries
	case err != nil:
		return nil, 0, errors.New("its list is no list of fbuild's")
	case d.Version != sharedVersion:
		return nil, 0, fmt.Errorf("it is of version %d, and this fbuild reads %d", d.Version, sharedVersion)
	}
	doc = make(map[entryName]*sharedEntry, len(d.Entries))
	for i := range d.Entries {
		e := &d.Entries[i]
		if e.check() != nil || doc[e.name()] != nil {
			bad++
			continue
		}
		doc[e.name()] = e
	}
	return doc, bad, nil
}

// manifestDoc is what a manifest of a cache may be: an image's or an index.
type manifestDoc struct {
	MediaType   types.MediaType   `json:"mediaType"`
	Config      *v1.Descriptor    `json:"config"`
	Layers      []v1.Descriptor   `json:"layers"`
	Manifests   []v1.Descriptor   `json:"manifests"`
	Annotations map[string]string `json:"annotations"`
}

// manifestForm is how a manifest is written.
type manifestForm struct {
	image  bool // an image manifest, not an index
	docker bool // docker's media types, of an index
}

// encodeManifest writes the manifest of a cache.
func encodeManifest(doc v1.Descriptor, blobs []v1.Descriptor, f manifestForm) (raw []byte, mt types.MediaType, err error) {
	var m any
	if f.image {
		mt = types.OCIManifestSchema1
		m = v1.Manifest{SchemaVersion: 2, MediaType: mt, Config: doc, Layers: blobs}
	} else {
		mt = types.OCIImageIndex
		if f.docker {
			mt = types.DockerManifestList
		}
		m = v1.IndexManifest{SchemaVersion: 2, MediaType: mt, Manifests: append(slices.Clone(blobs), doc)}
	}
	raw, err = json.Marshal(m)
	if err == nil && len(raw) > maxSharedManifest {
		err = fmt.Errorf("%d blobs do not fit into one manifest", len(blobs))
	}
	if err != nil {
		return nil, "", fmt.Errorf("encode cache manifest: %w", err)
	}
	return raw, mt, nil
}

// maxSharedManifest is what every registry takes.
const maxSharedManifest = 4 << 20

// doc finds the descriptor of the doc and those of the blobs.
func (m *manifestDoc) doc() (doc *v1.Descriptor, blobs []v1.Descriptor) {
	if m.Config != nil && m.Config.MediaType == typeSharedDoc {
		return m.Config, m.Layers
	}
	for i := range m.Manifests {
		if m.Manifests[i].MediaType == typeSharedDoc {
			return &m.Manifests[i], m.Manifests
		}
	}
	return nil, nil
}

// packValue compresses a record or index. The same bytes give the same.
func packValue(data []byte) ([]byte, error) {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	out := w.EncodeAll(data, nil)
	return out, w.Close()
}

// unpackAtMost reads what anybody may have written.
func unpackAtMost(r io.Reader, limit int64) ([]byte, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(limit)), zstd.WithDecoderMaxWindow(64<<20))
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	defer z.Close()
	data, err := io.ReadAll(io.LimitReader(z, limit+1))
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("unpack: more than %d bytes", limit)
	}
	return data, nil
}
