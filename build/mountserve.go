package build

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/exec"
	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/internal/reexec"
	"github.com/fbuild/fbuild/tree"
)

// served are the mounts of a RUN while its command runs.
type served struct {
	set     *mountSet
	rec     *recorderProc
	box     *exec.Sandbox
	env     [][2]string // secrets that are variables
	sock    string      // where the first agent is
	secrets [][]byte    // what its output must not show
	places  []*place

	binds    []bound
	releases []func()
	traced   bool // the step has a trace
}

// bound is a view that the recorder serves.
type bound struct {
	id   string // of the recorder's mount
	root int    // of its trace.Questions
}

// serve gets everything that the mounts need but the views: secrets, agents and
// the directories of caches. It waits where a cache is in use.
func (s *mountSet) serve(ctx context.Context, rec *recorderProc, box *exec.Sandbox) (*served, error) {
	v := &served{set: s, rec: rec, box: box}
	if s == nil {
		return v, nil
	}
	// In the order of their keys, so that two builds never wait for each other.
	caches := map[*runMount]string{}
	var keys []string
	for _, m := range s.list {
		if m.Type == dockerfile.MountCache {
			caches[m] = string(s.b.cacheKey(m))
			keys = append(keys, caches[m])
		}
	}
	slices.Sort(keys)
	if box.Isolation() == exec.IsolationChroot {
		if err := s.checkChroot(keys); err != nil {
			return v, err
		}
	}
	dirs := map[string]string{}
	for _, key := range slices.Compact(keys) {
		var m *runMount
		for _, c := range s.list { // of several that name one cache the strictest decides
			if caches[c] == key && (m == nil || c.Sharing == cache.LockedMount) {
				m = c
			}
		}
		dir, err := v.cacheDir(ctx, m, key)
		if err != nil {
			return v, fmt.Errorf("mount %s: %w", m.Target, err)
		}
		dirs[key] = dir
	}
	for _, m := range s.list {
		if err := v.add(ctx, m, dirs[caches[m]]); err != nil {
			return v, err
		}
	}
	return v, nil
}

// checkChroot refuses what cannot be shown without a mount, and says what is not as
// asked for. KEYS are those of the caches, sorted.
func (s *mountSet) checkChroot(keys []string) error {
	if len(slices.Compact(slices.Clone(keys))) < len(keys) {
		return &MountError{
			errors.New("a cache is mounted at two targets, and in a chroot a directory is in one place only"),
			"mount it once, and make a symlink to it in the command",
		}
	}
	for _, m := range s.list {
		if m.Type == dockerfile.MountTmpfs && m.Size > 0 {
			s.step.Warn(fmt.Sprintf("mount %s: in a chroot a tmpfs is a directory, whose size is not limited", m.Target))
		}
	}
	return nil
}

// add makes a place of one mount; there is none for what was not given.
func (v *served) add(ctx context.Context, m *runMount, cacheDir string) error {
	pl := &place{target: strings.TrimPrefix(m.Target, "/"), mount: exec.Mount{Type: "bind", ReadOnly: m.ReadOnly}}
	switch m.Type {
	case dockerfile.MountBind:
		pl.dir, pl.view = m.view.dir, m.view
	case dockerfile.MountCache:
		pl.dir, pl.mount.Source = true, cacheDir
	case dockerfile.MountTmpfs:
		pl.dir, pl.mount.Type = true, "tmpfs"
		if m.Size > 0 {
			pl.mount.Options = fmt.Sprintf("size=%d", m.Size)
		}
	case dockerfile.MountSecret:
		data, ok, err := v.set.b.secret(&m.Mount)
		if err != nil {
			return err
		}
		v.secrets = append(v.secrets, data)
		if m.Env != nil {
			v.env = append(v.env, [2]string{*m.Env, string(data)})
		}
		if !ok || m.Target == "" {
			return nil
		}
		pl.mount.Type, pl.mount.Data, pl.mount.ReadOnly = "file", data, true
		pl.mount.Perm, pl.mount.UID, pl.mount.GID = m.mode(0o400), orZero(m.UID), orZero(m.GID)
	case dockerfile.MountSSH:
		path, err := v.agent(ctx, m)
		if err != nil || path == "" {
			return err
		}
		pl.mount.Source = path
	}
	v.places = append(v.places, pl)
	return nil
}

func orZero(id *uint32) uint32 {
	if id == nil {
		return 0
	}
	return *id
}

// mode is the mode of the mount, or what it is without one.
func (m *runMount) mode(without uint32) uint32 {
	if m.Mode == nil {
		return without
	}
	return *m.Mode
}

// agent serves a socket for the mount and returns its path; "" for none.
func (v *served) agent(ctx context.Context, m *runMount) (string, error) {
	b := v.set.b
	if v.sock == "" {
		v.sock = m.Target
	}
	dial, err := b.agent(&m.Mount)
	if err != nil || dial == nil {
		return "", err
	}
	srv, err := serveAgent(ctx, b.temp, dial)
	if err != nil {
		return "", err
	}
	v.releases = append(v.releases, srv.close)
	return srv.path, furnish(ctx, v.box, furniture{Path: srv.path, Mode: m.mode(0o600), UID: orZero(m.UID), GID: orZero(m.GID)})
}

// waitNotice is how long a step waits for a cache before it says so.
const waitNotice = time.Second

// cacheDir takes the directory of a cache mount until the command has ended.
func (v *served) cacheDir(ctx context.Context, m *runMount, key string) (string, error) {
	b := v.set.b
	var said sync.WaitGroup
	said.Add(1)
	notice := time.AfterFunc(waitNotice, func() {
		defer said.Done()
		v.set.step.Warn(fmt.Sprintf("waiting for cache mount %s, in use by another build or step", m.ID))
	})
	sharing := m.Sharing
	if v.box.Isolation() == exec.IsolationChroot && sharing != cache.PrivateMount {
		sharing = cache.LockedMount // it is moved into the root, and cannot be in two
	}
	dir, release, err := b.cacheMount(ctx, key, sharing, cache.MountInfo{ID: m.ID}, func(dir string) error {
		return v.startCache(ctx, m, dir)
	})
	if notice.Stop() {
		said.Done()
	}
	said.Wait()
	if err != nil {
		return "", err
	}
	v.releases = append(v.releases, release)
	b.keepMount(m, key)
	return dir, nil
}

// startCache gives a new cache its first contents, mode and owner.
func (v *served) startCache(ctx context.Context, m *runMount, dir string) error {
	if done, err := v.startShared(ctx, m, dir); done || err != nil {
		return err
	}
	f := furniture{Path: dir, Mode: m.mode(0o755), UID: orZero(m.UID), GID: orZero(m.GID)}
	if m.src != nil {
		if err := v.set.makeView(ctx, m); err != nil {
			return err
		}
		f.Layers, f.PackDir = m.view.layers, v.set.b.store.Packs().Dir()
		if err := v.set.b.completeLazies(ctx); err != nil { // who reads them cannot ask for them
			return err
		}
		if n := m.view.tree.Root(); m.Mode == nil && m.UID == nil && m.GID == nil {
			f.Mode, f.UID, f.GID = n.Mode, n.UID, n.GID
		}
	}
	if f.Layers == nil && f.Mode == 0o755 && f.UID == 0 && f.GID == 0 {
		return nil // as it is
	}
	return furnish(ctx, v.box, f)
}

// cacheKey names a cache mount: its id, what it starts from, and who owns what in
// it: a directory of other ids, or of another owner, is another cache.
func (b *builder) cacheKey(m *runMount) Key {
	k := newKey("cache mount").str(m.ID).str(m.sum)
	for _, id := range []*uint32{m.Mode, m.UID, m.GID} {
		k.num(flag(id != nil)).num(uint64(orZero(id)))
	}
	if ids, err := reexec.HostMap(false); err == nil {
		k.str(string(ids.Class))
		for _, r := range slices.Concat(ids.UIDs, ids.GIDs) {
			k.num(uint64(r.Inside)).num(uint64(r.Outside)).num(uint64(r.Size))
		}
	}
	return k.sum()
}

// environ adds the variables of the mounts. An agent's socket is where the image
// says, if it does.
func (v *served) environ(env []string) []string {
	const name = "SSH_AUTH_SOCK"
	if v.sock != "" && !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
		env = append(env, name+"="+v.sock)
	}
	for _, e := range v.env {
		env = setEnv(env, e[0], e[1])
	}
	return env
}

// bind has the recorder serve the views, each on a mount of its own (LAWS 1).
func (v *served) bind(ctx context.Context, places []*place) error {
	b := v.set.b
	for _, pl := range places {
		if pl.view == nil {
			continue
		}
		work, err := mkdirIn(b.temp, "bind-")
		if err != nil {
			return err
		}
		id := filepath.Base(work)
		spec := recorder.Spec{ID: id, Layers: pl.view.layers, Stubs: pl.stubs, PackDir: b.store.Packs().Dir(), WorkDir: work, Trace: v.traced}
		if pl.view.at == "" { // the layers of a stage or image, which others use as well
			spec.TreeDir = b.store.TreeDir()
		}
		root, err := v.rec.Mount(ctx, spec)
		if err != nil {
			return &recorderError{fmt.Errorf("mount /%s: %w", pl.target, err)}
		}
		v.binds = append(v.binds, bound{id, pl.view.root})
		pl.mount.Source = filepath.Join(root, pl.view.at)
	}
	return nil
}

// end gives everything back. Changes to bound trees are dropped. An error says that
// a bound tree broke under the command.
func (v *served) end(ctx context.Context) error {
	var errs []error
	for _, bind := range v.binds {
		if err := v.rec.Abort(context.WithoutCancel(ctx), bind.id); err != nil {
			errs = append(errs, fmt.Errorf("bind mount: %w", err))
		}
	}
	for _, release := range v.releases {
		release()
	}
	v.binds, v.releases = nil, nil
	return errors.Join(errs...)
}

// own are the mounts that every RUN has besides those of the Dockerfile.
func (b *builder) own(in *dockerfile.Run) ([]*place, error) {
	resolv, hosts, err := b.run.netFiles(b)
	if err != nil {
		return nil, err
	}
	var out []*place
	add := func(source, target string, quiet bool) {
		out = append(out, &place{target: tree.Clean(target), quiet: quiet, mount: exec.Mount{Type: "bind", Source: source, ReadOnly: true}})
	}
	add(hosts, "etc/hosts", true)
	add(resolv, "etc/resolv.conf", true)
	if in.Script != nil {
		name, err := b.writeScript(in.Script)
		if err != nil {
			return nil, err
		}
		add(name, in.Script.Path, false)
	}
	return out, nil
}
