package trace

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strconv"

	"github.com/fbuild/fbuild/tree"
)

// AnswerOptions say how answers are made.
type AnswerOptions struct {
	// Times puts modification times into answers of the kind Entry.
	Times bool
	// Digest returns the digest of a file's bytes where the node does not know it. With
	// none, such a question is an error.
	Digest func(n *tree.Node) (tree.Digest, error)
}

// absent is the answer to every question about what is not there. A path below
// something that is no directory is not there, and neither is one through a symlink:
// the kernel asks for what the symlink leads to by its own name.
const absent = "absent"

// empty is the digest of no bytes.
const empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// Answer returns what t has at the question's path, in one line.
//
//	entry    "absent", or kind, mode, uid:gid and, but for directories, link count and
//	         size; "~" and the bytes that are stored of a file with holes; "dev"
//	         major:minor of a device; "=" and the first name of a file with several,
//	         which gives its inode number; with Times "@" and the time
//	list     number of names, digest of names, kinds and, of files with several names, first names
//	content  digest of the bytes, "sha256:" and hex; of a file with holes "~" and a digest
//	         of where they lie, which SEEK_HOLE tells
//	link     "->" and the target
//	xattr    number of attributes, digest of names and values
//	names    number of names, digest of them
//	time     "@", seconds, nanoseconds
//
// Where the entry is of a kind that has no list, content or target, the answer is its kind.
func Answer(t tree.Tree, q Question, o AnswerOptions) (string, error) {
	return AnswerOf(t.Lookup(q.Path), q, o)
}

// AnswerOf is Answer where n stands at the question's path; nil for nothing.
func AnswerOf(n *tree.Node, q Question, o AnswerOptions) (string, error) {
	b, err := appendAnswer(nil, n, q, o)
	return string(b), err
}

func appendAnswer(b []byte, n *tree.Node, q Question, o AnswerOptions) ([]byte, error) {
	if n == nil {
		return append(b, absent...), nil
	}
	switch q.Kind {
	case Entry:
		return appendEntry(b, n, o), nil
	case List:
		if n.Kind == tree.Dir {
			return appendList(b, n), nil
		}
	case Content:
		if n.Kind == tree.File {
			return appendContent(b, n, q, o)
		}
	case Link:
		if n.Kind == tree.Symlink {
			return append(append(b, "-> "...), n.Target...), nil
		}
	case Xattr:
		return appendXattrs(b, n), nil
	case Names:
		return appendNames(b, n, q.Path), nil
	case Time:
		return appendTime(b, n), nil
	default:
		return nil, fmt.Errorf("answer about %q: no question of kind %d", q.Path, q.Kind)
	}
	return append(append(b, "kind "...), n.Kind.String()...), nil
}

// appendEntry has all that a reply of LOOKUP carries, the inode number by what it is
// made of. Size and link count of directories are constant.
func appendEntry(b []byte, n *tree.Node, o AnswerOptions) []byte {
	b = append(append(b, n.Kind.String()...), ' ')
	b = strconv.AppendUint(b, uint64(n.Mode), 8)
	b = strconv.AppendUint(append(b, ' '), uint64(n.UID), 10)
	b = strconv.AppendUint(append(b, ':'), uint64(n.GID), 10)
	if n.Kind != tree.Dir {
		b = strconv.AppendInt(append(b, ' '), int64(n.Nlink()), 10)
		b = strconv.AppendInt(append(b, ' '), n.Size, 10)
	}
	if stored := storedBytes(n); stored != n.Size && n.Kind == tree.File {
		b = strconv.AppendInt(append(b, " ~"...), stored, 10)
	}
	if n.Kind == tree.CharDevice || n.Kind == tree.BlockDevice {
		b = strconv.AppendUint(append(b, " dev "...), uint64(n.Major), 10)
		b = strconv.AppendUint(append(b, ':'), uint64(n.Minor), 10)
	}
	if o.Times {
		b = appendTime(append(b, ' '), n)
	}
	if links := n.Links(); len(links) > 1 {
		b = append(append(b, " ="...), links[0]...)
	}
	return b
}

func appendTime(b []byte, n *tree.Node) []byte {
	b = strconv.AppendInt(append(b, '@'), n.Mtime.Sec, 10)
	return strconv.AppendInt(append(b, '.'), int64(n.Mtime.Nsec), 10)
}

// storedBytes are those that stat counts as blocks. A file whose extents are not known
// has no holes.
func storedBytes(n *tree.Node) int64 {
	stored := n.Size
	for i := range n.Extents {
		if n.Extents[i].Pack == "" {
			stored -= n.Extents[i].Len
		}
	}
	return stored
}

func appendList(b []byte, n *tree.Node) []byte {
	d, names := digester{sha256.New()}, n.Names()
	for _, name := range names {
		c := n.Child(name)
		d.str(name)
		d.num(uint64(c.Kind))
		first := ""
		if links := c.Links(); len(links) > 1 {
			first = links[0]
		}
		d.str(first)
	}
	return d.append(b, len(names))
}

func appendContent(b []byte, n *tree.Node, q Question, o AnswerOptions) ([]byte, error) {
	d := n.Digest
	switch {
	case n.Size == 0:
		d = empty
	case d == "" && o.Digest == nil:
		return nil, fmt.Errorf("answer about %q: the digest of its bytes is not known", q.Path)
	case d == "":
		var err error
		if d, err = o.Digest(n); err != nil {
			return nil, fmt.Errorf("answer about %q: %w", q.Path, err)
		}
	}
	b = append(b, d...)
	if storedBytes(n) != n.Size {
		b = appendHoles(append(b, " ~"...), n)
	}
	return b, nil
}

// appendHoles has where the data of a file with holes lies, however it is cut up.
func appendHoles(b []byte, n *tree.Node) []byte {
	d, runs := digester{sha256.New()}, 0
	var at, from int64 // the data that ends at at begins at from
	flush := func() {
		if from < at {
			d.num(uint64(from))
			d.num(uint64(at))
			runs++
		}
	}
	for _, x := range n.Extents {
		if x.Pack == "" {
			flush()
			from = at + x.Len
		}
		at += x.Len
	}
	flush()
	return d.append(b, runs)
}

func appendXattrs(b []byte, n *tree.Node) []byte {
	if len(n.Xattrs) == 0 {
		return append(b, "0 -"...)
	}
	d := digester{sha256.New()}
	for _, x := range n.Xattrs {
		d.str(x.Name)
		d.str(x.Value)
	}
	return d.append(b, len(n.Xattrs))
}

func appendNames(b []byte, n *tree.Node, p string) []byte {
	links := n.Links()
	if len(links) < 2 {
		links = []string{p}
	}
	d := digester{sha256.New()}
	for _, l := range links {
		d.str(l)
	}
	return d.append(b, len(links))
}

// digester digests lists of fields, each with its length.
type digester struct{ h hash.Hash }

func (d digester) num(v uint64) {
	var b [8]byte
	for i := range b {
		b[i] = byte(v >> (8 * i))
	}
	d.h.Write(b[:])
}

func (d digester) str(s string) {
	d.num(uint64(len(s)))
	d.h.Write([]byte(s))
}

// append writes the number of what was digested and the digest.
func (d digester) append(b []byte, count int) []byte {
	b = append(strconv.AppendInt(b, int64(count), 10), ' ')
	return hex.AppendEncode(b, d.h.Sum(nil))
}
