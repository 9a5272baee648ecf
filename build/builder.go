package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/exec"
	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/progress"
)

// Options say what to build and where everything is.
type Options struct {
	File *dockerfile.File
	// Platforms are those of an image for several: an index of one image for each. File
	// and Platform are then the first one's; nil is an image for Platform alone.
	Platforms  []PlatformFile
	Target     string // stage to build, "" is the last
	ContextDir string // the local build context, "" for none
	Ignore     []byte // contents of the ignore file, nil for none
	// Contexts are the named build contexts: a directory, docker-image://REF or
	// oci-layout://PATH[:TAG|@DIGEST].
	Contexts    map[string]string
	Platform    v1.Platform
	Labels      map[string]string
	Annotations []Annotation
	Tags        []string // full references, as oci.ParseRef gives them
	AddHosts    []string
	Network     string // of RUN steps without a mode of their own: "", "default", "host" or "none"
	NoCache     bool
	// NoCacheFilter are the stages whose steps run again, by name.
	NoCacheFilter []string
	Pull          bool
	Recorder      string // auto, fuse, overlay or walk
	// Limits are resource limits of a RUN beside the usual ones, ShmSize the size of its /dev/shm in bytes, 0 for the usual.
	Limits  []exec.Limit
	ShmSize int64
	// Isolation is how a RUN is kept apart: "" or "auto", "namespaces" or "chroot".
	Isolation string
	// Secrets are what RUN --mount=type=secret, and the fetching of remote sources, may ask for, by id.
	Secrets map[string]Secret
	// SSH are the agents and keys of --ssh, by id.
	SSH map[string]SSH
	// CacheRepo is a repository whose images are results of earlier builds, by key: the
	// name of one in a registry, or oci:PATH; "" for none.
	CacheRepo string
	// CacheTTL is how old a result in CacheRepo may be; 0 is any age.
	CacheTTL time.Duration
	// CacheReadOnly stores nothing in CacheRepo.
	CacheReadOnly bool
	// Trace says when a RUN may be used again although something below it changed:
	// TraceOn ("" is the same), TraceStage or TraceOff.
	Trace string
	// TraceNetTTL is how long the result of a RUN that used the network may be used
	// again by its trace; its exact key has no limit.
	TraceNetTTL time.Duration
	// CacheTimes puts the times of files into traces.
	CacheTimes bool
	// CacheCheck runs each RUN that a trace would spare, and fails if it gives
	// another result.
	CacheCheck bool
	// CacheFrom and CacheTo are shared caches to read and to write.
	CacheFrom, CacheTo []CacheSpec
	// CacheKey is a file with the key that signs entries of shared caches; with one,
	// entries without its signature are misses.
	CacheKey string
	titles   string     // of one platform of several: what the steps' titles begin with
	lint     bool       // of Lint: no step runs
	tamper   func(*ran) // of tests: changes what is known of a step that ran
	tracks   *tracks    // of FindUnused, a plan
	plan     *planned   // of Plan: nothing is run, fetched or stored
	// Origin says whose build this is, for the report that is kept of it.
	Origin Origin
	// VerifyReproducible does the build twice, the second time without any cache, before
	// anything leaves it, and fails with IrreproducibleError where the steps differ.
	VerifyReproducible bool
	again              *second // of the second build: nothing is recorded
	// SingleSnapshot makes one layer of all that the build adds to its base.
	SingleSnapshot bool
	// Lazy says whether contents of base layers with a table of contents are fetched as
	// they are read: LazyOn ("" is the same), LazyAll or LazyOff.
	Lazy    string
	Epoch   *time.Time
	Outputs []Output

	Store    *cache.Store
	Remote   *oci.Remote
	Progress *progress.Display
	Stdout   io.Writer // for outputs with the destination "-"
	// Check compares every layer that is sealed with the changes it was made of
	// (LAWS 13), for tests.
	Check bool
}

// The values of Options.Trace.
const (
	TraceOn    = "on"    // a trace holds on any base
	TraceStage = "stage" // a trace holds on the base image that it was made on
	TraceOff   = "off"   // exact keys only
)

// DefaultTraceNetTTL is Options.TraceNetTTL where the caller does not say.
const DefaultTraceNetTTL = 24 * time.Hour

// CacheSpec is one --cache-from or --cache-to, as docker writes them.
type CacheSpec struct {
	Type  string            // registry, local, inline or s3
	Attrs map[string]string // ref, mode, dest, src, ...
}

// Secret says where the bytes of a secret are: in a file, or else in a variable of
// the caller's environment. They are read when a step needs them, and never kept.
type Secret struct {
	File string
	Env  string
}

// SSH is one --ssh: sockets of agents or files of keys; none is the agent of
// $SSH_AUTH_SOCK.
type SSH struct{ Paths []string }

// Result is an image that was built.
type Result struct {
	ImageID    string // digest of the config
	Descriptor v1.Descriptor
	Names      []string
	Pushed     map[string]string // reference -> manifest digest
	Warnings   []dockerfile.Warning
	// Layers says how the layers that were made were compressed.
	Layers layer.Stats
}

// builder is one build in progress.
type builder struct {
	opts    Options
	store   *cache.Store
	temp    string // this build's temporary directory, absolute
	cancel  context.CancelCauseFunc
	stepCtx context.Context //nolint:containedctx // of one Build; ends when a step fails as well
	sealCtx context.Context //nolint:containedctx // of one Build; ends when the caller gives up, not when a step fails
	sealing chan struct{}   // one entry for each layer that is being sealed
	caches  atomic.Bool     // some RUN has a cache mount
	workers *layer.Workers  // of all layers
	frames  *frameStore
	// onSealed, where set before the first step, is told of each layer of this build
	// that is complete in the store, by several goroutines: a push need not wait for
	// the end. The build waits until it returns.
	onSealed func(ctx context.Context, l *fsLayer)
	shared   *sharedCaches // nil for none
	family   *family
	reports  reporting
	digests  digests
	lazies   lazies

	background sync.WaitGroup
	early      *earlyPush // nil where nothing is pushed
	run        runner
	group      *errgroup.Group
	groupCtx   context.Context //nolint:containedctx // of one Build

	mu     sync.Mutex
	err    error // the first failure of the background
	stages map[*dockerfile.Stage]*stageRun
	bases  map[string]*future[*base]
	scopes []*dockerfile.Scope
}

// Build builds the target and its outputs. It leaves nothing behind but what is
// in the store and in the outputs, whatever its end.
func Build(ctx context.Context, o Options) (*Result, error) {
	target, err := o.File.Target(o.Target)
	if err != nil {
		return nil, err
	}
	if _, err := ParseAddHosts(o.AddHosts); err != nil {
		return nil, err
	}
	if err := checkOutputs(o.Outputs); err != nil {
		return nil, err
	}
	if o.Recorder == "" {
		o.Recorder = RecorderAuto
	}
	if len(o.Platforms) > 0 {
		return buildPlatforms(ctx, o)
	}
	shared, err := openShared(&o)
	if err != nil {
		return nil, err
	}
	return retrying(ctx, o, []*sharedCaches{shared}, func() (*Result, error) { return buildOnce(ctx, o, target, shared) })
}

// retrying builds again without a shared cache that lied.
func retrying(ctx context.Context, o Options, shared []*sharedCaches, build func() (*Result, error)) (*Result, error) {
	for tries := shared[0].retries(); ; tries-- {
		res, err := build()
		var lied *sharedLayerError
		if !errors.As(err, &lied) || ctx.Err() != nil || tries == 0 {
			return res, err
		}
		// What was done meanwhile is in the store and is found there.
		note := o.Progress.Step("[internal] note")
		text := ""
		for _, s := range shared {
			text = s.distrust(lied)
		}
		note.Warn(text)
		note.Done(nil)
	}
}

// buildOnce is one try of a build.
func buildOnce(ctx context.Context, o Options, target *dockerfile.Stage, shared *sharedCaches) (*Result, error) {
	stepCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b, err := newBuilder(ctx, stepCtx, cancel, o, target, shared, newFamily())
	if err != nil {
		return nil, err
	}
	res, err := b.build(stepCtx, target)
	if err != nil {
		cancel(err)
	}
	err = b.end(ctx, res, err)
	b.family.close(b)
	if err != nil {
		return nil, err
	}
	res.Layers = b.frames.stats
	return res, nil
}

// newBuilder begins a try of a build. Its steps end with stepCtx, which cancel ends; what
// they have made is kept until ctx does.
func newBuilder(ctx, stepCtx context.Context, cancel context.CancelCauseFunc, o Options, target *dockerfile.Stage, shared *sharedCaches, f *family) (*builder, error) {
	temp, err := o.Store.TempDir("build-")
	if err != nil {
		return nil, err
	}
	b := &builder{
		opts: o, store: o.Store, temp: temp, cancel: cancel, stepCtx: stepCtx, sealCtx: ctx, sealing: f.sealing,
		workers: f.workers, frames: newFrameStore(o.Store), family: f,
		shared: shared, stages: map[*dockerfile.Stage]*stageRun{}, bases: map[string]*future[*base]{},
	}
	b.early = newEarlyPush(stepCtx, o, target)
	b.reports.began = time.Now()
	return b, nil
}

// end waits for what goes on behind the steps and gives back what the build holds. It
// returns the error that the build ends with.
func (b *builder) end(ctx context.Context, res *Result, err error) error {
	b.early.wait()
	b.endAhead()
	b.background.Wait()
	err = errors.Join(b.firstError(err), b.frames.close(), b.run.close(context.WithoutCancel(ctx), b), b.closeLazies(), removeTemp(b.temp))
	b.keepReport(res, err)
	return err
}

// firstError prefers the failure that started everything over the
// cancellations that followed from it.
func (b *builder) firstError(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return b.err
	}
	return err
}

// fail ends the build with an error of the background.
func (b *builder) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = err
		b.cancel(err)
	}
}

func (b *builder) build(ctx context.Context, target *dockerfile.Stage) (*Result, error) {
	final, warnings, err := b.steps(ctx, target)
	if err != nil {
		return nil, err
	}
	if final == nil {
		return &Result{Warnings: warnings}, nil
	}
	res, err := b.export(ctx, final)
	if err == nil {
		err = b.exportCaches(ctx, final)
	}
	if err != nil {
		return nil, err
	}
	res.Warnings = warnings
	return res, nil
}

// steps takes the target to its end, nil where nothing leaves the build.
func (b *builder) steps(ctx context.Context, target *dockerfile.Stage) (*state, []dockerfile.Warning, error) {
	b.group, b.groupCtx = errgroup.WithContext(ctx)
	needed := dockerfile.Needed(target)
	for _, st := range needed {
		b.seeCaches(st.Instructions)
	}
	for _, st := range needed {
		b.stage(st)
	}
	err := b.group.Wait()
	if err != nil {
		return nil, nil, err
	}
	final, err := b.stage(target).wait(ctx)
	if err != nil {
		return nil, nil, err
	}
	b.reports.final = final
	if t := b.opts.tracks; t != nil {
		if err := t.end(ctx, b, target); err != nil {
			return nil, nil, err
		}
	}
	if b.opts.again != nil {
		b.opts.again.steps = b.reports.inOrder()
		return nil, nil, nil
	}
	if b.opts.VerifyReproducible && !b.opts.lint && !b.planning() {
		if err := b.verifyReproducible(ctx, target); err != nil {
			return nil, nil, err
		}
	}
	warnings, err := b.opts.File.Report(b.scopes...)
	if b.opts.lint || b.planning() {
		return nil, warnings, nil
	}
	if err != nil {
		return nil, nil, err
	}
	if unused := b.opts.File.UnusedBuildArgs(b.scopes...); len(unused) > 0 {
		warnings = append(warnings, dockerfile.Warning{Text: fmt.Sprintf("One or more build-args %v were not consumed", unused)})
	}
	return final, warnings, nil
}

// now is the time of a step that runs: the epoch where one is set.
func (b *builder) now() time.Time {
	if b.opts.Epoch != nil {
		return *b.opts.Epoch
	}
	return time.Now()
}

// epochKey stands for the times that a step puts into its layer: with an epoch
// they are the caller's, and another epoch is another result.
func (b *builder) epochKey() string {
	if b.opts.Epoch == nil {
		return ""
	}
	return b.opts.Epoch.UTC().Format(time.RFC3339)
}

// warn shows a note once, as a step of its own.
func (b *builder) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !b.family.first(text) {
		return
	}
	s := b.opts.Progress.Step("[internal] note")
	s.Start()
	s.Warn(text)
	s.Done(nil)
}

// future is a value that is computed once, by whoever asks first.
type future[T any] struct {
	done chan struct{}
	val  T
	err  error
}

// once returns the value of key, computing it at the first call. It holds for
// the whole build, failures included.
func once[T any](ctx context.Context, mu *sync.Mutex, m map[string]*future[T], key string, fn func() (T, error)) (T, error) {
	mu.Lock()
	f := m[key]
	if f == nil {
		f = &future[T]{done: make(chan struct{})}
		m[key] = f
		mu.Unlock()
		f.val, f.err = fn()
		close(f.done)
		return f.val, f.err
	}
	mu.Unlock()
	select {
	case <-f.done:
		return f.val, f.err
	case <-ctx.Done():
		var zero T
		return zero, context.Cause(ctx)
	}
}
