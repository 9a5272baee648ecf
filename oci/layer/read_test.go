package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/tree"
)

// LAWS 15: what the entries of a tar mean, in their order.
var meaning = []struct {
	name string
	ents []ent
	want string // tree.Format
	note string // a part of one note
}{
	{
		"plain entries",
		[]ent{dir("etc/", 0o755), file("etc/motd", "hi"), symlink("etc/l", "motd")},
		"d0755 0:0 1700000000 etc\nl0777 0:0 1700000000 etc/l -> motd\n-0644 0:0 1700000000 2 etc/motd\n", "",
	},
	{
		"names are cleaned and contained",
		[]ent{file("/abs", "1"), file("../../up", "2"), file("./a/../b", "3")},
		"-0644 0:0 1700000000 1 abs\n-0644 0:0 1700000000 1 b\n-0644 0:0 1700000000 1 up\n", "",
	},
	{
		"last entry wins",
		[]ent{file("f", "old"), file("f", "newer")},
		"-0644 0:0 1700000000 5 f\n", "",
	},
	{
		"a file takes what stood below",
		[]ent{dir("d/", 0o700), file("d/x", "1"), file("d", "2")},
		"-0644 0:0 1700000000 1 d\n", "",
	},
	{
		"a directory over a file hides what is below",
		[]ent{file("d", "2"), dir("d/", 0o700), file("d/x", "1")},
		"d0700 0:0 1700000000 d opaque\n-0644 0:0 1700000000 1 d/x\n", "",
	},
	{
		"a directory over a directory merges",
		[]ent{dir("d/", 0o700), file("d/x", "1"), dir("d/", 0o755)},
		"d0755 0:0 1700000000 d\n-0644 0:0 1700000000 1 d/x\n", "",
	},
	{
		"hard link shares",
		[]ent{file("a", "1"), link("b", "a"), link("c", "/b")},
		"-0644 0:0 1700000000 1 a\n-0644 0:0 1700000000 1 b = a\n-0644 0:0 1700000000 1 c = a\n", "",
	},
	{
		"hard link takes what its target was then",
		[]ent{file("a", "one"), link("b", "a"), file("a", "three")},
		"-0644 0:0 1700000000 5 a\n-0644 0:0 1700000000 3 b\n", "",
	},
	{
		"hard link to a lower layer",
		[]ent{link("b", "usr/../a"), link("c", "b")},
		"h b = a\nh c = a\n", "",
	},
	{
		"hard link to a symlink",
		[]ent{symlink("s", "nowhere"), link("b", "s")},
		"l0777 0:0 1700000000 b -> nowhere\nl0777 0:0 1700000000 s -> nowhere = b\n", "",
	},
	{
		"hard link through a symlink of the layer",
		[]ent{dir("usr/lib/", 0o755), symlink("lib", "/usr/lib"), file("usr/lib/x", "1"), link("y", "lib/x")},
		"l0777 0:0 1700000000 lib -> /usr/lib\nd0755 0:0 1700000000 usr/lib\n-0644 0:0 1700000000 1 usr/lib/x\n-0644 0:0 1700000000 1 y = usr/lib/x\n", "",
	},
	{
		"whiteouts",
		[]ent{file("etc/.wh.gone", ""), file(".wh.top", "")},
		"x etc/gone\nx top\n", "",
	},
	{
		"whiteout before and after its entry acts on lower layers only",
		[]ent{file(".wh.a", ""), file("a", "1"), file("b", "2"), file(".wh.b", "")},
		"-0644 0:0 1700000000 1 a\n-0644 0:0 1700000000 1 b\n", "",
	},
	{
		"whiteout of a directory that comes again",
		[]ent{dir("d/", 0o711), file("d/x", "1"), file(".wh.d", "")},
		"d0711 0:0 1700000000 d opaque\n-0644 0:0 1700000000 1 d/x\n", "",
	},
	{
		"whiteout of a directory with new entries but no own",
		[]ent{file(".wh.d", ""), file("d/x", "1")},
		"x d\n-0644 0:0 1700000000 1 d/x\n", "",
	},
	{
		"opaque after the entries",
		[]ent{dir("d/", 0o755), file("d/x", "1"), file("d/.wh..wh..opq", "")},
		"d0755 0:0 1700000000 d opaque\n-0644 0:0 1700000000 1 d/x\n", "",
	},
	{
		"opaque alone",
		[]ent{file("d/.wh..wh..opq", "")},
		"o d\n", "",
	},
	{
		"opaque root",
		[]ent{file(".wh..wh..opq", ""), file("x", "")},
		"o .\n-0644 0:0 1700000000 0 x\n", "",
	},
	{
		"whiteout through a symlink of the layer",
		[]ent{symlink("lib", "usr/lib"), file("lib/.wh.x", "")},
		"l0777 0:0 1700000000 lib -> usr/lib\nx usr/lib/x\n", "",
	},
	{
		"missing ancestors stay missing",
		[]ent{file("a/b/c", "1")},
		"-0644 0:0 1700000000 1 a/b/c\n", "",
	},
	{
		"symlinked ancestor, absolute and climbing",
		[]ent{symlink("l", "/../../real"), file("l/x", "1"), symlink("m/n", "../other"), file("m/n/y", "2")},
		"l0777 0:0 1700000000 l -> /../../real\nl0777 0:0 1700000000 m/n -> ../other\n-0644 0:0 1700000000 1 other/y\n-0644 0:0 1700000000 1 real/x\n", "",
	},
	{
		"symlink that was replaced leads nowhere",
		[]ent{symlink("l", "a"), file("l/x", "1"), dir("l/", 0o755), file("l/y", "2")},
		"-0644 0:0 1700000000 1 a/x\nd0755 0:0 1700000000 l opaque\n-0644 0:0 1700000000 1 l/y\n", "",
	},
	{
		"aufs names are left out",
		[]ent{dir(".wh..wh.plnk/", 0o700), file(".wh..wh.plnk/1.2", "data"), link("f", ".wh..wh.plnk/1.2"), file(".wh..wh.aufs", "")},
		"-0644 0:0 1700000000 4 f\n", "aufs",
	},
	{
		"names below a whiteout",
		[]ent{file("d/.wh.x/y", "1"), file("z", "")},
		"-0644 0:0 1700000000 0 z\n", "below the name of a whiteout",
	},
	{
		"devices and fifos",
		[]ent{
			{Header: tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}},
			{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "sda", Mode: 0o660, Gid: 6, Devmajor: 8, Devminor: 300}},
			{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o600}},
		},
		"c0666 0:0 1700000000 1,3 null\np0600 0:0 1700000000 pipe\nb0660 0:6 1700000000 8,300 sda\n", "",
	},
	// LAWS 24
	{
		"overlay whiteout device",
		[]ent{{Header: tar.Header{Typeflag: tar.TypeChar, Name: "gone"}}, file("f", "")},
		"-0644 0:0 1700000000 0 f\n", "0/0",
	},
	{
		"root attributes are ignored as docker does",
		[]ent{dir("./", 0o700), file("./f", "")},
		"-0644 0:0 1700000000 0 f\n", "root directory",
	},
	{
		"mode bits",
		[]ent{{Header: tar.Header{Typeflag: tar.TypeReg, Name: "su", Mode: 0o106755}}, {Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "s", Linkname: "x", Mode: 0o644}}},
		"l0777 0:0 1700000000 s -> x\n-6755 0:0 1700000000 0 su\n", "",
	},
	{
		"owners",
		[]ent{
			{Header: tar.Header{Typeflag: tar.TypeReg, Name: "big", Uid: 3_000_000_000, Gid: 2097152, Mode: 0o600}},
			{Header: tar.Header{Typeflag: tar.TypeReg, Name: "nobody", Uid: -2, Gid: -1, Mode: 0o600, Format: tar.FormatGNU}},
		},
		"-0600 3000000000:2097152 1700000000 0 big\n-0600 4294967294:0 1700000000 0 nobody\n", "",
	},
	{
		"times",
		[]ent{
			{Header: tar.Header{Typeflag: tar.TypeReg, Name: "frac", Mode: 0o600, ModTime: time.Unix(5, 123456789), Format: tar.FormatPAX}},
			{Header: tar.Header{Typeflag: tar.TypeReg, Name: "old", Mode: 0o600, ModTime: time.Unix(-5, 250000000), Format: tar.FormatPAX}},
			{Header: tar.Header{Typeflag: tar.TypeReg, Name: "far", Mode: 0o600, ModTime: time.Unix(1<<60, 0), Format: tar.FormatGNU}},
		},
		"-0600 0:0 1099511627776 0 far\n-0600 0:0 5.123456789 0 frac\n-0600 0:0 -5.250000000 0 old\n", "",
	},
	{
		"bytes that are not UTF-8",
		[]ent{file("caf\xe9", "1"), file("\u00fc", "2"), symlink("s", "\xff")},
		"-0644 0:0 1700000000 1 \"caf\\xe9\"\nl0777 0:0 1700000000 s -> \"\\xff\"\n-0644 0:0 1700000000 1 \"ü\"\n", "",
	},
}

func TestReadMeaning(t *testing.T) {
	for _, c := range meaning {
		t.Run(c.name, func(t *testing.T) {
			cs, info, _ := mustRead(t, tarOf(t, c.ents...))
			if diff := cmp.Diff(c.want, tree.Format(cs)); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			if got := strings.Join(info.Notes, "\n"); !strings.Contains(got, c.note) || c.note == "" && got != "" {
				t.Errorf("notes: got %q, want %q", got, c.note)
			}
		})
	}
}

// The same node is what makes names one file.
func TestReadSharesNodes(t *testing.T) {
	cs, _, _ := mustRead(t, tarOf(t, file("a", "one"), link("b", "a")))
	if a, b := find(t, cs, "a").Node, find(t, cs, "b").Node; a != b {
		t.Errorf("nodes of a hard link: got %p and %p, want one", a, b)
	}
}

func TestReadLongNames(t *testing.T) {
	long := strings.Repeat("d/", 150) + strings.Repeat("n", 200)
	target := strings.Repeat("t/", 200)
	for _, f := range []tar.Format{tar.FormatPAX, tar.FormatGNU} {
		t.Run(f.String(), func(t *testing.T) {
			h := tar.Header{Typeflag: tar.TypeReg, Name: long, Mode: 0o644, Size: 1, Format: f}
			s := tar.Header{Typeflag: tar.TypeSymlink, Name: "s", Linkname: target, Format: f}
			cs, _, pack := mustRead(t, tarOf(t, ent{h, "x"}, ent{Header: s}))
			if got := content(t, packs{testPack: pack}, find(t, cs, long).Node); got != "x" {
				t.Errorf("contents: got %q, want %q", got, "x")
			}
			if got := find(t, cs, "s").Node.Target; got != target {
				t.Errorf("target: got %q, want %q", got, target)
			}
		})
	}
}

// Go before 1.8 wrote prefixes into GNU headers; docker reads such layers.
func TestReadOldGoPrefix(t *testing.T) {
	var b block
	h := header{name: "file", typ: typeFile}
	enc, err := h.encode()
	if err != nil {
		t.Fatal(err)
	}
	copy(b[:], enc)
	copy(b[257:], magicGNU)
	copy(b[345:], "some/long/prefix")
	b.seal()
	raw := slices.Concat(b[:], make([]byte, 1024))
	want, err := tar.NewReader(bytes.NewReader(raw)).Next()
	if err != nil {
		t.Fatal(err)
	}
	cs, _, _ := mustRead(t, raw)
	if got := cs[0].Path; got != want.Name || got != "some/long/prefix/file" {
		t.Errorf("path: got %q, want %q", got, want.Name)
	}
}

func TestReadXattrs(t *testing.T) {
	v2 := "\x01\x00\x00\x02" + strings.Repeat("\x20", 16)
	v3 := "\x01\x00\x00\x03" + strings.Repeat("\x20", 16) + "\x10\x27\x00\x00"
	f := file("f", "")
	f.PAXRecords = map[string]string{
		"SCHILY.xattr.user.b":                 "\x00\xff=\n",
		"SCHILY.xattr.user.a":                 "1",
		"SCHILY.xattr.security.capability":    v3,
		"SCHILY.xattr.user.overlay.opaque":    "y",
		"SCHILY.xattr.trusted.overlay.whiteo": "y",
		"LIBARCHIVE.xattr.user.l%20x":         "AAE=",
		"LIBARCHIVE.xattr.user.a":             "AAE=",
	}
	cs, info, _ := mustRead(t, tarOf(t, f))
	want := []tree.Xattr{
		{Name: "security.capability", Value: v2}, // LAWS 26
		{Name: "user.a", Value: "1"},
		{Name: "user.b", Value: "\x00\xff=\n"},
		{Name: "user.l x", Value: "\x00\x01"},
	}
	if diff := cmp.Diff(want, cs[0].Node.Xattrs); diff != "" {
		t.Errorf("xattrs (-want +got):\n%s", diff)
	}
	// LAWS 24: stripped, with a word.
	if got := strings.Join(info.Notes, "\n"); !strings.Contains(got, "user.overlay.opaque") || !strings.Contains(got, "trusted.overlay.whiteo") {
		t.Errorf("notes: got %q, want both overlay xattrs named", got)
	}
}

// LAWS 15: by magic, of one or many members; the pack holds the tar, the digests
// are those of the whole streams.
func TestReadCompressions(t *testing.T) {
	raw := tarOf(t, file("f", strings.Repeat("contents ", 100_000)))
	raw = append(raw, make([]byte, 8192)...) // GNU tar fills records
	members := append(gzipped(t, raw[:5000]), gzipped(t, raw[5000:])...)
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	frames := append(enc.EncodeAll(raw[:700], nil), enc.EncodeAll(raw[700:], nil)...)
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2}, frames...)
	for name, blob := range map[string][]byte{
		"plain": raw, "gzip": gzipped(t, raw), "gzip members": members,
		"empty member": append(gzipped(t, nil), gzipped(t, raw)...),
		"gzip padded":  append(gzipped(t, raw), make([]byte, 300_000)...),
		"zstd":         frames, "zstd skippable": skippable,
	} {
		t.Run(name, func(t *testing.T) {
			cs, info, pack := mustRead(t, blob)
			if !bytes.Equal(pack, raw) {
				t.Errorf("pack: got %d bytes, want the %d of the tar", len(pack), len(raw))
			}
			want := Info{DiffID: sum(raw), TarSize: int64(len(raw)), Size: int64(len(blob)), Notes: info.Notes}
			if diff := cmp.Diff(want, info); diff != "" {
				t.Errorf("info (-want +got):\n%s", diff)
			}
			if got, want := content(t, packs{testPack: pack}, cs[0].Node), strings.Repeat("contents ", 100_000); got != want {
				t.Errorf("contents differ: %d bytes, want %d", len(got), len(want))
			}
		})
	}
}

func sum(b []byte) tree.Digest { return tree.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(b))) }

// Zeros of the tar are holes of the pack, and its bytes are the tar's.
func TestReadLeavesHoles(t *testing.T) {
	body := "start" + strings.Repeat("\x00", 6<<20) + "end"
	raw := append(tarOf(t, file("f", body)), make([]byte, 1<<20)...)
	w, err := pack.Create(t.TempDir(), "tar")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	cs, info, err := Read(context.Background(), bytes.NewReader(gzipped(t, raw)), w.ID(), w, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(w.File().Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != int64(len(raw)) || st.Blocks*512 > 1<<20 {
		t.Errorf("pack: got %d bytes on %d, want %d bytes on less than 1 MiB", st.Size, st.Blocks*512, len(raw))
	}
	name := filepath.Base(w.File().Name())
	dir := filepath.Dir(w.File().Name())
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, strings.TrimSuffix(name, pack.PartSuffix)))
	if err != nil {
		t.Fatal(err)
	}
	if sum(got) != info.DiffID || !bytes.Equal(got, raw) {
		t.Errorf("pack: got %s, want %s", sum(got), sum(raw))
	}
	set := pack.NewSet(dir)
	defer func() { _ = set.Close() }()
	r, err := set.Open(cs[0].Node)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || string(b) != body {
		t.Errorf("contents: got %d bytes, %v, want %d", len(b), err, len(body))
	}
}

// A pack that already holds something would shift every extent.
func TestReadRefusesUsedPack(t *testing.T) {
	w, err := pack.Create(t.TempDir(), "tar")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if _, err := w.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Read(context.Background(), bytes.NewReader(tarOf(t, file("f", "1"))), w.ID(), w, Limits{}); err == nil {
		t.Error("Read: got no error for a pack that is in use")
	}
}

func TestReadPassesErrorsOn(t *testing.T) {
	boom := errors.New("boom")
	raw := tarOf(t, file("f", strings.Repeat("x", 3<<20)))
	_, _, err := Read(context.Background(), io.MultiReader(bytes.NewReader(raw[:2<<20]), errReader{boom}), testPack, io.Discard, Limits{})
	if !errors.Is(err, boom) || errors.Is(err, ErrCorrupt) {
		t.Errorf("error of the blob: got %v, want %v", err, boom)
	}
	_, _, err = Read(context.Background(), bytes.NewReader(raw), testPack, errWriter{boom}, Limits{})
	if !errors.Is(err, boom) || errors.Is(err, ErrCorrupt) {
		t.Errorf("error of the pack: got %v, want %v", err, boom)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err = Read(ctx, bytes.NewReader(raw), testPack, io.Discard, Limits{}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: got %v, want %v", err, context.Canceled)
	}
}

// A connection that breaks may say so by wrapping io.EOF; what came by then is
// not all, even where it happens to end as a tar does.
func TestReadWrappedEOF(t *testing.T) {
	raw := tarOf(t, file("f", "1"))
	cut := fmt.Errorf("connection broke: %w", io.EOF)
	for name, blob := range map[string][]byte{"plain": raw, "gzip": gzipped(t, raw)} {
		r := io.MultiReader(bytes.NewReader(blob), errReader{cut})
		if _, _, err := Read(t.Context(), r, testPack, io.Discard, Limits{}); !errors.Is(err, cut) {
			t.Errorf("%s: got %v, want %v", name, err, cut)
		}
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

type errWriter struct{ err error }

func (w errWriter) Write([]byte) (int, error) { return 0, w.err }
