package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/apex/log"
	"github.com/apex/log/handlers/discard"
	"github.com/google/go-cmp/cmp"
	umoci "github.com/opencontainers/umoci/oci/layer"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/testenv"
	"github.com/fbuild/fbuild/tree"
)

// lowerEnts is the layer below, for entries that act on something.
var lowerEnts = []ent{
	dir("d/", 0o750), file("d/old", "old"), file("d/x", "lower x"), dir("d/sub/", 0o755), file("d/sub/deep", "1"),
	dir("etc/", 0o711), file("etc/gone", "gone"), file("etc/stays", "stays"), file("top", "top"),
	dir("usr/", 0o755), dir("usr/lib/", 0o755), file("usr/lib/x", "lower lib x"), dir("real/", 0o755),
	symlink("lowlink", "usr/lib"), symlink("abslink", "/usr/lib"), file("a", "lower a"), link("a2", "a"),
}

// more cases, about the layer below.
var overLower = []struct {
	name string
	ents []ent
}{
	{"entry through a lower symlink", []ent{file("lowlink/new", "1"), file("abslink/newer", "2")}},
	{"directory over a lower symlink", []ent{dir("lowlink/", 0o700)}},
	{"file over a lower directory", []ent{file("d", "now a file")}},
	{"directory over a lower file", []ent{dir("top/", 0o700), file("top/in", "1")}},
	{"symlink over a lower directory, then through it", []ent{symlink("d", "real"), file("d/in", "1")}},
	{"missing ancestor keeps the lower one", []ent{file("etc/new", "1"), file("n/e/w", "2")}},
	{"hard link to a lower file", []ent{link("etc/a3", "a")}},
	{"hard link to a lower file that is then replaced", []ent{link("etc/top3", "top"), file("top", "upper")}},
	{"hard link through a lower symlink", []ent{link("y", "lowlink/x")}},
	{"whiteout through a lower symlink", []ent{file("lowlink/.wh.x", "")}},
	{"opaque between its entries", []ent{dir("d/", 0o755), file("d/x", "upper"), file("d/.wh..wh..opq", ""), file("d/y", "upper")}},
	{"whiteout of a lower directory", []ent{file(".wh.d", "")}},
	{"whiteout of nothing", []ent{file(".wh.nothing", ""), file("nowhere/.wh.x", ""), file("none/.wh..wh..opq", "")}},
	{"type changes", []ent{{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "a", Mode: 0o600}}, symlink("etc", "usr"), dir("lowlink/", 0o755)}},
}

// differs names the cases where umoci is known to read a tar in another way,
// and why fbuild stays with docker and containerd.
var differs = map[string]string{
	"symlink that was replaced leads nowhere":    "a missing ancestor over a lower file: umoci gives it the file's mode, containerd refuses",
	"names below a whiteout":                     "umoci makes a directory .wh.x",
	"aufs names are left out":                    "umoci takes them for whiteouts",
	"root attributes are ignored as docker does": "umoci applies them",
	"overlay whiteout device":                    "umoci makes the device",
	"times":                                      "the file system clamps the far one",
	"hard link to a lower layer":                 "the file is not there, see overLower",
	"opaque root":                                "",
	"whiteout of a directory that comes again":   "umoci keeps the lower directory's attributes",
}

// LAWS 15: the tree that the index gives is what umoci unpacks.
func TestMeaningEqualsUmoci(t *testing.T) {
	testenv.NeedRoot(t)
	log.SetHandler(discard.New())
	lower := tarOf(t, lowerEnts...)
	run := func(name string, ents []ent) {
		if differs[name] != "" {
			return
		}
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			p := packs{}
			tr := tree.Empty()
			for i, raw := range [][]byte{lower, tarOf(t, ents...)} {
				if err := umoci.UnpackLayer(root, bytes.NewReader(raw), nil); err != nil {
					t.Fatalf("umoci: layer %d: %v", i, err)
				}
				id := tree.PackID(fmt.Sprintf("tar-%032x", i))
				cs, _, err := Read(context.Background(), bytes.NewReader(gzipped(t, raw)), id, io.Discard, Limits{})
				if err != nil {
					t.Fatal(err)
				}
				p[id] = raw
				if tr, err = tr.Apply(cs); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(describeDisk(t, root), describeTree(t, p, tr)); diff != "" {
				t.Errorf("tree (-umoci +fbuild):\n%s", diff)
			}
		})
	}
	for _, c := range meaning {
		run(c.name, c.ents)
	}
	for _, c := range overLower {
		run(c.name, c.ents)
	}
}

// line describes one entry; times of just now are those that an unpacker made up
// for ancestors without an entry.
func line(p string, n *tree.Node, links []string, data string) string {
	when := fmt.Sprint(n.Mtime)
	if now := time.Now().Unix(); n.Kind == tree.Dir && (n.Mtime.Sec > now-1000 || n.Mtime.Sec == when0) {
		when = "any"
	}
	var attrs []string
	for _, x := range n.Xattrs {
		attrs = append(attrs, fmt.Sprintf("%s=%q", x.Name, x.Value))
	}
	return fmt.Sprintf("%s%04o %d:%d %s %q %d,%d ->%q =%v %v %x", n.Kind, n.Mode, n.UID, n.GID, when, p, n.Major, n.Minor, n.Target, links, attrs, sha256.Sum256([]byte(data)))
}

// when0 is the time of entries here, which fbuild gives to missing ancestors.
const when0 = int64(when)

func describeTree(t *testing.T, p packs, tr tree.Tree) []string {
	var out []string
	_ = tr.Walk(func(path string, n *tree.Node) error {
		if path == "" {
			return nil
		}
		var data string
		if n.Kind == tree.File {
			data = content(t, p, n)
		}
		out = append(out, line(path, n, n.Links(), data))
		return nil
	})
	return out
}

// diskNode reads the attributes of a file of this machine.
func diskNode(t *testing.T, path string) (*tree.Node, *syscall.Stat_t) {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := fi.Sys().(*syscall.Stat_t)
	n := &tree.Node{Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, Mtime: tree.Time{Sec: st.Mtim.Sec, Nsec: int32(st.Mtim.Nsec)}}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		n.Kind = tree.Dir
	case unix.S_IFREG:
		n.Kind, n.Size = tree.File, st.Size
	case unix.S_IFLNK:
		n.Kind = tree.Symlink
		if n.Target, err = os.Readlink(path); err != nil {
			t.Fatal(err)
		}
	case unix.S_IFIFO:
		n.Kind = tree.Fifo
	case unix.S_IFCHR, unix.S_IFBLK:
		n.Kind, n.Major, n.Minor = tree.CharDevice, unix.Major(st.Rdev), unix.Minor(st.Rdev)
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			n.Kind = tree.BlockDevice
		}
	}
	buf := make([]byte, 64<<10)
	k, err := unix.Llistxattr(path, buf)
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:max(k, 0)]), "\x00"), "\x00") {
		if name == "" || name == "security.selinux" {
			continue
		}
		value := make([]byte, 64<<10)
		k, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatal(err)
		}
		n.Xattrs = append(n.Xattrs, tree.Xattr{Name: name, Value: string(value[:k])})
	}
	n.Xattrs = tree.SortXattrs(n.Xattrs)
	return n, st
}

func describeDisk(t *testing.T, root string) []string {
	t.Helper()
	type one struct {
		path, data string
		n          *tree.Node
		ino        uint64
	}
	var all []one
	groups := map[uint64][]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		n, st := diskNode(t, path)
		o := one{path: path[len(root)+1:], n: n, ino: st.Ino}
		if n.Kind == tree.File {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			o.data = string(b)
		}
		if n.Kind != tree.Dir && st.Nlink > 1 {
			groups[st.Ino] = append(groups[st.Ino], o.path)
		}
		all = append(all, o)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b one) int { return tree.Compare(a.path, b.path) })
	var out []string
	for _, o := range all {
		links := groups[o.ino]
		slices.SortFunc(links, tree.Compare)
		if len(links) == 0 || o.n.Kind == tree.Dir {
			links = nil
		}
		out = append(out, line(o.path, o.n, links, o.data))
	}
	return out
}
