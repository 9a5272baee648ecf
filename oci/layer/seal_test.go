package layer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"errors"
	"io"
	osexec "os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/fbuild/fbuild/tree"
)

func seal(t testing.TB, cs tree.Changes, c Contents, o Options) ([]byte, Sealed) {
	t.Helper()
	var blob bytes.Buffer
	s, err := Seal(context.Background(), &blob, cs, c, o)
	if err != nil {
		t.Fatalf("Seal: %v", err)
	}
	return blob.Bytes(), s
}

func nodeAt(k tree.Kind, mode uint32) *tree.Node {
	return &tree.Node{Kind: k, Mode: mode, Mtime: tree.Time{Sec: when, Nsec: 999}}
}

func fileNode(data packs, body string) *tree.Node {
	n := nodeAt(tree.File, 0o644)
	if body != "" {
		n.Size, n.Extents = int64(len(body)), []tree.Extent{{Pack: spoolPack, Off: int64(len(data[spoolPack])), Len: int64(len(body))}}
		data[spoolPack] = append(data[spoolPack], body...)
	}
	return n
}

// sample has an entry of every kind.
func sample() (tree.Changes, packs) {
	p := packs{}
	shared := fileNode(p, "shared")
	shared.Xattrs = []tree.Xattr{{Name: "security.capability", Value: "\x01\x00\x00\x02" + strings.Repeat("\x01", 16)}, {Name: "user.x", Value: "y"}}
	sym := nodeAt(tree.Symlink, 0o777)
	sym.Target, sym.Size = "motd", 4
	null := nodeAt(tree.CharDevice, 0o666)
	null.Major, null.Minor = 1, 3
	suid := fileNode(p, "#!")
	suid.Mode, suid.UID, suid.GID = 0o4755, 3_000_000_000, 7
	cs := tree.Changes{
		{Path: "dev", Node: nodeAt(tree.Dir, 0o755)},
		{Path: "dev/null", Node: null},
		{Path: "dev/pipe", Node: nodeAt(tree.Fifo, 0o600)},
		{Path: "etc", Node: nodeAt(tree.Dir, 0o1777), Opaque: true},
		{Path: "etc/gone"},
		{Path: "etc/mtab", Node: sym},
		{Path: "etc/z-shared", Node: shared},
		{Path: "lib", Opaque: true},
		{Path: "motd", Node: fileNode(p, "hello\n")},
		{Path: "shared", Node: shared},
		{Path: "suid", Node: suid},
		{Path: "\u00fc", Node: nodeAt(tree.File, 0o600)},
	}
	cs.Sort()
	return cs, p
}

// What docker, containerd and every Go tool read: the golden form of a tar.
func TestSealHeaders(t *testing.T) {
	cs, p := sample()
	blob, s := seal(t, cs, p, Options{Compression: "uncompressed"})
	if s.Digest != s.DiffID || s.MediaType != mediaTar || s.Size != int64(len(blob)) {
		t.Errorf("sealed: got %+v", s)
	}
	var got []string
	r := tar.NewReader(bytes.NewReader(blob))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uname+h.Gname != "" || h.ModTime.Nanosecond() != 0 || !h.AccessTime.IsZero() || !h.ChangeTime.IsZero() {
			t.Errorf("%q: got names, a fraction of a second, atime or ctime: %+v", h.Name, h)
		}
		n := 0
		for k := range h.PAXRecords {
			if strings.HasPrefix(k, paxXattr) {
				n++
			}
		}
		got = append(got, strings.Join([]string{string(h.Typeflag), h.Format.String(), h.FileInfo().Mode().String(), h.Name, h.Linkname, strings.Repeat("X", n)}, " "))
	}
	want := []string{
		"5 USTAR drwxr-xr-x dev/  ",
		"3 USTAR Dcrw-rw-rw- dev/null  ",
		"6 USTAR prw------- dev/pipe  ",
		"5 USTAR dtrwxrwxrwx etc/  ",
		"0 USTAR ---------- etc/.wh..wh..opq  ",
		"0 USTAR ---------- etc/.wh.gone  ",
		"2 USTAR Lrwxrwxrwx etc/mtab motd ",
		"0 PAX -rw-r--r-- etc/z-shared  XX",
		"0 USTAR ---------- lib/.wh..wh..opq  ",
		"0 USTAR -rw-r--r-- motd  ",
		"1 PAX -rw-r--r-- shared etc/z-shared XX",
		"0 PAX urwxr-xr-x suid  ",
		"0 PAX -rw------- ü  ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

// The bytes are a promise to every cache: a change of this digest changes the
// digest of every image.
func TestSealBytes(t *testing.T) {
	cs, p := sample()
	_, s := seal(t, cs, p, Options{})
	const want = "sha256:983f7850feb840172eec6dd69abfca4ba40c49b6a095fc873cf8048c312fd225"
	if s.DiffID != want {
		t.Errorf("DiffID: got %s, want %s", s.DiffID, want)
	}
}

// Same input, same bytes, whatever the number of cores; one member (LAWS 28).
func TestSealIsDeterministic(t *testing.T) {
	p := packs{spoolPack: compressible(7 << 19)}
	n := nodeAt(tree.File, 0o644)
	n.Size, n.Extents = 7<<19, []tree.Extent{{Pack: spoolPack, Len: 7 << 19}}
	cs := tree.Changes{{Path: "big", Node: n}, {Path: "e", Node: nodeAt(tree.File, 0o600)}}
	for _, codec := range []string{"gzip", "zstd"} {
		t.Run(codec, func(t *testing.T) {
			var want []byte
			for _, procs := range []int{1, 2} {
				old := runtime.GOMAXPROCS(procs)
				got, _ := seal(t, cs, slowContents{p}, Options{Compression: codec})
				runtime.GOMAXPROCS(old)
				if want == nil {
					want = got
				}
				if !bytes.Equal(got, want) {
					t.Errorf("%d processors: got %s, want %s", procs, sum(got), sum(want))
				}
			}
			if codec == "gzip" {
				oneMember(t, want)
			}
		})
	}
}

func oneMember(t *testing.T, blob []byte) {
	t.Helper()
	if got, want := hex.EncodeToString(blob[:10]), "1f8b08000000000000ff"; got != want {
		t.Errorf("gzip header: got %s, want %s: no time, no name, no system", got, want)
	}
	r := bytes.NewReader(blob)
	z, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	z.Multistream(false)
	if _, err := io.Copy(io.Discard, z); err != nil {
		t.Fatal(err)
	}
	if r.Len() != 0 {
		t.Errorf("behind the first gzip member: got %d bytes, want none", r.Len())
	}
}

// compressible gives bytes with some order in them.
func compressible(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = "the quick brown fox"[x>>28]
	}
	return b
}

// slowContents hands out few bytes at a time, as a pipe might.
type slowContents struct{ packs }

func (c slowContents) Open(n *tree.Node) (io.ReadCloser, error) {
	r, err := c.packs.Open(n)
	return io.NopCloser(iotest.HalfReader(r)), err
}

func TestSealRefuses(t *testing.T) {
	withX := func(name, value string) *tree.Node {
		n := nodeAt(tree.File, 0o644)
		n.Xattrs = []tree.Xattr{{Name: name, Value: value}}
		return n
	}
	sym := func(target string) *tree.Node {
		n := nodeAt(tree.Symlink, 0o777)
		n.Target = target
		return n
	}
	cases := []struct {
		name string
		cs   tree.Changes
		want string
	}{
		// LAWS 21
		{"long name", tree.Changes{{Path: "d/" + strings.Repeat("n", 256), Node: nodeAt(tree.File, 0)}}, "256 bytes"},
		{"long path", tree.Changes{{Path: strings.Repeat("d/", 2048) + "f", Node: nodeAt(tree.File, 0)}}, "4097 bytes"},
		{"long target", tree.Changes{{Path: "s", Node: sym(strings.Repeat("t", 4096))}}, "4096 bytes"},
		{"empty target", tree.Changes{{Path: "s", Node: sym("")}}, "0 bytes"},
		{"large xattr", tree.Changes{{Path: "f", Node: withX("user.x", strings.Repeat("v", 64<<10+1))}}, "user.x"},
		{"xattr with an equals sign", tree.Changes{{Path: "f", Node: withX("user.a=b", "")}}, "cannot stand in a tar"},
		// LAWS 24.
		{"whiteout name", tree.Changes{{Path: "d/.wh.f", Node: nodeAt(tree.File, 0)}}, "deletions"},
		{"below a whiteout name", tree.Changes{{Path: ".wh.d/f"}}, "deletions"},
		{"overlay whiteout device", tree.Changes{{Path: "c", Node: nodeAt(tree.CharDevice, 0)}}, "0/0"},
		{"unclean path", tree.Changes{{Path: "../f", Node: nodeAt(tree.File, 0)}}, "not clean"},
		{"NUL", tree.Changes{{Path: "f\x00", Node: nodeAt(tree.File, 0)}}, "NUL"},
		{"out of order", tree.Changes{{Path: "b"}, {Path: "a"}}, `"a" stands behind "b"`},
		{"twice", tree.Changes{{Path: "a"}, {Path: "a"}}, `"a" stands behind "a"`},
		{"no root", tree.Changes{{Path: ""}}, "root"},
		{"link below", tree.Changes{{Path: "a", LinkTo: "b"}}, "layer below"},
		{"unknown kind", tree.Changes{{Path: "a", Node: &tree.Node{}}}, "kind"},
		{"extents too short", tree.Changes{{Path: "a", Node: &tree.Node{Kind: tree.File, Size: 5, Extents: []tree.Extent{{Len: 4}}}}}, "4 of 5 bytes"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := Seal(context.Background(), io.Discard, c.cs, packs{}, Options{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Seal: got %v, want an error with %q", err, c.want)
			}
		})
	}
	for _, o := range []Options{{Compression: "lzma"}, {Level: 10}, {Compression: "zstd", Level: 23}} {
		if _, err := Seal(context.Background(), io.Discard, nil, nil, o); err == nil {
			t.Errorf("Seal with %+v: got no error", o)
		}
	}
}

// LAWS 24.
func TestSealStripsOverlayXattrs(t *testing.T) {
	n := nodeAt(tree.Dir, 0o755)
	n.Xattrs = []tree.Xattr{{Name: "trusted.overlay.opaque", Value: "y"}, {Name: "user.overlay.opaque", Value: "y"}}
	blob, s := seal(t, tree.Changes{{Path: "d", Node: n}}, packs{}, Options{})
	if len(s.Notes) != 2 {
		t.Errorf("notes: got %q, want two", s.Notes)
	}
	cs, _, _ := mustRead(t, blob)
	if got := cs[0].Node.Xattrs; got != nil {
		t.Errorf("xattrs: got %v, want none", got)
	}
}

type fixed string

func (f fixed) Open(*tree.Node) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(string(f))), nil
}

type broken struct{ err error }

func (b broken) Open(*tree.Node) (io.ReadCloser, error) { return io.NopCloser(errReader(b)), nil }

func TestSealChecksContents(t *testing.T) {
	n := nodeAt(tree.File, 0o644)
	n.Size = 10
	cs := tree.Changes{{Path: "dir/f", Node: n}}
	boom := errors.New("boom")
	cases := []struct {
		name string
		c    Contents
		want string
	}{
		{"short", fixed("123456789"), `"dir/f" to the layer: contents end 1 bytes early`},
		{"long", fixed("12345678901"), "longer than 10 bytes"},
		{"broken", broken{boom}, "boom"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := Seal(context.Background(), io.Discard, cs, c.c, Options{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Seal: got %v, want an error with %q", err, c.want)
			}
		})
	}
	for _, codec := range []string{"gzip", "zstd", "uncompressed"} {
		if _, err := Seal(context.Background(), errWriter{boom}, cs, fixed("1234567890"), Options{Compression: codec}); !errors.Is(err, boom) {
			t.Errorf("%s: error of the blob: got %v, want %v", codec, err, boom)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Seal(ctx, io.Discard, cs, fixed("1234567890"), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: got %v, want %v", err, context.Canceled)
	}
}

func TestClampMtime(t *testing.T) {
	old, young := nodeAt(tree.File, 0o644), nodeAt(tree.Dir, 0o755)
	old.Mtime, young.Mtime = tree.Time{Sec: 5, Nsec: 7}, tree.Time{Sec: 1000}
	blob, _ := seal(t, tree.Changes{{Path: "a", Node: old}, {Path: "b", Node: young}, {Path: "c"}}, packs{}, Options{ClampMtime: &tree.Time{Sec: 100}})
	cs, _, _ := mustRead(t, blob)
	if got, want := tree.Format(cs), "-0644 0:0 5 0 a\nd0755 0:0 100 b\nx c\n"; got != want {
		t.Errorf("changes: got\n%swant\n%s", got, want)
	}
}

// Tools that are no Go read it.
func TestSealForOthers(t *testing.T) {
	cs, p := sample()
	blob, _ := seal(t, cs, p, Options{})
	name := writeFile(t, "layer.tar.gz", blob)
	for _, argv := range [][]string{{"gzip", "-t", name}, {"tar", "tvf", name}} {
		path, err := osexec.LookPath(argv[0])
		if err != nil {
			t.Logf("%s is not installed", argv[0])
			continue
		}
		out, err := osexec.CommandContext(t.Context(), path, argv[1:]...).CombinedOutput()
		if err != nil {
			t.Errorf("%v: %v\n%s", argv, err, out)
		}
		if argv[0] == "tar" && (strings.Contains(string(out), "Ignoring") || !strings.Contains(string(out), "shared link to etc/z-shared")) {
			t.Errorf("%v: got\n%s", argv, out)
		}
	}
}

func TestWriteTarEqualsSeal(t *testing.T) {
	cs, p := sample()
	blob, _ := seal(t, cs, p, Options{Compression: "uncompressed"})
	var got bytes.Buffer
	if err := WriteTar(context.Background(), &got, cs, p, Options{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), blob) {
		t.Errorf("WriteTar: got %s, want what Seal wrote, %s", sum(got.Bytes()), sum(blob))
	}
	boom := errors.New("boom")
	if err := WriteTar(context.Background(), errWriter{boom}, cs, p, Options{}); !errors.Is(err, boom) {
		t.Errorf("WriteTar: got %v, want %v", err, boom)
	}
}

// endless gives any number of bytes without holding them.
type endless struct{ block []byte }

func (e endless) Open(n *tree.Node) (io.ReadCloser, error) {
	return io.NopCloser(io.LimitReader(&cycle{b: e.block}, n.Size)), nil
}

type cycle struct {
	b  []byte
	at int
}

func (c *cycle) Read(p []byte) (int, error) {
	n := copy(p, c.b[c.at:])
	c.at = (c.at + n) % len(c.b)
	return n, nil
}

// Memory does not grow with the files.
func TestSealMemory(t *testing.T) {
	old := debug.SetGCPercent(10)
	defer debug.SetGCPercent(old)
	n := nodeAt(tree.File, 0o644)
	n.Size, n.Extents = 96<<20, []tree.Extent{{Pack: spoolPack, Len: 96 << 20}}
	var before, after runtime.MemStats
	var peak uint64
	runtime.GC()
	runtime.ReadMemStats(&before)
	sample := func() {
		runtime.ReadMemStats(&after)
		peak = max(peak, after.HeapAlloc-min(before.HeapAlloc, after.HeapAlloc))
	}
	var out counter
	w := writerFunc(func(p []byte) (int, error) {
		if out.n>>20 != (out.n+int64(len(p)))>>20 {
			sample()
		}
		return out.Write(p)
	})
	if _, err := Seal(context.Background(), w, tree.Changes{{Path: "f", Node: n}}, endless{compressible(1 << 20)}, Options{Level: 1}); err != nil {
		t.Fatal(err)
	}
	if peak == 0 || peak > 48<<20 {
		t.Errorf("heap while sealing %d bytes: got %d more, want less than 48 MiB", n.Size, peak)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
