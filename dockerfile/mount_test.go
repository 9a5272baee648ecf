package dockerfile

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// expandMount evaluates a RUN below `FROM a`, with WORKDIR /w and some variables.
func expandMount(t *testing.T, flags string) ([]Mount, error) {
	t.Helper()
	f := mustParse(t, Options{}, "FROM a AS tool", "FROM b", "WORKDIR /w", "ARG T=cache", "ENV DIR=/var/x SHARE=locked N=1000 YES=true", "RUN "+flags+" true")
	_, list, err := evaluate(f, f.Stages[1], ScopeOptions{})
	if err != nil {
		return nil, err
	}
	return list[len(list)-1].(*Run).Mounts, nil
}

// Defaults and the fields that expand variables are BuildKit's.
func TestMounts(t *testing.T) {
	for _, tt := range []struct {
		name, flags string
		want        []Mount
	}{
		{"bind is the default", "--mount=target=.", []Mount{{Type: MountBind, Target: "/w", ReadOnly: true}}},
		{"no target is the working directory", "--mount=type=bind", []Mount{{Type: MountBind, Target: "/w", ReadOnly: true}}},
		{"bind rw", "--mount=type=bind,src=a/b,dst=/x,rw", []Mount{{Type: MountBind, Source: "a/b", Target: "/x"}}},
		{"rw=false", "--mount=source=a,destination=/x,rw=false", []Mount{{Type: MountBind, Source: "a", Target: "/x", ReadOnly: true}}},
		{"from a stage", "--mount=from=tool,target=/x", []Mount{{Type: MountBind, From: "tool", Target: "/x", ReadOnly: true}}},
		{"from an image", "--mount=from=busybox:1,target=/x", []Mount{{Type: MountBind, From: "busybox:1", Target: "/x", ReadOnly: true}}},
		{"cache", "--mount=type=cache,target=/c", []Mount{{Type: MountCache, Target: "/c", ID: "/c", Sharing: "shared"}}},
		{"the id of a cache is its target as written", "--mount=type=cache,target=c/../d/", []Mount{{Type: MountCache, Target: "/w/d", ID: "d", Sharing: "shared"}}},
		{
			"cache with everything", "--mount=type=cache,id=i,target=/c,sharing=locked,mode=1777,uid=1,gid=2,ro,from=tool,source=/s",
			[]Mount{{Type: MountCache, ID: "i", Target: "/c", Sharing: "locked", Mode: new(uint32(0o1777)), UID: new(uint32(1)), GID: new(uint32(2)), ReadOnly: true, From: "tool", Source: "/s"}},
		},
		{
			"variables in every value but from", "--mount=type=$T,target=${DIR}/c,id=$N,sharing=${SHARE},uid=$N,ro=$YES",
			[]Mount{{Type: MountCache, ID: "1000", Target: "/var/x/c", Sharing: "locked", UID: new(uint32(1000)), ReadOnly: true}},
		},
		{"tmpfs", "--mount=type=tmpfs,target=/t,size=64m", []Mount{{Type: MountTmpfs, Target: "/t", Size: 64 << 20}}},
		{"secret", "--mount=type=secret,id=a/b", []Mount{{Type: MountSecret, ID: "a/b", Target: "/run/secrets/b", ReadOnly: true}}},
		{"secret by target", "--mount=type=secret,target=x/.npmrc,required", []Mount{{Type: MountSecret, ID: ".npmrc", Target: "/w/x/.npmrc", ReadOnly: true, Required: true}}},
		{"secret by source", "--mount=type=secret,src=s,mode=0440,uid=7,gid=8", []Mount{{Type: MountSecret, ID: "s", Target: "/run/secrets/s", ReadOnly: true, Mode: new(uint32(0o440)), UID: new(uint32(7)), GID: new(uint32(8))}}},
		{"secret as a variable", "--mount=type=secret,id=s,env=TOKEN", []Mount{{Type: MountSecret, ID: "s", ReadOnly: true, Env: new("TOKEN")}}},
		{"secret as both", "--mount=type=secret,id=s,env=,target=/t", []Mount{{Type: MountSecret, ID: "s", Target: "/t", ReadOnly: true, Env: new("s")}}},
		{
			"agents are counted", "--mount=type=ssh --mount=type=tmpfs,target=/t --mount=type=ssh,id=x,required=true",
			[]Mount{
				{Type: MountSSH, ID: "default", Target: "/run/buildkit/ssh_agent.0", ReadOnly: true},
				{Type: MountTmpfs, Target: "/t"},
				{Type: MountSSH, ID: "x", Target: "/run/buildkit/ssh_agent.1", ReadOnly: true, Required: true},
			},
		},
		{"a comma in quotes", `--mount='type=cache,"target=/a,b"'`, []Mount{{Type: MountCache, ID: "/a,b", Target: "/a,b", Sharing: "shared"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := expandMount(t, tt.flags)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(Mount{}, "FromStage")); diff != "" {
				t.Errorf("mounts (-want +got):\n%s", diff)
			}
			for _, m := range got {
				if (m.From == "tool") != (m.FromStage != nil) {
					t.Errorf("stage of from=%q: got %v", m.From, m.FromStage)
				}
			}
		})
	}
}

func TestMountErrors(t *testing.T) {
	for _, tt := range []struct{ name, flags, want, hint string }{
		{"type", "--mount=type=cach,target=/x", `unsupported mount type "cach"`, "did you mean cache?"},
		{"key", "--mount=type=cache,targt=/x", `unexpected key 'targt' in 'targt=/x'`, "did you mean target?"},
		{"sharing", "--mount=type=cache,target=/x,sharing=lock", `unsupported sharing value "lock"`, "did you mean locked?"},
		{"root", "--mount=type=cache,target=/", `invalid mount target "/"`, ""},
		{"above the root", "--mount=type=cache,target=../../..", `invalid mount target "/"`, ""},
		{"mode of a bind", "--mount=type=bind,target=/x,mode=0700", `mode not allowed for "bind" type mounts`, ""},
		{"size of a cache", "--mount=type=cache,target=/x,size=1m", `unexpected key 'size' for mount type 'cache'`, ""},
		{"required cache", "--mount=type=cache,target=/x,required", `unexpected key 'required' for mount type 'cache'`, ""},
		{"secret without a name", "--mount=type=secret", "invalid secret mount. one of source, target required", ""},
		{"secret from", "--mount=type=secret,id=x,from=tool", "secret mount should not have a from", ""},
		{"ssh with a source", "--mount=type=ssh,source=x", "ssh does not support source", ""},
		{"env of a cache", "--mount=type=cache,target=/x,env=A", `env not allowed for "cache" type mounts`, ""},
		{"part of nothing", "--mount=type=cache,target=/x,source=/y", "cache mount has a source and no from: name the stage or image that it starts from", ""},
		{"a size below nothing", "--mount=type=tmpfs,target=/x,size=-1", "invalid value for size: -1", ""},
		{"no value", "--mount=type=cache,target", "invalid field 'target' must be a key=value pair", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := expandMount(t, tt.flags)
			if err == nil {
				t.Fatal("got no error")
			}
			if pe := asParseError(t, err); pe.Err.Error() != tt.want || pe.Hint != tt.hint || pe.Line != 6 {
				t.Errorf("got line %d %q hint %q, want line 6 %q %q", pe.Line, pe.Err, pe.Hint, tt.want, tt.hint)
			}
		})
	}
}

// What a mount names is needed; from= takes no variables and no later stage.
func TestMountFrom(t *testing.T) {
	f := mustParse(t, Options{}, "FROM a AS unused", "FROM a AS tool", "FROM b", "RUN --mount=from=TOOL,target=/x true")
	var got []string
	for _, st := range Needed(f.Stages[2]) {
		got = append(got, st.Label())
	}
	if want := "tool stage-2"; strings.Join(got, " ") != want {
		t.Errorf("needed: got %q, want %q", got, want)
	}
	if _, err := Parse("Dockerfile", []byte("FROM a\nARG X\nRUN --mount=from=$X,target=/x true\n"), Options{}); err == nil || !strings.Contains(err.Error(), "'from' doesn't support variable expansion") {
		t.Errorf("from=$X: got %v", err)
	}
	if _, err := Parse("Dockerfile", []byte("FROM a AS x\nRUN --mount=from=x,target=/x true\n"), Options{}); err == nil || !strings.Contains(err.Error(), "circular dependency") {
		t.Errorf("from itself: got %v", err)
	}
	f = mustParse(t, Options{}, "FROM a", "RUN --mount=from=later,target=/x true", "FROM b AS later")
	if _, err := f.Target("0"); err == nil || !strings.Contains(err.Error(), `cannot mount from stage "later"`) {
		t.Errorf("from a later stage: got %v", err)
	}
	if _, err := f.Target("later"); err != nil {
		t.Errorf("a stage that does not need it: got %v", err)
	}
}

// A title shows the flags as written, with variables replaced, but never the variable that a secret fills; the history
// shows the command only. A RUN can be evaluated again.
func TestMountTitleAndHistory(t *testing.T) {
	f := mustParse(t, Options{}, "FROM a", "ENV TOKEN=public D=/d", "RUN --mount=type=secret,id=t,env=TOKEN --mount=type=cache,target=$D echo $TOKEN $D")
	for range 2 {
		s := NewScope(f, ScopeOptions{})
		for _, in := range f.Stages[0].Instructions {
			title := s.Title(in)
			out, err := s.Expand(in)
			if err != nil {
				t.Fatal(err)
			}
			run, ok := out.(*Run)
			if !ok {
				continue
			}
			if want := "RUN --mount=type=secret,id=t,env=TOKEN --mount=type=cache,target=/d echo **** /d"; title != want {
				t.Errorf("title: got %q, want %q", title, want)
			}
			if got, want := s.CreatedBy(run), "RUN /bin/sh -c echo $TOKEN $D # buildkit"; got != want {
				t.Errorf("history: got %q, want %q", got, want)
			}
		}
	}
}
