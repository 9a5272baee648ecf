package tree

import (
	"fmt"
	"strings"
)

// Format writes changes as text, one line each, for golden files and messages:
//
//	d0755 0:0 1700000000 etc
//	-0644 0:0 1700000000 5 etc/motd [user.x="1"]
//	-0755 0:0 1700000000 9 bin/b = bin/a      another name of bin/a
//	l0777 0:0 1700000000 etc/mtab -> /proc/mounts
//	x etc/old                                 a whiteout
//	o etc/d                                   an opaque mark alone
//
// Contents appear as their size only: extents differ between recorders.
func Format(cs Changes) string {
	var b strings.Builder
	first := map[*Node]string{}
	for i := range cs {
		c := &cs[i]
		switch {
		case c.Node != nil:
			line := formatNode(c.Node)
			fmt.Fprintf(&b, "%s %s", line, quote(c.Path))
			if c.Opaque {
				b.WriteString(" opaque")
			}
			if c.Node.Kind == Symlink {
				fmt.Fprintf(&b, " -> %s", quote(c.Node.Target))
			}
			if f, ok := first[c.Node]; ok {
				fmt.Fprintf(&b, " = %s", quote(f))
			} else {
				first[c.Node] = c.Path
			}
			for _, x := range c.Node.Xattrs {
				fmt.Fprintf(&b, " [%s=%q]", x.Name, x.Value)
			}
		case c.LinkTo != "":
			fmt.Fprintf(&b, "h %s = %s", quote(c.Path), quote(c.LinkTo))
		case c.Opaque:
			fmt.Fprintf(&b, "o %s", quote(c.Path))
		default:
			fmt.Fprintf(&b, "x %s", quote(c.Path))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func formatNode(n *Node) string {
	s := fmt.Sprintf("%s%04o %d:%d %d", n.Kind, n.Mode, n.UID, n.GID, n.Mtime.Sec)
	if n.Mtime.Nsec != 0 {
		s += fmt.Sprintf(".%09d", n.Mtime.Nsec)
	}
	switch n.Kind {
	default: // nothing more to say
	case File:
		s += fmt.Sprintf(" %d", n.Size)
	case CharDevice, BlockDevice:
		s += fmt.Sprintf(" %d,%d", n.Major, n.Minor)
	}
	return s
}

// quote shows the root as "." and a path with blanks or control bytes in Go's
// quotes.
func quote(p string) string {
	if p == "" {
		return "."
	}
	for i := range len(p) {
		if p[i] <= ' ' || p[i] == '"' || p[i] >= 0x7f {
			return fmt.Sprintf("%q", p)
		}
	}
	return p
}
