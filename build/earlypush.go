package build

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/oci"
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

// layer sends a layer as soon as it is sealed.
func (p *earlyPush) layer(b *builder, st *dockerfile.Stage, l *fsLayer) {
	if p == nil || l == nil || !p.stages[st] || b.planning() {
		return
	}
	ctx := p.ctx
	for a, out := range p.outs {
		p.wg.Go(func() {
			if l.wait(ctx) != nil || b.variantOf(l, out) != nil {
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
			blob := oci.Blob{Desc: l.desc, Open: b.layerOpener(l, l.desc)}
			if err := a.Add(ctx, blob, nil); err != nil {
				p.mute.Store(true)
			}
		})
	}
}

// wait returns when nothing is under way any more, so that nothing is sent twice.
func (p *earlyPush) wait() {
	if p != nil {
		p.wg.Wait()
	}
}
