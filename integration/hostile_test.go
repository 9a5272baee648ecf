//go:build integration

package integration

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// withLayer makes a base of busybox and one more layer, given as a tar.
func withLayer(t *testing.T, dir string, tars ...[]byte) {
	t.Helper()
	files, err := busyboxFiles()
	if err != nil {
		t.Fatal(err)
	}
	bottom, err := tarOf(files...)
	if err != nil {
		t.Fatal(err)
	}
	img, err := imageOf(v1.Config{Env: []string{"PATH=/bin"}}, append([][]byte{bottom}, tars...)...)
	if err == nil {
		err = writeLayout(dir, img)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// base makes an image of busybox and layers for one home, and returns the flag
// that names it "base".
func (h *home) base(t *testing.T, tars ...[]byte) string {
	t.Helper()
	dir := filepath.Join(h.dir, "base")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	withLayer(t, dir, tars...)
	return "--build-context=base=oci-layout://" + dir
}

func mustTar(t *testing.T, files ...file) []byte {
	t.Helper()
	data, err := tarOf(files...)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestStrangeLayers: absolute names, "..", links out of the root and device nodes
// occur in real bases: they are contained (LAWS 15), and nothing outside the root
// is read, written or opened (LAWS 19).
func TestStrangeLayers(t *testing.T) {
	eachLeg(t, func(t *testing.T, h *home) {
		outside := filepath.Join(h.dir, "outside")
		if err := os.Mkdir(outside, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := h.give(outside); err != nil {
			t.Fatal(err)
		}
		up := strings.Repeat("../", 12)
		flag := h.base(t, mustTar(t,
			file{name: "/absolute", data: "contained", mode: 0o644},
			file{name: up + "dotdot", data: "contained", mode: 0o644},
			file{name: "bin/../sideways", data: "contained", mode: 0o644},
			file{name: "out", link: outside, mode: 0o777},
			file{name: "out/through", data: "contained", mode: 0o644},
			file{name: "up", link: up + strings.TrimPrefix(outside, "/"), mode: 0o777},
			file{name: "up/through2", data: "contained", mode: 0o644},
			file{name: "hard", hard: up + "etc/passwd"},
			file{name: "dev/sda", kind: tar.TypeBlock, major: 254, minor: 0, mode: 0o666},
			file{name: "mem", kind: tar.TypeChar, major: 1, minor: 1, mode: 0o666},
			file{name: "disk", kind: tar.TypeBlock, major: 254, minor: 0, mode: 0o666},
			file{name: "pipe", kind: tar.TypeFifo, mode: 0o666},
		))
		devices := "RUN test -c /mem && test -b /disk && ! head -c 1 /mem && ! head -c 1 /disk && ! echo x > /disk"
		if h.recorder == "walk" {
			devices = "RUN test ! -c /mem && test ! -b /disk" // nobody can make one in a user namespace
		}
		h.dockerfile("FROM base",
			"RUN for f in /absolute /dotdot /sideways "+outside+"/through "+outside+"/through2; do grep -q contained $f || exit 9; done",
			"RUN grep -q root: /hard && test ! -e "+outside+"/secret",
			"# LAWS 19: a device node of a base can't be opened",
			devices,
			"RUN test -p /pipe",
			"RUN ! cat /out/secret && ! cat /up/secret && echo written > /out/written",
			"COPY Dockerfile /out/copied",
			"COPY --from=base /up /fromup/",
			"RUN test -f "+outside+"/copied && test -f "+outside+"/written && test ! -e /fromup/secret",
		)
		h.ok("build", flag, "-t", "strange", "-o", "type=image", "-o", "type=local,dest="+filepath.Join(h.ctx, "local"), ".")
		list, err := os.ReadDir(outside)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) != 1 {
			t.Errorf("outside the root: got %v, want the one file that was there", list)
		}
		for _, name := range []string{"mem", "disk"} {
			if st, err := os.Lstat(filepath.Join(h.ctx, "local", name)); err == nil && st.Mode()&os.ModeDevice != 0 && h.uid != 0 {
				t.Errorf("local output: %s is a device", name)
			}
		}
	})
}

// rawBase writes an image of one layer whose blob may be anything.
func rawBase(t *testing.T, dir string, blob []byte, diffID string) {
	t.Helper()
	put := func(data []byte) map[string]any {
		sum := sha256.Sum256(data)
		hash := hex.EncodeToString(sum[:])
		p := filepath.Join(dir, "blobs", "sha256", hash)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return map[string]any{"digest": "sha256:" + hash, "size": len(data)}
	}
	marshal := func(v any) []byte {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	layer := put(blob)
	layer["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip"
	config := put(marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{diffID}},
	}))
	config["mediaType"] = "application/vnd.oci.image.config.v1+json"
	manifest := put(marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": []any{layer},
	}))
	manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json"
	index := marshal(map[string]any{"schemaVersion": 2, "manifests": []any{manifest}})
	for name, data := range map[string][]byte{"index.json": index, "oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func gzipped(t *testing.T, write func(w io.Writer) error) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if err := write(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// TestBrokenLayers: layers that nobody could unpack, or that would fill the disk.
func TestBrokenLayers(t *testing.T) {
	good := mustTar(t, file{name: "f", data: strings.Repeat("x", 3000), mode: 0o644})
	goodGz := gzipped(t, func(w io.Writer) error { _, err := w.Write(good); return err })
	zeros := make([]byte, 1<<20)
	bomb := func(w io.Writer) error {
		tw := tar.NewWriter(w)
		if err := tw.WriteHeader(&tar.Header{Name: "zeros", Mode: 0o644, Size: 10 << 30}); err != nil {
			return err
		}
		for range 10 << 10 {
			if _, err := tw.Write(zeros); err != nil {
				return err
			}
		}
		return tw.Close()
	}
	tests := map[string]struct {
		blob   []byte
		diffID string
		want   string
	}{
		"wrong diffID":           {goodGz, digestOf([]byte("else")), "digest"},
		"cut off":                {goodGz[:len(goodGz)-20], digestOf(good), ""},
		"no gzip at all":         {[]byte("this is no archive, and longer than a magic number"), digestOf(good), ""},
		"tar cut off in a file":  {gzipped(t, func(w io.Writer) error { _, err := w.Write(good[:1500]); return err }), digestOf(good[:1500]), ""},
		"bit flip in the stream": {flipped(goodGz), digestOf(good), ""},
		"checksum of a header":   {gzipped(t, func(w io.Writer) error { _, err := w.Write(flippedAt(good, 110)); return err }), digestOf(flippedAt(good, 110)), ""},
		"10 GiB of zeros":        {nil, digestOf(nil), ""},
		"a hard link to nowhere": {gzipped(t, func(w io.Writer) error { _, err := w.Write(mustTar(t, file{name: "l", hard: "nowhere"})); return err }), digestOf(mustTar(t, file{name: "l", hard: "nowhere"})), "nowhere"},
		"a link target too long": {gzipped(t, func(w io.Writer) error {
			_, err := w.Write(mustTar(t, file{name: "l", link: strings.Repeat("a/", 3000)}))
			return err
		}), digestOf(mustTar(t, file{name: "l", link: strings.Repeat("a/", 3000)})), ""},
		"a name that is too long": {gzipped(t, func(w io.Writer) error {
			_, err := w.Write(mustTar(t, file{name: strings.Repeat("n", 300), mode: 0o644}))
			return err
		}), digestOf(mustTar(t, file{name: strings.Repeat("n", 300), mode: 0o644})), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.blob == nil {
				if testing.Short() {
					t.Skip("compresses 10 GiB")
				}
				tt.blob = bombBlob(t, bomb)
			}
			h := newHome(t, legs(name)[0])
			dir := filepath.Join(h.dir, "bad")
			rawBase(t, dir, tt.blob, tt.diffID)
			h.dockerfile("FROM base", `RUN ["/f"]`)
			h.fails(1, tt.want, "", "build", "--build-context=base=oci-layout://"+dir, "-o", "type=oci,dest=out.tar", ".")
			if size := duDir(t, h.store); size > 1<<30 {
				t.Errorf("store: got %d bytes after a refusal", size)
			}
		})
	}
}

// bombBlob compresses once and keeps the result: it takes a while.
func bombBlob(t *testing.T, write func(w io.Writer) error) []byte {
	t.Helper()
	dir, err := cachedBase("bomb", "10 GiB of zeros 1", func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "blob"), gzipped(t, write), 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "blob"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func flipped(b []byte) []byte { return flippedAt(b, len(b)/2) }

func flippedAt(b []byte, i int) []byte {
	out := bytes.Clone(b)
	out[i] ^= 4
	return out
}

// duDir adds up what the files of a directory take on the disk.
func duDir(t *testing.T, dir string) int64 {
	t.Helper()
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if st, err := d.Info(); err == nil {
			sum += blocks(st)
		}
		return nil
	})
	if err != nil {
		t.Fatal(fmt.Errorf("measure store: %w", err))
	}
	return sum
}

// blocks is what a file takes on the disk, in bytes.
func blocks(st os.FileInfo) int64 {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return s.Blocks * 512
	}
	return st.Size()
}
