package build

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/oci/layer"
)

// earlyPushes are the layers that are sent at once while steps run.
const earlyPushes = 2

// earlyPush sends what the target's steps made to its registries while later steps
// run, so that little is left when the image is pushed. Nothing of it is an error: what
// could not be sent is sent, or complained about, by the push itself. A build that
// fails leaves blobs that no manifest names; the next one finds them there.
type earlyPush struct {
	ctx    context.Context                //nolint:containedctx // of one Build: ends when it fails, not when the steps are done
	outs   map[*oci.RemoteArtifact]Output // one for each repository
	stages map[*dockerfile.Stage]bool     // whose steps end up in the image
	slots  chan struct{}
	wg     sync.WaitGroup
	mute   atomic.Bool // a registry that does not take one layer takes none early
}

// newEarlyPush returns nil where nothing is pushed, or nothing may leave the build
// before all of it was done.
func newEarlyPush(ctx context.Context, o Options, target *dockerfile.Stage) *earlyPush {
	p := &earlyPush{ctx: ctx, outs: map[*oci.RemoteArtifact]Output{}, stages: map[*dockerfile.Stage]bool{}, slots: make(chan struct{}, earlyPushes)}
	if o.VerifyReproducible {
		return nil
	}
	repos := map[string]bool{}
	for _, out := range o.Outputs {
		if out.Type != OutputRegistry || o.SingleSnapshot || o.lint || o.Remote == nil {
			continue
		}
		for _, name := range outputNames(out, o.Tags) {
			a, err := o.Remote.Artifact(name)
			if err != nil || repos[a.Repo()] {
				continue // the push says what is wrong with a name
			}
			repos[a.Repo()] = true
			p.outs[a] = out
		}
	}
	if len(p.outs) == 0 {
		return nil
	}
	for st := target; st != nil; st = st.BaseStage {
		p.stages[st] = true
	}
	return p
}

// layer sends a layer as soon as its blob is complete.
func (p *earlyPush) layer(b *builder, st *dockerfile.Stage, l *fsLayer) {
	if p == nil || l == nil || !p.stages[st] || b.planning() {
		return
	}
	ctx := p.ctx
	for a, out := range p.outs {
		p.wg.Go(func() {
			known, blob, err := l.soon(ctx, b)
			if err != nil || b.variantOf(known, out) != nil {
				return
			}
			select {
			case p.slots <- struct{}{}:
				defer func() { <-p.slots }()
			case <-ctx.Done():
				return
			}
			if p.mute.Load() {
				return
			}
			if err := a.Add(ctx, blob, nil); err != nil {
				p.mute.Store(true)
			}
		})
	}
}

// earlyBlob is the blob of a layer before it is durable.
type earlyBlob struct {
	desc v1.Descriptor
	how  string // Compression.word
	open func(context.Context) (io.ReadCloser, error)
}

// wrote returns what is told when the layer's blob is complete.
func (l *fsLayer) wrote(b *builder, c Compression) func(layer.Sealed, string) {
	return func(s layer.Sealed, file string) {
		desc, err := sealedDescriptor(s)
		if err != nil {
			return // sealing fails with it
		}
		open := func(context.Context) (io.ReadCloser, error) {
			f, err := os.Open(file)
			if errors.Is(err, fs.ErrNotExist) { // it has its name
				return b.store.OpenBlob(s.Digest)
			}
			return f, err
		}
		l.blob = earlyBlob{desc, c.word(), open}
		close(l.written)
	}
}

// soon waits for the blob, which need not be durable: nobody is told of the layer before
// it is. It returns what can be known of the layer then.
func (l *fsLayer) soon(ctx context.Context, b *builder) (*fsLayer, oci.Blob, error) {
	select {
	case <-l.written:
		known := &fsLayer{desc: l.blob.desc, how: l.blob.how}
		return known, oci.Blob{Desc: known.desc, Open: l.blob.open}, nil
	case <-l.done:
		return l, oci.Blob{Desc: l.desc, Open: b.layerOpener(l, l.desc)}, l.err
	case <-ctx.Done():
		return nil, oci.Blob{}, context.Cause(ctx)
	}
}

// wait returns when nothing is under way any more, so that nothing is sent twice.
func (p *earlyPush) wait() {
	if p != nil {
		p.wg.Wait()
	}
}
