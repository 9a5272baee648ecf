package layer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fbuild/fbuild/tree"
)

const (
	// sparseFrom is the sum of holes from which a file is written with a map.
	// Below it, zeros compress to nothing and every reader knows them.
	sparseFrom = 1 << 20
	// minHole is the shortest hole that enters a map.
	minHole = 64 << 10
	// holeAlign is where holes begin and end, but at the end of the file: GNU tar
	// wants every run of data to fill whole blocks, archive/tar none to be filled
	// up, and file systems have holes of 4 KiB.
	holeAlign = 4 << 10
	// maxSpans keeps a map below the 1 MiB that archive/tar reads.
	maxSpans = 16 << 10
)

// layout is how a file's bytes stand in a tar.
type layout struct {
	spans  []span        // of data, for a file with a map
	data   []tree.Extent // the extents that are written
	stored int64         // their bytes
	sparse bool
}

// layoutOf decides by the extents alone, in such a way that the layout of what a
// reader makes of the tar is the same again.
func layoutOf(n *tree.Node) (layout, error) {
	var sum, holes int64
	for i := range n.Extents {
		x := &n.Extents[i]
		if x.Len <= 0 || x.Len > n.Size-sum {
			return layout{}, fmt.Errorf("its extents do not fit its %d bytes", n.Size)
		}
		sum += x.Len
		if x.Pack == "" {
			holes += x.Len
		}
	}
	if n.Extents != nil && sum != n.Size {
		return layout{}, fmt.Errorf("its extents hold %d of %d bytes", sum, n.Size)
	}
	for least := int64(minHole); holes >= sparseFrom; least *= 2 {
		l := cut(n, least)
		if n.Size-l.stored < sparseFrom {
			break
		}
		if len(l.spans) <= maxSpans {
			return l, nil
		}
	}
	return layout{data: n.Extents, stored: n.Size}, nil
}

// cut takes the holes of at least least bytes out of a file.
func cut(n *tree.Node, least int64) layout {
	l := layout{sparse: true}
	var at, from int64 // offset in the file; where the run of data before it starts
	run := func(to int64) {
		if to > from {
			l.spans = append(l.spans, span{from, to - from})
			l.stored += to - from
		}
	}
	zeros := func(k int64) {
		if k > 0 {
			l.data = append(l.data, tree.Extent{Len: k})
		}
	}
	for i := 0; i < len(n.Extents); {
		end := at
		for ; i < len(n.Extents) && n.Extents[i].Pack == ""; i++ {
			end += n.Extents[i].Len
		}
		if end == at {
			l.data = append(l.data, n.Extents[i])
			at, i = at+n.Extents[i].Len, i+1
			continue
		}
		start, stop := (at+holeAlign-1)&^(holeAlign-1), end&^(holeAlign-1)
		if end == n.Size {
			stop = end
		}
		if stop-start >= least {
			zeros(start - at)
			run(start)
			zeros(end - stop)
			from = stop
		} else {
			zeros(end - at)
		}
		at = end
	}
	run(at)
	return l
}

// sparseMap is the map of format 1.0: decimal lines, filled up to whole blocks.
// A last empty span at the end of the file stands for a hole there, as GNU tar
// writes it.
func (l *layout) sparseMap(size int64) []byte {
	spans := l.spans
	if k := len(spans) - 1; k < 0 || spans[k].off+spans[k].n < size {
		spans = append(slices.Clip(spans), span{size, 0})
	}
	var b strings.Builder
	b.WriteString(strconv.Itoa(len(spans)) + "\n")
	for _, s := range spans {
		b.WriteString(strconv.FormatInt(s.off, 10) + "\n" + strconv.FormatInt(s.n, 10) + "\n")
	}
	out := []byte(b.String())
	return append(out, zeroBlock[:-len(out)&(blockSize-1)]...)
}
