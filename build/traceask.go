package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// errElsewhereBytes says that the bytes of a file are not in this store, and neither
// is their digest.
var errElsewhereBytes = errors.New("its bytes are not here, and their digest is not known")

// ran is what a command did.
type ran struct {
	parent  tree.Tree // what it ran on
	changes tree.Changes
	after   tree.Tree   // parent with changes; the zero Tree where nobody knows it yet
	pack    tree.PackID // the step's own, "" for none
	// asked waits for what the step looked at, and for why that is not all, "" where it is;
	// nil where the recorder was not asked to trace. It is called once.
	asked   func(context.Context) ([]trace.Question, string)
	network bool // it asked for a socket of a network
	took    time.Duration
	ended   time.Time
	ahead   *os.File // the frames that were made meanwhile; nil for none
}

// looked collects what the step looked at: its command, in the root and in bind
// mounts, and we before it ran. What the root was asked the recorder says when the next
// step may run already.
func (o *ran) looked(ctx context.Context, p *prepared, end *recorder.End, held *served) error {
	more, doubt, err := held.looked(ctx) // says as well whether a bound tree broke
	if err != nil || !p.mount.Trace {
		return err
	}
	o.asked = func(ctx context.Context) ([]trace.Question, string) {
		asked, why, err := end.Questions(ctx)
		switch {
		case err != nil: // the step is over, and was good
			why = fmt.Sprintf("the recorder did not say what was asked: %v", err)
		case why == "":
			why = doubt
		}
		return slices.Concat(asked, p.asked, more), why
	}
	return nil
}

// looked ends the bind mounts and returns what was asked of them. What was written
// there is dropped.
func (v *served) looked(ctx context.Context) (asked []trace.Question, doubt string, err error) {
	for len(v.binds) > 0 {
		bind := v.binds[0]
		res, err := v.rec.Finish(ctx, bind.id)
		if err != nil {
			return nil, "", fmt.Errorf("bind mount: %w", err)
		}
		v.binds = v.binds[1:]
		v.set.b.dropPack(res.Pack)
		if res.Doubt != "" && doubt == "" {
			doubt = "a bind mount: " + res.Doubt
		}
		for _, q := range res.Questions {
			q.Root = bind.root
			asked = append(asked, q)
		}
	}
	return asked, doubt, nil
}

// dropPack removes a pack that no index names.
func (b *builder) dropPack(id tree.PackID) {
	if id != "" { // missing is as good as removed
		_ = os.Remove(filepath.Join(b.store.Packs().Dir(), string(id)))
	}
}

// askUser are the questions of who finds out what a user or group is.
func askUser(t tree.Tree) []trace.Question {
	var out []trace.Question
	for _, p := range []string{"etc/passwd", "etc/group"} {
		out = append(out, trace.Way(t.Lookup, p)...)
		if at, n, err := t.Resolve(p); err == nil && n != nil && n.Kind == tree.File {
			out = append(out, trace.Question{Path: at, Kind: trace.Content})
		}
	}
	return out
}

// askWorkdir are the questions of who makes a working directory where there is none.
func askWorkdir(t tree.Tree, dir string) []trace.Question {
	out := trace.Way(t.Lookup, tree.Clean(dir))
	at, n, err := t.Resolve(tree.Clean(dir))
	if err != nil || n != nil {
		return out
	}
	e := trace.NewEdits(t)
	e.Put(at)
	return append(out, e.Questions()...)
}

// askPlaces are the questions of who mounts something: where each target leads, in the
// root or in what is bound above it.
func askPlaces(t tree.Tree, all, planned []*place) []trace.Question {
	var out []trace.Question
	for _, pl := range all {
		out = append(out, trace.Way(t.Lookup, pl.target)...)
	}
	for _, pl := range planned {
		out = append(out, trace.Way(t.Lookup, pl.at)...)
		if pl.view != nil {
			out = append(out, trace.Question{Root: pl.view.root, Path: pl.view.at, Kind: trace.Entry})
		}
		over := innermost(planned, pl.at)
		if over == nil || over.view == nil {
			continue
		}
		for _, q := range trace.Way(over.view.tree.Lookup, pl.inside(over)) {
			q.Root = over.view.root
			out = append(out, q)
		}
	}
	return out
}
