package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// The kinds of records that traces need beside kindTrace, a trace in the form of
// trace.Encode under its id: the newest results of an identity, and what made a layer,
// under its diffID.
const (
	kindTraces = "traces"
	kindMade   = "made"
)

// maxTraces is how many results of one identity are kept.
const maxTraces = 8

// tracedResult is a result of an identity, and what it depends on.
type tracedResult struct {
	Trace string `json:"trace"` // id of the trace: the digest of its form on the disk, in hex
	Key   Key    `json:"key"`   // the exact key of the step that gave it
	// Base is the image below, and Parents are the layers that the step ran on.
	Base    Key           `json:"base,omitempty"`
	Parents []tree.Digest `json:"parents,omitempty"`
	Step    stepRecord    `json:"step"`

	layer  *fsLayer // where it comes from a shared cache
	source string   // which
	keep   func()   // collects it for --cache-to
}

// madeRecord says which step made a layer.
type madeRecord struct {
	Identity Key       `json:"identity,omitempty"`
	Trace    string    `json:"trace,omitempty"`
	Key      Key       `json:"key"`
	Title    string    `json:"title"`
	Created  time.Time `json:"created"`
}

// traceResults returns what is known of an identity: of this store, the last used
// first, then of shared caches.
func (b *builder) traceResults(ctx context.Context, id Key) []tracedResult {
	var list []tracedResult
	if !b.getJSON(kindTraces, string(id), &list) {
		list = nil
	}
	for _, r := range b.sharedTraces(ctx, id) {
		if !slices.ContainsFunc(list, func(have tracedResult) bool { return have.Trace == r.Trace && have.Step.DiffID == r.Step.DiffID }) {
			list = append(list, r)
		}
	}
	return list
}

// keepResult puts a result before the others of its identity.
func (b *builder) keepResult(ctx context.Context, id Key, r tracedResult) error {
	unlock, err := b.store.Lock(ctx, "traces-"+string(id))
	if err != nil {
		return err
	}
	defer unlock()
	list := []tracedResult{r}
	var old []tracedResult
	if b.getJSON(kindTraces, string(id), &old) {
		for _, o := range old {
			if o.Trace != r.Trace && len(list) < maxTraces {
				list = append(list, o)
			}
		}
	}
	var blobs, layers []tree.Digest
	for _, o := range list {
		if o.Step.DiffID != "" {
			blobs, layers = append(blobs, tree.Digest(o.Step.Digest)), append(layers, o.Step.DiffID)
		}
	}
	return b.putJSON(kindTraces, string(id), list, blobs, layers)
}

// traceID names a trace by its form on the disk.
func traceID(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// loadTrace reads a trace of this store or of a shared cache. One that is not what its
// id says, or no trace, is an error.
func (b *builder) loadTrace(ctx context.Context, id string) (*trace.Trace, error) {
	rec, err := b.store.Record(kindTrace, id)
	data := rec.Value
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		var ok bool
		if data, ok = b.sharedTrace(ctx, id); !ok {
			return nil, fmt.Errorf("trace %.12s: %w", id, fs.ErrNotExist)
		}
	}
	if traceID(data) != id {
		return nil, fmt.Errorf("trace %.12s: %w", id, trace.ErrCorrupt)
	}
	t, err := trace.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("trace %.12s: %w", id, err)
	}
	return t, nil
}

// pendingTrace is a trace whose answers are worked out behind the step.
type pendingTrace struct {
	id    Key
	base  Key
	roots []tree.Tree
	asked []trace.Question
	// later, if not nil, waits for asked, and why that is not all.
	later func(context.Context) ([]trace.Question, string)
	rep   *StepReport
	// changes are those of the step: about all that it changed it must have asked.
	changes tree.Changes
}

// known waits until it is known what was asked, and reports whether that is all.
func (p *pendingTrace) known(ctx context.Context) bool {
	if p.later != nil {
		p.asked, p.rep.Doubt = p.later(ctx)
	}
	return p.rep.Doubt == ""
}

// keepTrace works out what the file systems below answered and stores the trace with
// the result, which is durable by now. It returns the trace's id. Nothing fails for
// want of a trace (LAWS 10).
func (b *builder) keepTrace(ctx context.Context, p *pendingTrace, below *fsState, r tracedResult) string {
	tr, id, err := b.putTrace(p, below)
	if err == nil {
		r.Trace, r.Base, r.Parents = id, p.base, chainOf(below)
		err = b.keepResult(ctx, p.id, r)
	}
	if err != nil {
		if ctx.Err() == nil {
			b.warn("no trace is kept of %q: %v", p.rep.Title, err)
		}
		return ""
	}
	var read int64
	for _, a := range tr.Answers {
		if a.Kind != trace.Content {
			continue
		}
		if n := p.roots[a.Root].Lookup(a.Path); n != nil {
			read += n.Size
		}
	}
	b.reports.traced(p.rep, id, len(tr.Answers), read)
	b.shareTraces(p.id, below, r)
	return id
}

func (b *builder) putTrace(p *pendingTrace, below *fsState) (*trace.Trace, string, error) {
	for _, l := range below.layers() {
		b.digests.learn(l)
	}
	asked := trace.Sorted(p.asked)
	if missed := trace.Missing(p.roots[0], p.changes, asked); missed != "" {
		p.rep.Doubt = fmt.Sprintf("it changed /%s, and is not known to have looked there", missed)
		return nil, "", errors.New(p.rep.Doubt)
	}
	tr, err := trace.Record(p.roots, asked, trace.AnswerOptions{Times: b.opts.CacheTimes, Digest: b.digest})
	if err != nil {
		return nil, "", err
	}
	data, err := tr.Encode()
	if err != nil {
		return nil, "", err
	}
	id := traceID(data)
	return tr, id, b.store.PutRecord(kindTrace, id, cache.Record{Value: data})
}

// keepMade notes which step made a layer: for those who ask, so nothing waits for it
// and nothing fails for want of it.
func (b *builder) keepMade(diffID tree.Digest, m madeRecord) {
	data, err := json.Marshal(m)
	if err == nil {
		err = b.store.PutNote(kindMade, string(diffID), cache.Record{Value: data})
	}
	if err != nil {
		b.warn("note what made layer %s: %v", diffID, err)
	}
}
