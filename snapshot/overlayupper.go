package snapshot

import (
	"context"
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// Xattrs of overlayfs.
const (
	overlayPrefix  = "user.overlay."
	overlayOpaque  = overlayPrefix + "opaque"
	overlayOrigin  = overlayPrefix + "origin"
	overlayEscaped = overlayPrefix + "overlay." // what a command set
)

// upper walks the directory that overlayfs wrote to: all that it holds is new or was
// copied from a lower one, and what it hides is gone.
func (sc *scanner) upper(ctx context.Context) (tree.Tree, error) {
	return sc.run(sc.over.upper, func(fd int, st *stamp) error { return sc.entries(ctx, fd, "", st, sc.parent.Root()) })
}

// overlayOwn reports whether an xattr is one that overlayfs needs.
func overlayOwn(key string) bool {
	return strings.HasPrefix(key, overlayPrefix) && !strings.HasPrefix(key, overlayEscaped)
}

// opaque reports whether a directory of an upper one hides all that lies below it.
func opaque(fd int) bool {
	value := make([]byte, 1)
	n, err := unix.Lgetxattr(procPath(fd, "."), overlayOpaque, value)
	return err == nil && n == 1 && value[0] == 'y'
}

// unseen are the xattrs that no directory of this host shows, and that an entry of an
// upper directory has because it was copied from the parent's node at its path.
func unseen(fd int, name string, kind tree.Kind, prior *tree.Node) []tree.Xattr {
	if prior == nil || prior.Kind != kind || len(prior.Xattrs) == 0 {
		return nil
	}
	var out []tree.Xattr
	for _, x := range prior.Xattrs {
		user := strings.HasPrefix(x.Name, "user.") && !strings.HasPrefix(x.Name, overlayPrefix)
		if special := kind != tree.File && kind != tree.Dir; user && special || !user && x.Name != capability {
			out = append(out, x)
		}
	}
	if len(out) == 0 || !copied(fd, name, kind, prior) {
		return nil
	}
	return out
}

// copied reports whether overlayfs made the entry of a lower one. On links and fifos it
// leaves no mark, nor on a name of several: these are taken for the parent's.
func copied(fd int, name string, kind tree.Kind, prior *tree.Node) bool {
	switch {
	case kind == tree.Dir:
		return !opaque(fd)
	case kind != tree.File, len(prior.Links()) > 1:
		return true
	}
	_, err := unix.Lgetxattr(procPath(fd, name), overlayOrigin, nil)
	return err == nil || errors.Is(err, unix.ERANGE)
}
