package layer

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fbuild/fbuild/tree"
)

var readersDir = flag.String("readers", "", "directory in which TestEdgesForReaders has other programs read layers, some of them of more than 4 GiB")

// edges are layers at the edges of frames, of gzip's fields and of the tar's.
func edges() (map[string]tree.Changes, packs) {
	const random = "spool-22222222222222222222222222222222"
	data := make([]byte, 5<<20)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(data) // never fails
	file := func(path string, size int64) tree.Change {
		n := nodeAt(tree.File, 0o644)
		n.Size = size
		if size > 0 {
			n.Extents = []tree.Extent{{Pack: random, Len: size}}
		}
		return tree.Change{Path: path, Node: n}
	}
	sizes := func(sizes ...int64) (cs tree.Changes) {
		for i, n := range sizes {
			cs = append(cs, file(fmt.Sprintf("f%02d", i), n))
		}
		return cs
	}
	sparse := file("sparse", 5<<30)
	sparse.Node.Extents = []tree.Extent{{Len: 5<<30 - 4096}, {Pack: random, Len: 4096}}
	var tiny tree.Changes
	for i := range 30_000 {
		tiny = append(tiny, file(fmt.Sprintf("t%05d", i), int64(i%7)))
	}
	name := strings.Repeat("n", 255)
	return map[string]tree.Changes{
		"nothing":         nil,
		"empty files":     sizes(0, 0, 0),
		"around a frame":  sizes(64<<10-1, 64<<10, 64<<10+1, 0, 1<<20-1, 1<<20, 1<<20+1, 2<<20, 16<<10-512, 16<<10),
		"frames only":     sizes(1<<20, 1<<20, 4<<20),
		"a full group":    sizes(64<<10-512, 64<<10-512, 64<<10-512, 64<<10-512, 64<<10-512, 64<<10-512, 64<<10-512, 64<<10-512, 64<<10-512, 64<<10-512, 64<<10-512, 64<<10-512, 64<<10-512, 64<<10-512, 64<<10-512, 64<<10-512, 1),
		"sparse, 5 GiB":   {sparse},
		"30,000 tiny":     tiny,
		"long, odd names": {file(name, 1), file(strings.Repeat(name+"/", 15)+"\xff\n", 70_000)},
	}, packs{random: data}
}

// Layers at every edge are one gzip member that ends where the blob does (LAWS 28),
// and its bytes are the tar.
func TestEdgesAreOneMember(t *testing.T) {
	all, p := edges()
	for name, cs := range all {
		t.Run(name, func(t *testing.T) {
			blob, s := seal(t, cs, p, Options{})
			in := bytes.NewReader(blob)
			z, err := gzip.NewReader(in)
			if err != nil {
				t.Fatal(err)
			}
			z.Multistream(false)
			sum := sha256.New()
			n, err := io.Copy(sum, z)
			if err != nil || n != s.TarSize || digest(sum) != s.DiffID {
				t.Errorf("got %d bytes, %s, %v, want %d, %s", n, digest(sum), err, s.TarSize, s.DiffID)
			}
			if in.Len() > 0 {
				t.Errorf("%d bytes stand behind the member", in.Len())
			}
		})
	}
}

// gunzipJava prints how many bytes java's GZIPInputStream finds.
const gunzipJava = `import java.io.*; import java.util.zip.*;
public class Gunzip { public static void main(String[] a) throws Exception { for (String f : a) {
	InputStream in = new GZIPInputStream(new FileInputStream(f)); byte[] b = new byte[1 << 16]; long n = 0;
	for (int k; (k = in.read(b)) >= 0;) n += k; System.out.println(n); } } }
`

// TestEdgesForReaders has gzip, python3, java and zstd read layers to their ends. It is
// run by hand, with -readers.
func TestEdgesForReaders(t *testing.T) {
	if *readersDir == "" {
		return // not a skip: CI counts those
	}
	all, p := edges()
	const zero = "spool-33333333333333333333333333333333"
	p[zero] = make([]byte, 4<<20)
	huge := nodeAt(tree.File, 0o644)
	for range 1100 {
		huge.Extents = append(huge.Extents, tree.Extent{Pack: zero, Len: 4 << 20})
		huge.Size += 4 << 20
	}
	all["more than gzip can count"] = tree.Changes{{Path: "huge", Node: huge}}
	java := filepath.Join(*readersDir, "Gunzip.java")
	if err := os.WriteFile(java, []byte(gunzipJava), 0o600); err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(*readersDir, "blob")
	const python = "import gzip,sys\nn=0\nwith gzip.open(sys.argv[1]) as f:\n while (b:=f.read(1<<20)): n+=len(b)\nprint(n)"
	for name, cs := range all {
		for codec, readers := range map[string][][]string{
			"gzip": {{"sh", "-c", "gzip -t $0 && gzip -dc $0 | wc -c", blob}, {"python3", "-c", python, blob}, {"java", java, blob}},
			"zstd": {{"sh", "-c", "zstd -dc $0 | wc -c", blob}},
		} {
			f, err := os.Create(blob)
			if err != nil {
				t.Fatal(err)
			}
			s, err := Seal(t.Context(), f, cs, p, Options{Compression: codec})
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, argv := range readers {
				out, err := osexec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
				if got, want := strings.TrimSpace(string(out)), fmt.Sprint(s.TarSize); err != nil || got != want {
					t.Errorf("%s, %s, %s: got %s, %v, want %s", name, codec, argv[0], got, err, want)
				} else {
					t.Logf("%s, %s, %s: %s bytes", name, codec, argv[0], got)
				}
			}
		}
	}
}
