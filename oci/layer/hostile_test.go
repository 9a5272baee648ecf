package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/fbuild/fbuild/tree"
)

func read1(blob []byte, lim Limits) error {
	_, _, err := Read(context.Background(), bytes.NewReader(blob), testPack, io.Discard, lim)
	return err
}

// zerosBlob is a compressed stream of n zeros, as one file of a tar.
func zerosBlob(t *testing.T, n int64, z func(io.Writer) io.WriteCloser) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := z(&buf)
	h := header{name: "zeros", typ: typeFile, size: n}
	b, err := h.encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(w, zeroReader{}, n+1024); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// counter counts what comes out of a hostile blob.
type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// LAWS 15: sizes are bounded while reading. A small blob that grows without end
// is stopped early; a large ratio alone is no fault.
func TestReadStopsBombs(t *testing.T) {
	codecs := map[string]func(io.Writer) io.WriteCloser{
		"gzip": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		"zstd": func(w io.Writer) io.WriteCloser {
			z, err := zstd.NewWriter(w)
			if err != nil {
				t.Fatal(err)
			}
			return z
		},
	}
	const size = 24 << 20
	for name, z := range codecs {
		t.Run(name, func(t *testing.T) {
			blob := zerosBlob(t, size, z)
			var out counter
			_, _, err := Read(context.Background(), bytes.NewReader(blob), testPack, &out, Limits{MaxSize: 4 << 20})
			if !errors.Is(err, ErrTooLarge) {
				t.Errorf("Read: got %v, want %v", err, ErrTooLarge)
			}
			if out.n > 8<<20 {
				t.Errorf("written before it stopped: got %d bytes, want about 4 MiB", out.n)
			}
			if err := read1(blob, Limits{MaxSize: 4 << 20, MaxRatio: 100_000}); err != nil {
				t.Errorf("a ratio that is allowed: got %v", err)
			}
			if err := read1(blob, Limits{}); err != nil {
				t.Errorf("a size that is allowed: got %v", err)
			}
		})
	}
	if err := read1(zerosBlob(t, size, func(w io.Writer) io.WriteCloser { return nopCloser{w} }), Limits{MaxSize: 1 << 20}); err != nil {
		t.Errorf("a large plain tar: got %v", err)
	}
}

func TestReadLimitsEntries(t *testing.T) {
	raw := tarOf(t, file("a", ""), file("b", ""), file("c", ""))
	if err := read1(raw, Limits{MaxEntries: 2}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("three entries of two: got %v, want %v", err, ErrTooLarge)
	}
	if err := read1(raw, Limits{MaxEntries: 3}); err != nil {
		t.Errorf("three entries of three: got %v", err)
	}
}

func TestReadRefusesWideZstdWindow(t *testing.T) {
	// A frame header that asks for a window of 2 GiB, and one raw empty block.
	blob := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 1, 0, 0}
	if err := read1(blob, Limits{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Read: got %v, want %v", err, ErrTooLarge)
	}
}

// Whatever is cut off or turned over is said, with its place.
func TestReadCorrupt(t *testing.T) {
	raw := tarOf(t, file("first", "1"), file("second", strings.Repeat("contents", 500)))
	flip := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 0x40
		return b
	}
	z := gzipped(t, raw)
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	zs := enc.EncodeAll(raw, nil)
	pax := func(recs string) []byte { return append(paxBlocks("x", recs), tarOf(t, file("f", ""))...) }
	hdr := func(h header) []byte {
		b, err := h.encode()
		if err != nil {
			t.Fatal(err)
		}
		return append(b, make([]byte, 1024)...)
	}
	sparse := func(recs ...string) []byte { return pax(strings.Join(recs, "")) }
	cases := []struct {
		name string
		blob []byte
		want string
	}{
		{"gzip cut", z[:len(z)-20], "cut short"},
		{"gzip trailer cut", z[:len(z)-3], "cut short"},
		{"gzip trailer", flip(z, len(z)-6), "checksum"},
		{"gzip data", flip(z, len(z)/2), "into the tar"},
		{"gzip garbage behind", append(bytes.Clone(z), "garbage"...), "behind the gzip stream"},
		{"gzip member cut", append(bytes.Clone(z), z[:5]...), "cut short"},
		{"zstd cut", zs[:len(zs)-9], "cut short"},
		{"zstd data", flip(zs, len(zs)-2), "into the tar"},
		{"zstd garbage behind", append(bytes.Clone(zs), "garbage"...), "into the tar"},
		{"bzip2", []byte("BZh9 and so on"), "compressed with bzip2"},
		{"no tar", bytes.Repeat([]byte("text"), 1000), "tar header at 0, at its start: not a tar header"},
		{"header", flip(raw, 1024+20), `tar header at 1024, after "first"`},
		{"header cut", raw[:1024+100], `tar header at 1024, after "first": it ends early`},
		{"contents cut", raw[:2000], "it ends early"},
		{"one block of zeros, then more", append(bytes.Clone(zeroBlock[:]), raw...), "not a tar header"},
		{"PAX record", pax("7 a=b\n"), "PAX record"},
		{"PAX record length", pax("99999999999999999999 a=b\n"), "PAX record"},
		{"PAX number", pax(paxFormat("uid", "x")), "PAX record"},
		{"PAX time", pax(paxFormat("mtime", "1.x")), "PAX record"},
		{"PAX negative size", pax(paxFormat("size", "-1")), "negative"},
		{"PAX too large", append(hdr(header{name: "x", typ: typePax, size: 2 << 20})[:512], make([]byte, 4<<20)...), "2097152 bytes"},
		{"PAX cut", paxBlocks("x", paxFormat("path", "p"))[:515], "it ends early"},
		{"owner", pax(paxFormat("uid", "4294967296")), "impossible owner"},
		{"unknown type", hdr(header{name: "f", typ: 'Z'}), `"f" has the unknown type 'Z'`},
		{"socket", hdr(header{name: "sock", typ: 's'}), `"sock" has the unknown type`},
		{"file as root", hdr(header{name: "./", typ: typeFile}), "root is not a directory"},
		{"no symlink target", hdr(header{name: "s", typ: typeSymlink}), `symlink "s"`},
		{"long name", pax(paxFormat("path", strings.Repeat("n", 256))), "256 bytes"},
		{"long path", pax(paxFormat("path", strings.Repeat("n/", 3000))), "too long"},
		{"xattr value", pax(paxFormat("SCHILY.xattr.user.x", strings.Repeat("v", 70_000))), "user.x"},
		{"xattr name", pax(paxFormat("SCHILY.xattr."+strings.Repeat("n", 256), "v")), "256 bytes"},
		{"device", pax(""), ""},
		{"sparse 1.0 without map", sparse(paxFormat(paxSparseMajor, "1"), paxFormat(paxSparseMinor, "0"), paxFormat(paxSparseReal, "9")), "PAX record"},
		{"sparse out of order", sparse(paxFormat(paxSparseBlocks, "2"), paxFormat(paxSparseMap, "5,0,1,0"), paxFormat(paxSparseSize, "9")), "out of order"},
		{"sparse beyond its end", sparse(paxFormat(paxSparseBlocks, "1"), paxFormat(paxSparseMap, "10,0"), paxFormat(paxSparseSize, "9")), "out of order"},
		{"sparse more than there is", sparse(paxFormat(paxSparseBlocks, "1"), paxFormat(paxSparseMap, "0,9"), paxFormat(paxSparseSize, "9")), "too large"},
		{"sparse overflow", sparse(paxFormat(paxSparseBlocks, "1"), paxFormat(paxSparseMap, "9223372036854775807,9223372036854775807"), paxFormat(paxSparseSize, "9223372036854775807")), "too large"},
		{"whiteout of nothing", tarOf(t, file("d/.wh.", "")), "names nothing"},
		{"whiteout of the parent", tarOf(t, file("d/.wh...", "")), "names nothing"},
		{"below a file", tarOf(t, file("f", ""), file("f/x", "")), `"f/x" stands below`},
		{"below a file by way of itself", tarOf(t, dir("d/k/", 0o755), symlink("l", "d/k/.."), file("l/k", ""), file("l/z", "")), `"l/z" stands below`},
		{"link to a directory", tarOf(t, dir("d/", 0o755), link("l", "d")), `directory "d"`},
		{"link to the root", tarOf(t, link("l", "/")), "no file"},
		{"link below a file", tarOf(t, file("f", ""), link("l", "f/x")), `hard link to "f/x"`},
		{"symlink loop", tarOf(t, symlink("a", "b"), symlink("b", "a"), file("a/x", "")), "too many levels"},
		{"symlinks that grow", tarOf(t, growing()...), "path that is too long"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := read1(c.blob, Limits{})
			if c.want == "" {
				if err != nil {
					t.Errorf("Read: got %v, want no error", err)
				}
				return
			}
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Read: got %v, want a %v with %q", err, ErrCorrupt, c.want)
			}
		})
	}
}

// growing is a chain of symlinks that leads to a path of 12,000 bytes.
func growing() []ent {
	var out []ent
	for i := range 20 {
		name, next := string(rune('a'+i)), string(rune('b'+i))
		out = append(out, symlink(name, next+strings.Repeat("/x", 300)))
	}
	return append(out, file("a/f", ""))
}

// What archive/tar accepts at the end of a stream, docker accepts.
func TestReadEnds(t *testing.T) {
	whole := tarOf(t, file("f", "1"))
	for name, raw := range map[string][]byte{
		"empty": nil, "no end": whole[:1024], "no padding": whole[:513], "one zero block": whole[:1536], "half a block more": append(bytes.Clone(whole), 0, 0, 1),
	} {
		t.Run(name, func(t *testing.T) {
			cs, info, pack := mustRead(t, raw)
			if !bytes.Equal(pack, raw) || info.DiffID != sum(raw) {
				t.Errorf("pack: got %d bytes, want %d", len(pack), len(raw))
			}
			if want := min(len(raw), 1); len(cs) != want {
				t.Errorf("changes: got %d, want %d", len(cs), want)
			}
		})
	}
}

func TestGlobalHeader(t *testing.T) {
	g := func(recs map[string]string) ent {
		return ent{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: recs}}
	}
	cs, info, _ := mustRead(t, tarOf(t, g(map[string]string{"comment": "a commit"}), file("f", "")))
	if got := tree.Format(cs); got != "-0644 0:0 1700000000 0 f\n" || info.Notes != nil {
		t.Errorf("changes: got %s%q", got, info.Notes)
	}
	_, info, _ = mustRead(t, tarOf(t, g(map[string]string{"uid": "7"}), file("f", "")))
	if got := strings.Join(info.Notes, ""); !strings.Contains(got, `"uid"`) {
		t.Errorf("notes: got %q, want the record named", got)
	}
}

// A global header ends what was said before it, for archive/tar and so for docker.
func TestGlobalHeaderDropsLocal(t *testing.T) {
	g := tarOf(t, ent{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "c"}}}, file("f", ""))
	raw := append(paxBlocks("x", paxFormat("path", "other")), g...)
	cs, _, _ := mustRead(t, raw)
	if got, want := cs[0].Path, "f"; got != want {
		t.Errorf("path: got %q, want %q", got, want)
	}
}

func TestNotesEnd(t *testing.T) {
	var ents []ent
	for i := range 50 {
		ents = append(ents, ent{Header: tar.Header{Typeflag: tar.TypeChar, Name: strings.Repeat("c", i+1)}})
	}
	_, info, _ := mustRead(t, tarOf(t, ents...))
	if got, want := len(info.Notes), maxNotes+1; got != want || !strings.Contains(info.Notes[want-1], "30 more") {
		t.Errorf("notes: got %d, %q, want %d", got, info.Notes[got-1], want)
	}
}

// A small tar must not take all memory or time by deep paths of its own or by
// symlinks that lead a long way.
func TestIndexHasBudgets(t *testing.T) {
	deep := func(i int) *entry {
		return &entry{typ: typeFile, name: strings.Repeat(string(rune('a'+i%26))+string(rune('a'+i/26))+"/", 80) + "f"}
	}
	ix := newIndex(&notes{}, Limits{}.withDefaults(), false)
	ix.budget = 1 << 20
	var err error
	n := 0
	for ; err == nil && n < 100; n++ {
		err = ix.add(deep(n))
	}
	if !errors.Is(err, ErrTooLarge) || n > 30 {
		t.Errorf("deep paths: got %v after %d entries, want %v after about 25", err, n, ErrTooLarge)
	}

	ix = newIndex(&notes{}, Limits{}.withDefaults(), false)
	ix.steps = 100_000
	if err := ix.add(&entry{typ: typeSymlink, name: "l", link: strings.Repeat("./", 2000)}); err != nil {
		t.Fatal(err)
	}
	for n, err = 0, nil; err == nil && n < 100; n++ {
		err = ix.add(&entry{typ: typeFile, name: "l/x" + strings.Repeat("x", n) + "/f"})
	}
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("long symlinks: got %v, want %v", err, ErrTooLarge)
	}
}
