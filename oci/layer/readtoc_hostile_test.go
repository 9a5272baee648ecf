package layer

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/fbuild/fbuild/tree"
)

// forged is an eStargz blob whose table says what a test wants.
type forged struct {
	blob        bytes.Buffer
	at          []int64 // of the members of contents
	annotations map[string]string
	mode        uint32 // of the table's file
}

func member(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(b)
	_ = z.Close()
	return out.Bytes()
}

func sumOf(b []byte) tree.Digest {
	s := sha256.Sum256(b)
	return tree.Digest("sha256:" + hex.EncodeToString(s[:]))
}

type object = map[string]any

// forge writes contents, then the table that entries make of where they lie.
func forge(t testing.TB, contents []string, entries func(at []int64) []object) *forged {
	t.Helper()
	f := &forged{}
	for _, c := range contents {
		f.at = append(f.at, int64(f.blob.Len()))
		f.blob.Write(member([]byte(c)))
	}
	text, err := json.Marshal(object{"version": 1, "entries": entries(f.at)})
	if err != nil {
		t.Fatal(err)
	}
	f.finish(t, text)
	return f
}

func (f *forged) finish(t testing.TB, text []byte) {
	t.Helper()
	h := header{name: "stargz.index.json", typ: typeFile, size: int64(len(text)), mode: f.mode}
	b, err := h.encode()
	if err != nil {
		t.Fatal(err)
	}
	b = append(append(b, text...), zeroBlock[:-len(text)&(blockSize-1)]...)
	at := int64(f.blob.Len())
	f.blob.Write(member(append(b, make([]byte, 2*blockSize)...)))
	f.blob.Write(stargzFooter(at))
	f.annotations = map[string]string{stargzTOCDigest: string(sumOf(text))}
}

func (f *forged) read(t testing.TB) (*Table, error) {
	t.Helper()
	s, ok := FindSeekable(f.annotations)
	if !ok {
		t.Fatal("no table was found")
	}
	var size int64
	return ReadTable(t.Context(), s, (&blobRanges{blob: f.blob.Bytes()}).source(&size), Limits{})
}

// tocFile is an honest entry of one chunk.
func tocFile(name, text string, at int64) object {
	d := sumOf([]byte(text))
	return object{"type": "reg", "name": name, "size": len(text), "offset": at, "digest": d, "chunkDigest": d}
}

func with(o, more object) object {
	maps.Copy(o, more)
	return o
}

// A table is written by whoever made the image: what cannot be is refused before a byte
// of a file is fetched, and the layer is then read as a whole.
func TestHostileTables(t *testing.T) {
	one := func(change object) func([]int64) []object {
		return func(at []int64) []object { return []object{with(tocFile("a", "hello", at[0]), change)} }
	}
	const other = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	for _, tt := range []struct {
		name    string
		entries func(at []int64) []object
		want    error
	}{
		{"honest", one(nil), nil},
		{"offset beyond the blob", one(object{"offset": 1 << 40}), ErrTable},
		{"offset in the table", func([]int64) []object { return []object{tocFile("a", "hello", 1<<20)} }, ErrTable},
		{"negative offset", one(object{"offset": -1}), ErrTable},
		{"negative size", one(object{"size": -5}), ErrTable},
		{"larger than its chunk", one(object{"chunkSize": 3}), ErrTable},
		{"chunk larger than the file", one(object{"chunkSize": 30}), ErrTable},
		{"chunk that starts late", one(object{"chunkOffset": 2}), ErrTable},
		{"no digest", one(object{"digest": "", "chunkDigest": ""}), ErrTable},
		{"another kind of digest", one(object{"digest": "md5:00", "chunkDigest": "md5:00"}), ErrTable},
		{"two digests of one chunk", one(object{"digest": other}), ErrTable},
		{"bytes before it without end", one(object{"innerOffset": int64(1) << 50}), ErrTable},
		{"negative bytes before it", one(object{"innerOffset": -1}), ErrTable},
		{"petabytes", one(object{"size": int64(1) << 49}), ErrTooLarge},
		{"more than 64 bits", one(object{"size": json.Number("99999999999999999999")}), ErrTable},
		{"sizes that overflow", func(at []int64) []object {
			var out []object
			for range 40 {
				out = append(out, with(tocFile("a", "hello", at[0]), object{"size": int64(1) << 50}))
			}
			return out
		}, ErrTooLarge},
		{"unknown type", one(object{"type": "socket"}), ErrTable},
		{"chunk without a file", one(object{"type": "chunk"}), ErrTable},
		{"chunk of another file", func(at []int64) []object {
			return []object{
				with(tocFile("a", "hello", at[0]), object{"size": 10, "chunkSize": 5}),
				with(tocFile("b", "world", at[1]), object{"type": "chunk", "chunkOffset": 5, "chunkSize": 5}),
			}
		}, ErrTable},
		{"chunks in disorder", func(at []int64) []object {
			return []object{
				with(tocFile("a", "hello", at[0]), object{"size": 10, "chunkSize": 5, "chunkOffset": 5}),
				with(tocFile("a", "world", at[1]), object{"type": "chunk", "chunkOffset": 0, "chunkSize": 5}),
			}
		}, ErrTable},
		{"chunks that overlap", func(at []int64) []object {
			return []object{
				with(tocFile("a", "hello", at[0]), object{"size": 9, "chunkSize": 5}),
				with(tocFile("a", "world", at[1]), object{"type": "chunk", "chunkOffset": 4, "chunkSize": 5}),
			}
		}, ErrTable},
		{"a chunk too few", func(at []int64) []object {
			return []object{
				with(tocFile("a", "hello", at[0]), object{"size": 15, "chunkSize": 5}),
				with(tocFile("a", "world", at[1]), object{"type": "chunk", "chunkOffset": 5, "chunkSize": 5}),
			}
		}, ErrTable},
		{"chunks of a directory", func(at []int64) []object {
			return []object{{"type": "dir", "name": "d/"}, with(tocFile("d/", "hello", at[0]), object{"type": "chunk"})}
		}, ErrTable},
		{"impossible time", one(object{"modtime": "yesterday"}), ErrTable},
		{"impossible owner", one(object{"uid": int64(1) << 40}), ErrCorrupt},
		{"a name with a NUL", one(object{"name": "a\x00b"}), ErrCorrupt},
		{"a name that is too long", one(object{"name": strings.Repeat("x", 300)}), ErrCorrupt},
		{"below a file", func(at []int64) []object {
			return []object{tocFile("a", "hello", at[0]), tocFile("a/b", "world", at[1])}
		}, ErrCorrupt},
		{"xattr that is too large", one(object{"xattrs": map[string][]byte{"user.x": make([]byte, 1<<17)}}), ErrCorrupt},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := forge(t, []string{"hello", "world"}, tt.entries).read(t)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// Names mean what they mean in a tar: contained in the root, the last one wins, whiteouts
// hide.
func TestTableNames(t *testing.T) {
	f := forge(t, []string{"hello", "world"}, func(at []int64) []object {
		return []object{
			tocFile("../../etc/passwd", "hello", at[0]), tocFile("/abs", "hello", at[0]), tocFile("twice", "hello", at[0]),
			{"type": "symlink", "name": "up", "linkName": "/../.."},
			tocFile("up/inside", "hello", at[0]),
			tocFile("./twice", "world", at[1]),
			{"type": "reg", "name": "etc/.wh.gone"},
			{"type": "hardlink", "name": "again", "linkName": "twice"},
		}
	})
	table, err := f.read(t)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]tree.Digest{}
	for _, c := range table.Changes {
		if c.Node != nil {
			got[c.Path] = c.Node.Digest
		} else {
			got[c.Path] = "whiteout"
		}
	}
	hello, world := sumOf([]byte("hello")), sumOf([]byte("world"))
	for p, want := range map[string]tree.Digest{"etc/passwd": hello, "abs": hello, "inside": hello, "twice": world, "again": world, "etc/gone": "whiteout"} {
		if got[p] != want {
			t.Errorf("%s: got %q, want %q", p, got[p], want)
		}
	}
}

// Nothing but the bytes that a digest promises comes out of a chunk.
func TestHostileChunks(t *testing.T) {
	bomb := strings.Repeat("\x00", 64<<20)
	f := forge(t, []string{"hello", "world", bomb}, func(at []int64) []object {
		return []object{tocFile("a", "hello", at[0]), tocFile("b", "hello", at[1]), tocFile("c", "hello", at[2]), with(tocFile("d", "hello", at[0]), object{"innerOffset": 3})}
	})
	table, err := f.read(t)
	if err != nil {
		t.Fatal(err)
	}
	blob := f.blob.Bytes()
	for i, want := range []error{nil, ErrCorrupt, ErrCorrupt, ErrCorrupt} {
		c := &table.Chunks[i]
		var out bytes.Buffer
		if err := c.Read(bytes.NewReader(blob[c.Blob:c.End]), &out); !errors.Is(err, want) {
			t.Errorf("chunk %d: got %v, want %v", i, err, want)
		}
		if out.Len() > 5 {
			t.Errorf("chunk %d: %d bytes came out", i, out.Len())
		}
	}
	c := &table.Chunks[0]
	for n := range c.End - c.Blob { // the member's end is not needed
		var out bytes.Buffer
		if err := c.Read(bytes.NewReader(blob[c.Blob:c.Blob+n]), &out); !errors.Is(err, ErrCorrupt) && out.String() != "hello" {
			t.Errorf("cut after %d bytes: got %v and %q, want ErrCorrupt", n, err, out.String())
		}
	}
	for bit := range (c.End - c.Blob) * 8 {
		bad := bytes.Clone(blob[c.Blob:c.End])
		bad[bit/8] ^= 1 << (bit % 8)
		var out bytes.Buffer
		if err := c.Read(bytes.NewReader(bad), &out); err == nil && out.String() != "hello" {
			t.Errorf("bit %d flipped: %q came out for good", bit, out.String())
		}
	}
}

// Where the table is not the one that the manifest promises, nothing of it counts.
func TestTableDigest(t *testing.T) {
	f := forge(t, []string{"hello"}, func(at []int64) []object { return []object{tocFile("a", "hello", at[0])} })
	f.annotations[stargzTOCDigest] = string(sumOf([]byte("another")))
	if _, err := f.read(t); !errors.Is(err, ErrTable) {
		t.Errorf("another digest: got %v, want ErrTable", err)
	}
	f = &forged{mode: 0o4755}
	f.finish(t, []byte(`{"entries":[]}`))
	if _, err := f.read(t); !errors.Is(err, ErrTable) {
		t.Errorf("a mode that no digest promises: got %v, want ErrTable", err)
	}
	cs, p := lazySample()
	blob, s := seal(t, cs, p, Options{Compression: "zstd:chunked"})
	s.Annotations[chunkedChecksum] = string(sumOf([]byte("another")))
	seek, _ := FindSeekable(s.Annotations)
	var size int64
	if _, err := ReadTable(t.Context(), seek, (&blobRanges{blob: blob}).source(&size), Limits{}); !errors.Is(err, ErrTable) {
		t.Errorf("another digest of zstd:chunked: got %v, want ErrTable", err)
	}
	for _, a := range []map[string]string{
		nil,
		{stargzTOCDigest: ""},
		{stargzTOCDigest: "sha512:00"},
		{chunkedChecksum: string(sumOf(nil))},
		{chunkedChecksum: string(sumOf(nil)), chunkedPosition: "1:2:3:2"},
		{chunkedChecksum: string(sumOf(nil)), chunkedPosition: "-1:2:3:1"},
	} {
		if _, ok := FindSeekable(a); ok {
			t.Errorf("annotations %v: found a table", a)
		}
	}
}

// FuzzReadTable: whatever a table says, what it gives is within the blob and the pack.
func FuzzReadTable(f *testing.F) {
	honest, _ := json.Marshal(object{"entries": []object{tocFile("a", "hello", 0), {"type": "dir", "name": "d"}, {"type": "hardlink", "name": "l", "linkName": "a"}}})
	f.Add(honest)
	f.Add([]byte(`{"entries":[{"type":"reg","name":"x","size":3},{"type":"chunk","name":"x"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		x := &forged{}
		x.blob.Write(member([]byte("hello")))
		x.finish(t, text)
		s, _ := FindSeekable(x.annotations)
		var size int64
		table, err := ReadTable(t.Context(), s, (&blobRanges{blob: x.blob.Bytes()}).source(&size), Limits{})
		if err != nil {
			return
		}
		last := int64(8192)
		for _, c := range table.Chunks {
			if c.Off < last || c.Size <= 0 || c.Off+c.Size > size || c.Blob < 0 || c.End <= c.Blob || c.End > int64(x.blob.Len()) {
				t.Fatalf("chunk %+v of a pack of %d and a blob of %d", c, size, x.blob.Len())
			}
			last = c.Off + c.Size
		}
	})
}
