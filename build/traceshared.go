package build

import (
	"context"
)

// What builds ask of shared caches beside results by exact key, which adopt and share
// are about.

// sharedTraces returns the results of an identity that shared caches have, with their
// layers.
func (b *builder) sharedTraces(context.Context, Key) []tracedResult { return nil }

// sharedTrace returns the form of a trace that a shared cache has under its id.
func (b *builder) sharedTrace(context.Context, string) ([]byte, bool) { return nil, false }

// shareTraces sends a result with its trace, which are in this store, to shared caches,
// behind the steps.
func (b *builder) shareTraces(Key, *fsState, tracedResult) {}
