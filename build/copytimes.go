package build

import (
	"context"
	"encoding/json"

	"github.com/fbuild/fbuild/tree"
)

// kindCopied is the kind of the records of what a COPY or ADD gave before: the diffIDs
// of its newest layers, under what the instruction says.
const kindCopied = "copied"

// maxCopied is how many of them are kept: branches and projects may have the same
// instruction.
const maxCopied = 4

// copiedKey names the instruction: the stage that it stands in and what it says, but
// nothing of what it copies.
func (c *copyRun) copiedKey() Key {
	return c.head("copied").str(c.place).strs(c.tr.Sources).sum()
}

// keepCopied notes a result, the newest first. Nothing fails for want of it.
func (b *builder) keepCopied(def Key, diffID tree.Digest) {
	if diffID == "" {
		return
	}
	list, old := []tree.Digest{diffID}, []tree.Digest(nil)
	if b.getJSON(kindCopied, string(def), &old) {
		for _, d := range old {
			if d != diffID && len(list) < maxCopied {
				list = append(list, d)
			}
		}
	}
	if err := b.putJSON(kindCopied, string(def), list, nil, nil); err != nil {
		b.warn("note what a COPY gave: %v", err)
	}
	b.keepRecord(kindCopied, string(def))
}

// earlierTimes returns what gives a copied file the time that the same file had in an
// earlier result of the instruction (LAWS 9): a checkout has new times for all files,
// and programs compare times. Without an earlier result it returns nil.
//
// It is a file's time only as long as the file was nothing else in between: what is
// again as it was once gets the context's time. Programs compare with what is in cache
// mounts, too, and with the old time the file would look older than what was made of
// what it was meanwhile. So all results that are remembered must agree, and be had.
func (c *copyRun) earlierTimes(ctx context.Context, parent tree.Tree) func(to string, n *tree.Node) {
	if c.b.opts.CacheTimes || c.b.fresh(ctx) || c.b.planning() {
		return nil
	}
	def := string(c.copiedKey())
	var list []tree.Digest
	if !c.b.getJSON(kindCopied, def, &list) {
		c.b.sharedRecord(ctx, kindCopied, def, func(_ *cacheSource, _ *sharedEntry, value []byte) bool {
			return json.Unmarshal(value, &list) == nil
		})
	}
	var before []map[string]*tree.Node
	for _, d := range list[:min(len(list), maxCopied)] {
		cs, err := c.b.store.Layer(d)
		if err != nil {
			var ok bool
			if cs, ok = c.b.lightIndex(ctx, d); !ok {
				return nil
			}
		}
		files := make(map[string]*tree.Node, len(cs))
		for i := range cs {
			if cs[i].Node != nil {
				files[cs[i].Path] = cs[i].Node
			}
		}
		before = append(before, files)
	}
	if len(before) == 0 {
		return nil
	}
	return func(to string, n *tree.Node) {
		below := parent.Lookup(to)
		there := below != nil && sameFile(below, n)
		if there && below.Mtime == n.Mtime {
			return
		}
		var newest *tree.Node
		for _, files := range before {
			was := files[to]
			if was != nil && !sameFile(was, n) {
				return
			}
			if newest == nil {
				newest = was
			}
		}
		if newest != nil {
			n.Mtime = newest.Mtime
			return
		}
		// What is below already is in no layer of the instruction.
		if there {
			n.Mtime = below.Mtime
		}
	}
}

// sameFile reports whether two entries are known to be the same but for their times.
func sameFile(a, b *tree.Node) bool {
	if !sameButTime(a, b) {
		return false
	}
	if a.Kind != tree.File {
		return true
	}
	equal, known := tree.EqualContent(a, b)
	return equal && known
}
