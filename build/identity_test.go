package build

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/exec"
)

// identityCase is all that a RUN's identity could depend on.
type identityCase struct {
	dockerfile    string
	args          map[string]string
	user, dir     string
	network       string
	platform      string
	key           Key // of the chain below
	base, barrier Key
	sum           string // of what its mounts hold
	opts          Options
}

func (c identityCase) identity(t *testing.T) Key {
	t.Helper()
	f, err := dockerfile.Parse("Dockerfile", []byte(c.dockerfile), dockerfile.Options{BuildArgs: c.args})
	if err != nil {
		t.Fatal(err)
	}
	s := &state{key: c.key, base: c.base, barrier: c.barrier, scope: dockerfile.NewScope(f, dockerfile.ScopeOptions{})}
	s.cfg.OS, s.cfg.Architecture, _ = strings.Cut(c.platform, "/")
	s.cfg.Config.User, s.cfg.Config.WorkingDir = c.user, c.dir
	b := &builder{opts: c.opts}
	for _, in := range f.Stages[0].Instructions {
		out, err := s.scope.Expand(in)
		if err != nil {
			t.Fatal(err)
		}
		if run, ok := out.(*dockerfile.Run); ok {
			set := &mountSet{}
			for _, m := range run.Mounts {
				set.list = append(set.list, &runMount{Mount: m, sum: c.sum, src: &copySource{fs: &fsState{}}})
			}
			return b.runIdentity(s, run, c.network, set)
		}
	}
	t.Fatal("no RUN")
	return ""
}

// LAWS 6, 7, 8: what decides about a step beside what it looks at is in its identity;
// what is below is not, nor what a bind mount holds, nor a proxy.
func TestIdentity(t *testing.T) {
	const bind, cacheFrom = "RUN --mount=type=bind,target=/src x", "RUN --mount=type=cache,target=/c,from=scratch x"
	const bindDir = "RUN --mount=type=bind,from=scratch,source=/d,target=/src x"
	base := identityCase{dockerfile: "FROM scratch\nARG A\nENV E=1\nRUN x\n", args: map[string]string{"A": "1", "HTTP_PROXY": "p"}, platform: "linux/amd64"}
	run := func(with string) func(*identityCase) {
		return func(c *identityCase) { c.dockerfile = strings.Replace(c.dockerfile, "RUN x", with, 1) }
	}
	cases := []struct {
		name     string
		from, to func(c *identityCase)
		same     bool
	}{
		{"nothing", nil, func(*identityCase) {}, true},
		{"the chain below", nil, func(c *identityCase) { c.key = "other" }, true},
		{"the base image", nil, func(c *identityCase) { c.base = "other" }, true},
		{"a comment", nil, func(c *identityCase) { c.dockerfile = "# hi\n" + c.dockerfile }, true},
		{"a proxy", nil, func(c *identityCase) { c.args = map[string]string{"A": "1", "HTTP_PROXY": "q"} }, true},
		{"an argument that is not declared", nil, func(c *identityCase) { c.args = map[string]string{"A": "1", "B": "2"} }, true},
		{"what is bound", run(bind), func(c *identityCase) { c.sum = "other" }, true},
		{"which directory is bound", run(bindDir), func(c *identityCase) { c.dockerfile = strings.Replace(c.dockerfile, "source=/d", "source=/e", 1) }, true},
		{"how long networks count", nil, func(c *identityCase) { c.opts.TraceNetTTL = 1 }, true},
		{"checking", nil, func(c *identityCase) { c.opts.CacheCheck = true }, true},

		{"a declared argument", nil, func(c *identityCase) { c.args = map[string]string{"A": "2"} }, false},
		{"another argument is declared", nil, func(c *identityCase) { c.dockerfile = strings.Replace(c.dockerfile, "ARG A", "ARG A\nARG B=1", 1) }, false},
		{"the command", nil, run("RUN y"), false},
		{"exec form", nil, run(`RUN ["x"]`), false},
		{"a heredoc", run("RUN <<x\na\nx"), func(c *identityCase) { c.dockerfile = strings.Replace(c.dockerfile, "\na\n", "\nb\n", 1) }, false},
		{"the shell", nil, run("SHELL [\"/bin/bash\", \"-c\"]\nRUN x"), false},
		{"the environment", nil, func(c *identityCase) { c.dockerfile = strings.Replace(c.dockerfile, "E=1", "E=2", 1) }, false},
		{"the user", nil, func(c *identityCase) { c.user = "app" }, false},
		{"the directory", nil, func(c *identityCase) { c.dir = "/app" }, false},
		{"the network", nil, func(c *identityCase) { c.network = "none" }, false},
		{"a host", nil, func(c *identityCase) { c.opts.AddHosts = []string{"a:1.2.3.4"} }, false},
		{"the platform", nil, func(c *identityCase) { c.platform = "linux/arm64" }, false},
		{"a limit", nil, func(c *identityCase) { c.opts.Limits = []exec.Limit{{Resource: 1, Soft: 2, Hard: 3}} }, false},
		{"shared memory", nil, func(c *identityCase) { c.opts.ShmSize = 1 }, false},
		{"a remote source", nil, func(c *identityCase) { c.barrier = barred("", "x") }, false},
		{"another remote source", func(c *identityCase) { c.barrier = barred("", "x") }, func(c *identityCase) { c.barrier = barred("", "y") }, false},
		{"a mount", nil, run(bind), false},
		{"a mount's target", run(bind), func(c *identityCase) { c.dockerfile = strings.Replace(c.dockerfile, "/src", "/other", 1) }, false},
		{"a mount's mode", run(bind), func(c *identityCase) { c.dockerfile = strings.Replace(c.dockerfile, "/src", "/src,rw", 1) }, false},
		{"all instead of a directory", run(bindDir), func(c *identityCase) { c.dockerfile = strings.Replace(c.dockerfile, "source=/d", "source=/", 1) }, false},
		{"a cache's id", run(cacheFrom), func(c *identityCase) { c.dockerfile = strings.Replace(c.dockerfile, "/c,", "/c,id=x,", 1) }, false},
		{"what a cache starts from", run(cacheFrom), func(c *identityCase) { c.sum = "other" }, false},
		{"times", nil, func(c *identityCase) { c.opts.CacheTimes = true }, false},
		{"the base image with --trace=stage", func(c *identityCase) { c.opts.Trace = TraceStage }, func(c *identityCase) { c.base = "other" }, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			from := base
			if c.from != nil {
				c.from(&from)
			}
			to := from
			c.to(&to)
			if got := from.identity(t) == to.identity(t); got != c.same {
				t.Errorf("the same identity: %v, want %v", got, c.same)
			}
		})
	}
}

// LAWS 6, 9, 10: a result that a trace led to is not found by its exact key where the
// trace would not have been believed.
func TestTrusts(t *testing.T) {
	ttl := Options{TraceNetTTL: time.Hour}
	cases := []struct {
		name   string
		opts   Options
		exact  bool
		traced *tracedBy
		want   bool
	}{
		{"done here", Options{Trace: TraceOff, CacheTimes: true}, true, nil, true},
		{"traced", ttl, false, &tracedBy{}, true},
		{"--trace=off", Options{Trace: TraceOff}, false, &tracedBy{}, false},
		{"cache=exact", ttl, true, &tracedBy{Done: true}, false},
		{"--cache-check", Options{CacheCheck: true}, false, &tracedBy{}, false},
		{"--cache-check of what it compared", Options{CacheCheck: true}, false, &tracedBy{Done: true}, true},
		{"--cache-times", Options{CacheTimes: true}, false, &tracedBy{}, false},
		{"--cache-times of a trace with times", Options{CacheTimes: true}, false, &tracedBy{Times: true}, true},
		{"--trace=stage", Options{Trace: TraceStage}, false, &tracedBy{}, true},
		{"--trace=stage on another base", Options{Trace: TraceStage}, false, &tracedBy{OtherBase: true}, false},
		{"the network, in time", ttl, false, &tracedBy{Age: time.Minute}, true},
		{"the network, too long ago", ttl, false, &tracedBy{Age: 2 * time.Hour}, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			if c.exact {
				ctx = context.WithValue(ctx, onlyExact{}, true)
			}
			if got := (&builder{opts: c.opts}).trusts(ctx, c.traced); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}
