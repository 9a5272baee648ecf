package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/fbuild/fbuild/tree"
)

func seeds(f *testing.F) {
	for _, c := range meaning {
		raw := tarOf(f, c.ents...)
		f.Add(raw)
		f.Add(gzipped(f, raw))
	}
	cs, p := sample()
	var b bytes.Buffer
	if err := WriteTar(context.Background(), &b, cs, p, Options{}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	n := nodeAt(tree.File, 0o644)
	n.Extents = []tree.Extent{{Len: 2 << 20}, {Pack: spoolPack, Len: 5}, {Len: 2 << 20}}
	n.Size = 4<<20 + 5
	b.Reset()
	if err := WriteTar(context.Background(), &b, tree.Changes{{Path: "s", Node: n}}, packs{spoolPack: []byte("12345")}, Options{}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
}

// resealed gives what looks like a header its checksum, so that the fuzzer gets
// past it.
func resealed(raw []byte) []byte {
	raw = bytes.Clone(raw)
	for i := 0; i+blockSize <= len(raw); i += blockSize {
		if string(raw[i+257:i+262]) == "ustar" {
			(*block)(raw[i : i+blockSize]).seal()
			raw[i+155] = ' '
		}
	}
	return raw
}

// Whatever comes in: no panic, a typed error, changes that stand in order and
// can be kept, extents inside the pack.
func FuzzRead(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, blob []byte) {
		blob = resealed(blob)
		var pack bytes.Buffer
		cs, info, err := Read(context.Background(), bytes.NewReader(blob), testPack, &pack, Limits{MaxSize: 1 << 20, MaxEntries: 1000})
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("untyped error: %v", err)
			}
			return
		}
		if info.DiffID != sum(pack.Bytes()) {
			t.Fatalf("digests: got %+v", info)
		}
		checkChanges(t, cs, int64(pack.Len()))
		if back, err := tree.Decode(tree.Encode(cs)); err != nil || tree.Format(back) != tree.Format(cs) {
			t.Fatalf("index: %v", err)
		}
		// Apply may refuse (a hard link to what is not there), but not panic.
		_, _ = tree.Empty().Apply(cs)
	})
}

func checkChanges(t *testing.T, cs tree.Changes, size int64) {
	t.Helper()
	for i, c := range cs {
		if tree.Clean(c.Path) != c.Path || i > 0 && tree.Compare(cs[i-1].Path, c.Path) >= 0 {
			t.Fatalf("path %q behind %q", c.Path, cs[max(i, 1)-1].Path)
		}
		if c.Node == nil {
			continue
		}
		var sum int64
		for _, x := range c.Node.Extents {
			if sum += x.Len; x.Len <= 0 || x.Pack != "" && (x.Off < 0 || x.Off+x.Len > size) {
				t.Fatalf("%q: extent %+v of %d", c.Path, x, size)
			}
		}
		if c.Node.Kind == tree.File && sum != c.Node.Size {
			t.Fatalf("%q: extents of %d bytes, want %d", c.Path, sum, c.Node.Size)
		}
	}
}

// Our reading of headers against archive/tar, through which docker and
// containerd see a layer: where both take a tar, they see the same entries and
// the same bytes; what archive/tar takes, so do we.
func FuzzAgainstArchiveTar(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		raw = resealed(raw)
		want := tar.NewReader(bytes.NewReader(raw))
		rest := raw
		a := &archive{pack: testPack, notes: &notes{}, next: func() ([]byte, error) {
			if len(rest) == 0 {
				return nil, io.EOF
			}
			b := rest[:min(len(rest), 700)]
			rest = rest[len(b):]
			return b, nil
		}}
		for {
			h, werr := nextOf(want)
			var body []byte
			if werr == nil && h.Size < 16<<20 {
				body, werr = io.ReadAll(want)
			}
			e, err := a.nextEntry()
			switch {
			case werr == nil && err != nil && h.Size >= 16<<20:
				return // archive/tar has not looked at the contents yet
			case werr == nil && err != nil:
				t.Fatalf("archive/tar reads %+v, we: %v", h, err)
			case errors.Is(werr, io.EOF) && err != io.EOF:
				t.Fatalf("archive/tar is at the end, we: %v", err)
			case werr != nil || err != nil:
				return
			}
			if e.name != h.Name || e.link != h.Linkname || e.typ != h.Typeflag || e.mode != h.Mode || int(e.uid) != h.Uid || int(e.gid) != h.Gid ||
				!e.headerOnly() && e.size != h.Size || e.major != h.Devmajor || e.minor != h.Devminor {
				t.Fatalf("entry: got %+v, want %+v", e, h)
			}
			if h.Size < 16<<20 && !e.headerOnly() {
				got := content(t, packs{testPack: raw}, &tree.Node{Kind: tree.File, Size: e.size, Extents: e.data})
				if got != string(body) {
					t.Fatalf("%q: contents: got %d bytes, want %d", e.name, len(got), len(body))
				}
			}
		}
	})
}

// nextOf passes over global headers, as their readers do.
func nextOf(r *tar.Reader) (*tar.Header, error) {
	for {
		h, err := r.Next()
		if err != nil || h.Typeflag != tar.TypeXGlobalHeader {
			return h, err
		}
	}
}

// What Seal takes, Read gives back, whatever the names and attributes.
func FuzzRoundTrip(f *testing.F) {
	f.Add("etc/passwd", "target", "user.x", "value", uint32(0o644), uint32(0), int64(0), "contents")
	f.Add(strings.Repeat("d/", 120)+"\xff", strings.Repeat("t", 101), "user.\n", "\x00=", uint32(0o7777), uint32(1<<31), int64(-1), "")
	f.Fuzz(func(t *testing.T, path, target, xname, xvalue string, mode, uid uint32, sec int64, body string) {
		p := packs{}
		n := fileNode(p, body)
		n.Mode, n.UID, n.Mtime = mode&0o7777, uid, clampRange(tree.Time{Sec: sec})
		n.Xattrs = []tree.Xattr{{Name: xname, Value: xvalue}}
		s := nodeAt(tree.Symlink, 0o777)
		s.Mtime, s.Target, s.Size = tree.Time{}, target, int64(len(target))
		cs := tree.Changes{{Path: path, Node: n}, {Path: path + "2", Node: n}, {Path: path + "3", Node: s}}
		cs.Sort()
		var blob bytes.Buffer
		if _, err := Seal(context.Background(), &blob, cs, p, Options{Compression: "uncompressed"}); err != nil {
			return
		}
		if overlayXattr(xname) || xname == capXattr || uid == 1<<32-1 {
			return // changed on purpose
		}
		got, _, err := Read(context.Background(), bytes.NewReader(blob.Bytes()), testPack, io.Discard, Limits{})
		if err != nil {
			t.Fatalf("Read what was sealed: %v", err)
		}
		if tree.Format(got) != tree.Format(cs) {
			t.Fatalf("got\n%swant\n%s", tree.Format(got), tree.Format(cs))
		}
	})
}
