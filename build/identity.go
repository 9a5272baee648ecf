package build

import (
	"context"
	"time"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/tree"
)

// traceVersion is in every identity: it changes when questions, their answers or what
// an identity holds do, so that a trace of another meaning is never asked.
const traceVersion = "fbuild trace 2"

// newIdentity begins the identity of a step: all that decides about its result but the
// file systems that it looks at (LAWS 8). Results with traces are kept under it.
func (b *builder) newIdentity(kind string, base Key) *keyer {
	k := newKey("identity").str(traceVersion).str(kind).num(flag(b.opts.CacheTimes))
	if b.opts.Trace == TraceStage {
		k.str("base").str(string(base))
	}
	return k
}

// runIdentity is the identity of a RUN. Mounts enter with their options only: what is
// bound is asked about (LAWS 7), by paths that are others where all of a stage is bound.
func (b *builder) runIdentity(s *state, in *dockerfile.Run, network string, mounts *mountSet) Key {
	k := b.newIdentity("run", s.base).str(string(s.barrier))
	b.runFields(k, s, in, network)
	mounts.options(k, func(m *runMount) string {
		switch {
		case m.Type == dockerfile.MountCache:
			return m.sum // what it starts from: no trace sees that
		case m.whole():
			return "whole"
		}
		return ""
	})
	return k.sum()
}

// runFields are those of a RUN that its exact key and its identity hold.
func (b *builder) runFields(k *keyer, s *state, in *dockerfile.Run, network string) *keyer {
	k.strs(in.Args).strs(s.scope.KeyEnv()).num(uint64(len(s.scope.Args())))
	for _, a := range s.scope.Args() {
		k.str(a.Key).str(a.Value)
	}
	k.str(s.cfg.Config.User).str(s.cfg.Config.WorkingDir).str(network).strs(b.opts.AddHosts)
	k.str(s.cfg.OS).str(s.cfg.Architecture).str(s.cfg.Variant).str(isolationClass(b.opts.Isolation))
	if in.Script != nil {
		k.str(in.Script.Path).str(in.Script.Data)
	}
	for _, l := range b.opts.Limits {
		k.str("limit").num(uint64(l.Resource)).num(l.Soft).num(l.Hard)
	}
	if b.opts.ShmSize != 0 {
		k.str("shm").num(uint64(b.opts.ShmSize))
	}
	return k
}

// barred adds a remote source to the barrier of a stage: it is a habit to put one
// before steps that shall run again when it changes (LAWS 6).
func barred(barrier Key, digest string) Key {
	return newKey("barrier").str(string(barrier)).str(digest).sum()
}

// workdirIdentity is the identity of a WORKDIR.
func (b *builder) workdirIdentity(s *state, path string) Key {
	return b.newIdentity("workdir", s.base).str(path).str(s.cfg.Config.User).str(b.epochKey()).sum()
}

// tracedBy says how the record of an exact key came by a result that was made on
// something else below. docker would have done the step: whoever asks for its
// behaviour, or for times in traces, must not get that result by the exact key.
type tracedBy struct {
	Times     bool `json:"times,omitempty"`     // the trace had times
	OtherBase bool `json:"otherBase,omitempty"` // it was made on another base image
	Done      bool `json:"done,omitempty"`      // the step was done as well, and gave the same but for times
	// Age is how old the result was then, if the network was used for it.
	Age time.Duration `json:"age,omitempty"`
}

// onlyExact marks the context of a step below "# fbuild: cache=exact".
type onlyExact struct{}

// trusts says whether a result that came by a trace may be used by its exact key.
func (b *builder) trusts(ctx context.Context, t *tracedBy) bool {
	switch {
	case t == nil:
		return true
	case t.Age > b.opts.TraceNetTTL, !b.tracing(), ctx.Value(onlyExact{}) != nil, b.opts.CacheCheck && !t.Done, b.opts.CacheTimes && !t.Times:
		return false
	}
	return b.opts.Trace != TraceStage || !t.OtherBase
}

// tracing says whether traces are used and kept.
func (b *builder) tracing() bool { return b.opts.Trace != TraceOff }

// chainOf are the layers of a file system whose names are known.
func chainOf(f *fsState) []tree.Digest {
	var out []tree.Digest
	for _, l := range f.layers() {
		out = append(out, l.name())
	}
	return out
}
