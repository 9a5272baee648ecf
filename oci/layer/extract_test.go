package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	osexec "os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/fbuild/fbuild/tree"
)

func extract(blob []byte) (tree.Changes, Info, []byte, error) {
	var pack bytes.Buffer
	cs, info, err := Extract(context.Background(), bytes.NewReader(blob), testPack, &pack, Limits{})
	return cs, info, pack.Bytes(), err
}

func TestExtractCompressions(t *testing.T) {
	raw := tarOf(t, dir("./", 0o755), dir("./d/", 0o700), file("./d/f", strings.Repeat("x", 1000)), link("./d/g", "d/f"))
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	var x bytes.Buffer
	w, err := xz.NewWriter(&x)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	blobs := map[string][]byte{"plain": raw, "gzip": gzipped(t, raw), "zstd": enc.EncodeAll(raw, nil), "xz": x.Bytes()}
	if path, err := osexec.LookPath("bzip2"); err == nil {
		cmd := osexec.CommandContext(t.Context(), path, "-c")
		cmd.Stdin = bytes.NewReader(raw)
		if blobs["bzip2"], err = cmd.Output(); err != nil {
			t.Fatal(err)
		}
	}
	want := "d0700 0:0 1700000000 d\n-0644 0:0 1700000000 1000 d/f\n-0644 0:0 1700000000 1000 d/g = d/f\n"
	for name, blob := range blobs {
		t.Run(name, func(t *testing.T) {
			cs, info, pack, err := extract(blob)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, tree.Format(cs)); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			if !bytes.Equal(pack, raw) || info.DiffID != sum(raw) {
				t.Errorf("info: got %+v", info)
			}
			if info.Notes != nil {
				t.Errorf("notes: got %q, want none", info.Notes)
			}
		})
	}
}

// A file is an archive by what is in it, as for docker; nothing is written for
// one that is not.
func TestExtractNotArchive(t *testing.T) {
	for name, blob := range map[string][]byte{
		"empty": nil, "short": []byte("x"), "text": bytes.Repeat([]byte("not a tar "), 200_000), "zeros": make([]byte, 4096),
		"gzip of text": gzipped(t, []byte(strings.Repeat("text", 10_000))), "gzip of nothing": gzipped(t, nil), "gzip magic": {0x1f, 0x8b}, "gzip damaged": append([]byte{0x1f, 0x8b, 8}, bytes.Repeat([]byte{0xff}, 50)...),
		"zstd magic": {0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3, 4}, "bzip2 magic": []byte("BZh91AY&SY and so on and so on"), "xz magic": append(bytes.Clone(magicXz), "and so on and so on"...),
	} {
		t.Run(name, func(t *testing.T) {
			_, _, pack, err := extract(blob)
			if !errors.Is(err, ErrNotArchive) {
				t.Errorf("Extract: got %v, want %v", err, ErrNotArchive)
			}
			if len(pack) > 0 {
				t.Errorf("pack: got %d bytes, want none", len(pack))
			}
		})
	}
}

func TestExtractRefuses(t *testing.T) {
	raw := tarOf(t, file("f", strings.Repeat("x", 400_000)))
	for name, c := range map[string]struct {
		blob []byte
		want string
	}{
		// LAWS 24
		"whiteout":              {tarOf(t, file("a/.wh.b", "")), `"a/.wh.b": names that start with ".wh."`},
		"opaque":                {tarOf(t, file(".wh..wh..opq", "")), "deletions"},
		"aufs":                  {tarOf(t, dir(".wh..wh.plnk", 0o700)), "deletions"},
		"link out of it":        {tarOf(t, link("l", "/etc/passwd")), `"l" is a hard link to "/etc/passwd"`},
		"link to a later entry": {tarOf(t, link("l", "f"), file("f", "")), "not in the archive before it"},
		"cut short":             {raw[:300_000], "ends early"},
		"gzip cut short":        {gzipped(t, raw)[:300], "cut short"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, _, err := extract(c.blob)
			if !errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNotArchive) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Extract: got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestExtractKeepsOwnersAndDevices(t *testing.T) {
	cs, info, _, err := extract(tarOf(t,
		ent{Header: tar.Header{Typeflag: tar.TypeChar, Name: "tty", Mode: 0o620, Uid: 1, Gid: 5, Devmajor: 5}},
		ent{Header: tar.Header{Typeflag: tar.TypeChar, Name: "gone"}}))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tree.Format(cs), "c0620 1:5 1700000000 5,0 tty\n"; got != want {
		t.Errorf("changes: got %q, want %q", got, want)
	}
	if len(info.Notes) != 1 { // LAWS 24: with a word
		t.Errorf("notes: got %q, want one", info.Notes)
	}
}
