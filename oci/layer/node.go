package layer

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/fbuild/fbuild/tree"
)

// node makes the node of an entry at path p; nil for a hard link, and for an
// entry that is left out with a note.
func (ix *index) node(e *entry, p string) (*tree.Node, error) {
	n := &tree.Node{Mode: uint32(e.mode & 0o7777), Mtime: e.mtime}
	var err error
	switch e.typ {
	case typeLink:
		return nil, nil
	case typeFile, typeGNUSparse:
		n.Kind, n.Size, n.Extents, n.Digest = tree.File, e.size, e.data, e.digest
		err = ix.charge(40*len(e.data) + len(e.digest))
	case typeDir:
		n.Kind = tree.Dir
	case typeSymlink:
		// Linux shows every symlink as 0777, and tars differ.
		n.Kind, n.Mode, n.Target, n.Size = tree.Symlink, 0o777, e.link, int64(len(e.link))
		if e.link == "" || len(e.link) > maxPath || strings.IndexByte(e.link, 0) >= 0 {
			return nil, fmt.Errorf("%w: symlink %q has a target of %d bytes", ErrCorrupt, p, len(e.link))
		}
		err = ix.charge(len(e.link))
	case typeFifo:
		n.Kind = tree.Fifo
	case typeChar, typeBlock:
		n.Kind = tree.CharDevice
		if e.typ == typeBlock {
			n.Kind = tree.BlockDevice
		}
		if n.Major, n.Minor, err = device(e, p); err != nil {
			return nil, err
		}
		if isWhiteoutDevice(n) {
			ix.notes.add("%q is left out: the character device 0/0 means a deletion to overlayfs", p)
			return nil, nil
		}
	default:
		return nil, fmt.Errorf("%w: %q has the unknown type %q", ErrCorrupt, p, e.typ)
	}
	if err != nil {
		return nil, err
	}
	if n.UID, err = id(e.uid, p); err != nil {
		return nil, err
	}
	if n.GID, err = id(e.gid, p); err != nil {
		return nil, err
	}
	n.Xattrs, err = ix.xattrs(e, p)
	return n, err
}

func isWhiteoutDevice(n *tree.Node) bool {
	return n.Kind == tree.CharDevice && n.Major == 0 && n.Minor == 0
}

// id takes an owner as docker does: a negative number is the 32-bit id with the
// same bits (macOS writes "nobody" so), and -1 leaves the owner at 0.
func id(v int64, p string) (uint32, error) {
	if v < math.MinInt32 || v > math.MaxUint32 {
		return 0, fmt.Errorf("%w: %q has the impossible owner %d", ErrCorrupt, p, v)
	}
	if uint32(v) == math.MaxUint32 {
		return 0, nil
	}
	return uint32(v), nil
}

func device(e *entry, p string) (major, minor uint32, err error) {
	if e.major < 0 || e.major > maxMajor || e.minor < 0 || e.minor > maxMinor {
		return 0, 0, fmt.Errorf("%w: %q has the impossible device number %d/%d", ErrCorrupt, p, e.major, e.minor)
	}
	return uint32(e.major), uint32(e.minor), nil
}

// What a device number of Linux holds.
const (
	maxMajor = 1<<12 - 1
	maxMinor = 1<<20 - 1
)

// xattrs returns the attributes of an entry as a tree holds them.
func (ix *index) xattrs(e *entry, p string) ([]tree.Xattr, error) {
	if e.pax == nil {
		return nil, nil
	}
	all, err := paxXattrs(e.pax)
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", ErrCorrupt, p, err)
	}
	kept := all[:0]
	for _, x := range all {
		if err := checkXattr(x, p); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if overlayXattr(x.Name) {
			ix.notes.add("xattr %s of %q is left out: it would steer overlayfs", x.Name, p)
			continue
		}
		if x.Name == capXattr {
			x.Value = capV2(x.Value)
		}
		if err := ix.charge(len(x.Name) + len(x.Value)); err != nil {
			return nil, err
		}
		kept = append(kept, x)
	}
	if len(kept) == 0 {
		return nil, nil
	}
	return kept, nil
}

// checkXattr refuses what Linux cannot set.
func checkXattr(x tree.Xattr, p string) error {
	if x.Name == "" || len(x.Name) > maxXattrName || strings.IndexByte(x.Name, 0) >= 0 {
		return fmt.Errorf("%q has an xattr with a name of %d bytes", p, len(x.Name))
	}
	if len(x.Value) > maxXattr {
		return fmt.Errorf("xattr %s of %q has %d bytes", x.Name, p, len(x.Value))
	}
	return nil
}

func overlayXattr(name string) bool {
	return strings.HasPrefix(name, "user.overlay.") || strings.HasPrefix(name, "trusted.overlay.")
}

const capXattr = "security.capability"

// capV2 turns file capabilities of version 3, which name the root of a user
// namespace, into version 2, which is what trees hold (LAWS 26).
func capV2(v string) string {
	const v2, v3, revision = 0x02000000, 0x03000000, 0xff000000
	if len(v) != 24 {
		return v
	}
	magic := binary.LittleEndian.Uint32([]byte(v))
	if magic&revision != v3 {
		return v
	}
	b := []byte(v[:20])
	binary.LittleEndian.PutUint32(b, magic&^revision|v2)
	return string(b)
}
