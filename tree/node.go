package tree

import (
	"slices"
	"strings"
	"syscall"
	"time"
)

// Kind says what an entry is. Sockets never enter a tree.
type Kind uint8

// The kinds of entries that an image can hold.
const (
	Invalid Kind = iota
	Dir
	File
	Symlink
	Fifo
	CharDevice
	BlockDevice
)

// String returns the one-letter form that ls and the text form use.
func (k Kind) String() string {
	return string("?d-lpcb"[min(int(k), 6)])
}

// KindOf is the kind of entry that the mode of stat(2) tells, Invalid for a socket,
// which never enters an image.
func KindOf(mode uint32) Kind {
	switch mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		return Dir
	case syscall.S_IFREG:
		return File
	case syscall.S_IFLNK:
		return Symlink
	case syscall.S_IFIFO:
		return Fifo
	case syscall.S_IFCHR:
		return CharDevice
	case syscall.S_IFBLK:
		return BlockDevice
	}
	return Invalid
}

// Time is a modification time: seconds since 1970 and nanoseconds, kept apart
// so that every time a tar can hold fits.
type Time struct {
	Sec  int64
	Nsec int32
}

// TimeOf turns t into a Time.
func TimeOf(t time.Time) Time { return Time{t.Unix(), int32(t.Nanosecond())} }

// Time returns t in UTC.
func (t Time) Time() time.Time { return time.Unix(t.Sec, int64(t.Nsec)).UTC() }

// Truncate drops the fraction of a second, as the layer writer does.
func (t Time) Truncate() Time { return Time{Sec: t.Sec} }

// Before reports whether t is earlier than u.
func (t Time) Before(u Time) bool {
	return t.Sec < u.Sec || t.Sec == u.Sec && t.Nsec < u.Nsec
}

// Digest names bytes by content, "sha256:" and 64 hex digits; "" is not known.
type Digest string

// Hex returns the digits behind the algorithm.
func (d Digest) Hex() string {
	_, hex, _ := strings.Cut(string(d), ":")
	return hex
}

// PackID names a pack of the store. The zero PackID stands for a hole.
type PackID string

// Extent is a run of a file's bytes: Len bytes at offset Off of a pack, or a
// hole of Len zero bytes where Pack is "".
type Extent struct {
	Pack PackID
	Off  int64
	Len  int64
}

// Xattr is one extended attribute with its full name ("user.x").
type Xattr struct {
	Name  string
	Value string
}

// Node is one entry without its name. It is immutable once it is in a Tree;
// copy it to change it. The zero values of fields that a kind does not use are
// required, so that equal entries compare equal.
type Node struct {
	Kind     Kind
	Mode     uint32 // permission bits with setuid, setgid and sticky: 07777
	UID, GID uint32
	Mtime    Time
	Size     int64   // bytes of a File, length of a Symlink's target, else 0
	Target   string  // of a Symlink
	Major    uint32  // of a device
	Minor    uint32  // of a device
	Xattrs   []Xattr // sorted by name
	// Extents are a File's bytes in order; their lengths add up to Size. A
	// build context's files have none until their bytes are stored.
	Extents []Extent
	Digest  Digest // of a File's bytes, where known

	links []string // every name of the group, sorted; nil for a single name
	dir   *dirents
	edit  *edit // set while an Editor owns the node
}

// dirents are the entries of a frozen directory, sorted by name.
type dirents struct {
	names []string
	nodes []*Node
	from  *later // set where they are made when somebody looks
}

// entries are those of a directory that has some, or may have.
func (n *Node) entries() *dirents {
	if n.dir.from != nil {
		return n.dir.load()
	}
	return n.dir
}

func (d *dirents) find(name string) *Node {
	if i, ok := slices.BinarySearch(d.names, name); ok {
		return d.nodes[i]
	}
	return nil
}

// Attrs returns a copy of n without children and hard links: what stands in a
// layer for a directory, and what an edit starts from.
func (n *Node) Attrs() Node {
	c := *n
	c.links, c.dir, c.edit = nil, nil, nil
	return c
}

// Links returns every path of n's hard link group in order, or nil where n has
// one name. The caller must not change it.
func (n *Node) Links() []string { return n.links }

// Nlink returns the link count as stat shows it; directories have 1
// (docs/design.md: it must not depend on what else is in the image).
func (n *Node) Nlink() int { return max(1, len(n.links)) }

// Child returns the entry called name, or nil.
func (n *Node) Child(name string) *Node {
	if n.edit != nil {
		return n.edit.get(name)
	}
	if n.dir == nil {
		return nil
	}
	return n.entries().find(name)
}

// Names returns the sorted names of a directory's entries. The caller must not
// change the slice.
func (n *Node) Names() []string {
	if n.edit != nil {
		return slices.Clone(n.edit.names())
	}
	if n.dir == nil {
		return nil
	}
	return n.entries().names
}

// Xattr returns the value of an extended attribute.
func (n *Node) Xattr(name string) (string, bool) {
	for _, x := range n.Xattrs {
		if x.Name == name {
			return x.Value, true
		}
	}
	return "", false
}

// SortXattrs orders a list as Node.Xattrs demands, nil for an empty one.
func SortXattrs(x []Xattr) []Xattr {
	if len(x) == 0 {
		return nil
	}
	slices.SortFunc(x, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return x
}

// SameAttrs compares what an entry is apart from its time, its contents, its
// children and its links.
func SameAttrs(a, b *Node) bool {
	return a.Kind == b.Kind && a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID &&
		a.Size == b.Size && a.Target == b.Target && a.Major == b.Major && a.Minor == b.Minor &&
		slices.Equal(a.Xattrs, b.Xattrs)
}
