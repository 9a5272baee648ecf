package layer

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	godigest "github.com/opencontainers/go-digest"
	"github.com/vbatts/tar-split/tar/asm"
	"github.com/vbatts/tar-split/tar/storage"

	"github.com/fbuild/fbuild/tree"
)

// seekableSample has an entry of every kind and files of all sizes.
func seekableSample() (tree.Changes, packs) {
	cs, p := sample()
	for i := range cs {
		if n := cs[i].Node; n != nil {
			n.Mtime.Nsec = 0
		}
	}
	more, q := realistic(9)
	for i := range more {
		for j := range more[i].Node.Extents {
			if x := &more[i].Node.Extents[j]; x.Pack != "" && x.Off >= 0 {
				x.Pack = "spool-11111111111111111111111111111111"
			}
		}
		more[i].Path = "r/" + more[i].Path
	}
	p["spool-11111111111111111111111111111111"] = q[spoolPack]
	cs = append(cs, more...)
	cs.Sort()
	return cs, p
}

// The stargz project's own reader finds every file, and its verifier is content
// with every chunk.
func TestStargzVerifies(t *testing.T) {
	cs, p := seekableSample()
	blob, s := seal(t, cs, p, Options{Compression: "estargz"})
	r, err := estargz.Open(io.NewSectionReader(bytes.NewReader(blob), 0, int64(len(blob))))
	if err != nil {
		t.Fatal(err)
	}
	v, err := r.VerifyTOC(godigest.Digest(s.Annotations[estargz.TOCJSONDigestAnnotation]))
	if err != nil {
		t.Fatalf("table of contents: %v", err)
	}
	for _, c := range cs {
		if c.Node == nil {
			continue
		}
		e, ok := r.Lookup(c.Path)
		if !ok {
			t.Errorf("%q is not in the table of contents", c.Path)
			continue
		}
		if c.Node.Kind != tree.File || c.Node.Size == 0 {
			continue
		}
		want := content(t, p, c.Node)
		f, err := r.OpenFile(c.Path)
		if err != nil {
			t.Fatalf("%q: %v", c.Path, err)
		}
		got := make([]byte, c.Node.Size)
		if _, err := f.ReadAt(got, 0); err != nil && err != io.EOF || string(got) != want {
			t.Errorf("%q: got %d other bytes, %v", c.Path, len(got), err)
		}
		for off := int64(0); off < e.Size; {
			ce, ok := r.ChunkEntryForOffset(e.Name, off)
			if !ok {
				t.Fatalf("%q: no chunk at %d", c.Path, off)
			}
			check, err := v.Verifier(ce)
			if err != nil {
				t.Fatalf("%q at %d: %v", c.Path, off, err)
			}
			if _, err := io.WriteString(check, want[off:off+ce.ChunkSize]); err != nil || !check.Verified() {
				t.Errorf("%q at %d: chunk does not verify: %v", c.Path, off, err)
			}
			off += ce.ChunkSize
		}
	}
}

// A seekable layer is an ordinary one, too: it means the same, on any number of
// cores, with frames of gzip layers or without.
func TestSeekableIsALayer(t *testing.T) {
	cs, p := seekableSample()
	gzipBlob, gzipSealed := seal(t, cs, p, Options{})
	for _, codec := range []string{"estargz", "zstd:chunked"} {
		t.Run(codec, func(t *testing.T) {
			blob, s := seal(t, cs, slowContents{p}, Options{Compression: codec})
			full := newShelf()
			full.add(gzipBlob, gzipSealed)
			again, s2 := seal(t, s.Changes, p, Options{Compression: codec, Frames: full})
			if !bytes.Equal(again, blob) {
				t.Errorf("with frames: got %s, want %s", s2.Digest, s.Digest)
			}
			if codec == "estargz" && s2.Stats.Reused == 0 {
				t.Error("no frame of the gzip layer was used")
			}
			read, info, pack := mustRead(t, blob)
			if info.DiffID != s.DiffID || info.TarSize != s.TarSize {
				t.Errorf("read %+v, sealed %+v", info, s)
			}
			p[testPack] = pack
			var rest tree.Changes
			for _, c := range read {
				if c.Path != "stargz.index.json" {
					rest = append(rest, c)
				}
			}
			if diff := cmp.Diff(tree.Format(cs), tree.Format(rest)); diff != "" {
				t.Errorf("changes (-sealed +read):\n%s", diff)
			}
			checkDigests(t, "read", p, read)
		})
	}
}

// The table of a zstd:chunked layer says where each file lies, the footer where
// the table does, and tar-split makes the tar again out of both.
func TestChunkedTable(t *testing.T) {
	cs, p := seekableSample()
	blob, s := seal(t, cs, p, Options{Compression: "zstd:chunked"})
	z, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	footer := blob[len(blob)-64:]
	field := func(i int) int64 { return int64(binary.LittleEndian.Uint64(footer[8*i:])) }
	unpack := func(off, n, size int64) []byte {
		b, err := z.DecodeAll(blob[off:off+n], nil)
		if err != nil || int64(len(b)) != size {
			t.Fatalf("unpack %d bytes at %d: got %d, %v, want %d", n, off, len(b), err, size)
		}
		return b
	}
	if got := string(footer[56:]); got != "GNUlInUx" {
		t.Fatalf("footer: got %q", got)
	}
	var table struct {
		Version int
		Entries []tocEntry
	}
	packed := blob[field(0) : field(0)+field(1)]
	if got, want := s.Annotations[chunkedChecksum], string(sum(packed)); got != want {
		t.Errorf("checksum: got %s, want %s", got, want)
	}
	if err := json.Unmarshal(unpack(field(0), field(1), field(2)), &table); err != nil {
		t.Fatal(err)
	}
	files := storage.NewBufferFileGetPutter()
	seen := 0
	for i, e := range table.Entries {
		if e.Type != "reg" || e.Size == 0 {
			continue
		}
		var got []byte
		end := e.EndOffset
		if e.ChunkSize == 0 {
			got = unpack(e.Offset, end-e.Offset, e.Size)
		}
		for j := i; e.ChunkSize > 0 && j < len(table.Entries) && (j == i || table.Entries[j].Type == "chunk"); j++ {
			c, next := table.Entries[j], end
			if j+1 < len(table.Entries) && table.Entries[j+1].Type == "chunk" {
				next = table.Entries[j+1].Offset
			}
			part := unpack(c.Offset, next-c.Offset, c.ChunkSize)
			if sum(part) != c.ChunkDigest || int64(len(got)) != c.ChunkOffset {
				t.Errorf("%q: chunk at %d: got %s, want %s", e.Name, c.ChunkOffset, sum(part), c.ChunkDigest)
			}
			got = append(got, part...)
		}
		n := find(t, cs, e.Name).Node
		if string(got) != content(t, p, n) || sum(got) != e.Digest {
			t.Errorf("%q: got other bytes", e.Name)
		}
		if _, _, err := files.Put(e.Name, bytes.NewReader(got)); err != nil {
			t.Fatal(err)
		}
		seen++
	}
	if seen < 100 {
		t.Errorf("files: got %d, want all of them", seen)
	}
	split := unpack(field(4), field(5), field(6))
	tar := asm.NewOutputTarStream(files, storage.NewJSONUnpacker(bytes.NewReader(split)))
	defer func() { _ = tar.Close() }()
	again, err := io.ReadAll(tar)
	if err != nil || sum(again) != s.DiffID {
		t.Errorf("tar made of its parts: got %s, %v, want %s", sum(again), err, s.DiffID)
	}
}

// What a table of contents cannot say is refused.
func TestSeekableRefuses(t *testing.T) {
	late := nodeAt(tree.File, 0o644)
	late.Mtime = tree.Time{Sec: 1 << 39}
	for name, cs := range map[string]tree.Changes{
		"name": {{Path: "\xff", Node: nodeAt(tree.Dir, 0o755)}},
		"time": {{Path: "late", Node: late}},
	} {
		for _, codec := range []string{"estargz", "zstd:chunked"} {
			_, err := Seal(context.Background(), io.Discard, cs, packs{}, Options{Compression: codec})
			if err == nil || !strings.Contains(err.Error(), "table of contents") {
				t.Errorf("%s, %s: got %v, want an error about the table of contents", codec, name, err)
			}
		}
	}
}

// Random layers, in every form.
func TestSeekableRandom(t *testing.T) {
	for seed := range uint64(6) {
		r := &random{Rand: rand.New(rand.NewPCG(seed, 11))}
		r.fill("", 2)
		for i := range r.cs {
			r.cs[i].Path = strings.ToValidUTF8(r.cs[i].Path, "_")
			if n := r.cs[i].Node; n != nil {
				n.Target, n.Mtime.Sec = strings.ToValidUTF8(n.Target, "_"), min(max(n.Mtime.Sec, 0), when)
				if n.Kind == tree.Symlink {
					n.Size = int64(len(n.Target))
				}
			}
		}
		r.cs.Sort()
		var cs tree.Changes
		for _, c := range r.cs {
			if len(cs) == 0 || cs[len(cs)-1].Path != c.Path && path.Clean(c.Path) == c.Path {
				cs = append(cs, c)
			}
		}
		p := packs{spoolPack: r.pack}
		for _, codec := range []string{"estargz", "zstd:chunked"} {
			blob, s := seal(t, cs, p, Options{Compression: codec})
			read, info, _ := mustRead(t, blob)
			if info.DiffID != s.DiffID {
				t.Errorf("seed %d, %s: got %s, want %s", seed, codec, info.DiffID, s.DiffID)
			}
			var rest tree.Changes
			for _, c := range read {
				if c.Path != "stargz.index.json" {
					rest = append(rest, c)
				}
			}
			if diff := cmp.Diff(tree.Format(cs), tree.Format(rest)); diff != "" {
				t.Errorf("seed %d, %s: changes (-sealed +read):\n%s", seed, codec, diff)
			}
		}
	}
}
