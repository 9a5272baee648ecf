package build

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/fbuild/fbuild/tree"
)

// keyVersion changes when the meaning of a key does, so that old records are
// never mistaken for new ones.
const keyVersion = "fbuild step 1"

// Key names the result of a step: everything that a clean build of it would
// depend on, docker's exact key.
type Key string

// keyer builds a Key. Every field is written with its length, so that no two
// lists of fields look alike.
type keyer struct{ h hash.Hash }

func newKey(kind string) *keyer {
	k := &keyer{sha256.New()}
	return k.str(keyVersion).str(kind)
}

func (k *keyer) num(v uint64) *keyer {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	k.h.Write(b[:])
	return k
}

func (k *keyer) str(s string) *keyer {
	k.num(uint64(len(s)))
	_, _ = io.WriteString(k.h, s) // a hash never fails
	return k
}

func (k *keyer) strs(list []string) *keyer {
	k.num(uint64(len(list)))
	for _, s := range list {
		k.str(s)
	}
	return k
}

func (k *keyer) sum() Key { return Key(hex.EncodeToString(k.h.Sum(nil))) }

// subtree writes what one source matched: names, kinds, modes, owners, targets,
// xattrs and contents of everything below, but no times, as docker has it. Every
// file must have its digest.
func (k *keyer) subtree(src tree.Tree, from string) error {
	first := map[*tree.Node]string{}
	err := src.WalkFrom(from, func(p string, n *tree.Node) error {
		rel := p[len(from):]
		if rel == "" && n.Kind == tree.Dir { // only its entries are copied
			k.str("entries")
			return nil
		}
		k.str(rel).num(uint64(n.Kind)).num(uint64(n.Mode)).num(uint64(n.UID)).num(uint64(n.GID))
		k.str(n.Target).num(uint64(n.Major)).num(uint64(n.Minor)).num(uint64(n.Size))
		k.num(uint64(len(n.Xattrs)))
		for _, x := range n.Xattrs {
			k.str(x.Name).str(x.Value)
		}
		if n.Kind == tree.File {
			if n.Digest == "" && n.Size > 0 {
				return fmt.Errorf("key of %q: its digest is not known", p)
			}
			k.str(string(n.Digest))
		}
		k.num(uint64(min(2, len(n.Links()))))
		if len(n.Links()) > 1 {
			k.str(first[n])
			if _, ok := first[n]; !ok {
				first[n] = rel
			}
		}
		return nil
	})
	k.str("end")
	return err
}

// digestFiles returns t with the digest of every file at or below the paths.
// Files are read from their packs, on two goroutines at once.
func digestFiles(ctx context.Context, t tree.Tree, paths []string, files opener) (tree.Tree, error) {
	type job struct {
		path string
		node tree.Node
		n    *tree.Node
	}
	var jobs []*job
	seen := map[*tree.Node]bool{}
	for _, p := range paths {
		err := t.WalkFrom(p, func(p string, n *tree.Node) error {
			if n.Kind == tree.File && n.Digest == "" && n.Size > 0 && !seen[n] {
				seen[n] = true
				jobs = append(jobs, &job{path: p, n: n})
			}
			return nil
		})
		if err != nil {
			return t, err
		}
	}
	if len(jobs) == 0 {
		return t, nil
	}
	g, each := errgroup.WithContext(ctx)
	g.SetLimit(2)
	for _, j := range jobs {
		g.Go(func() error {
			if err := context.Cause(each); err != nil {
				return err
			}
			d, err := digestFile(j.n, files)
			if err != nil {
				return fmt.Errorf("hash %q: %w", "/"+j.path, err)
			}
			j.node = j.n.Attrs()
			j.node.Digest = d
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return t, err
	}
	e := t.Edit()
	for _, j := range jobs {
		links := j.n.Links()
		if err := e.Put(j.path, j.node); err != nil {
			return t, err
		}
		for _, l := range links {
			if l == j.path {
				continue
			}
			if err := e.Link(l, j.path); err != nil {
				return t, err
			}
		}
	}
	return e.Tree(), nil
}

func digestFile(n *tree.Node, files opener) (tree.Digest, error) {
	r, err := files.Open(n)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	size, err := io.Copy(h, r)
	if err := errors.Join(err, r.Close()); err != nil {
		return "", err
	}
	if size != n.Size {
		return "", io.ErrUnexpectedEOF
	}
	return tree.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))), nil
}
