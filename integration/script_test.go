//go:build integration

package integration

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite the golden text inside the scripts")

// TestScript runs testdata/script, each script on its legs of the matrix.
func TestScript(t *testing.T) {
	all, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	byLeg := map[string][]string{}
	of := map[string]leg{}
	for _, name := range all {
		for _, l := range legs(name) {
			byLeg[l.String()] = append(byLeg[l.String()], name)
			of[l.String()] = l
		}
	}
	for name, files := range byLeg {
		t.Run(name, func(t *testing.T) {
			testscript.Run(t, params(of[name], files))
		})
	}
}

// homeKey finds a script's home.
type homeKey struct{}

func params(l leg, files []string) testscript.Params {
	return testscript.Params{
		Files: files, WorkdirRoot: suite.dir, UpdateScripts: *update, RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			// The testing.T of a script is behind testscript.T.
			t, ok := env.T().(interface {
				Cleanup(fn func())
				Error(args ...any)
			})
			if !ok {
				return fmt.Errorf("a script's T is a %T", env.T())
			}
			h := &home{leg: l, dir: env.WorkDir, ctx: env.WorkDir}
			if err := h.furnish(); err != nil {
				return err
			}
			h.t, _ = env.T().(testing.TB)
			env.Vars = append(env.Vars, h.env...)
			env.Vars = append(env.Vars, "LEG="+l.String(), "STORE="+h.store, "REGISTRY="+suite.reg.host(), "BASES="+suite.bases, "RECORDER="+l.recorder)
			env.Values[homeKey{}] = h
			env.Values[webKey{}] = &webServer{}
			env.Defer(func() {
				for _, p := range h.leftovers() {
					t.Error(p)
				}
				if os.Getenv("FBUILD_KEEP") == "" {
					h.dropTrees()
					_ = os.RemoveAll(h.dir)
				}
			})
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root", "user":
				return l.name == cond, nil
			case "fuse", "overlay", "walk":
				return l.recorder == cond, nil
			case "userns":
				return haveUserNS(), nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"img": cmdImg, "index": cmdIndex, "agree": cmdAgree, "code": cmdCode, "cached": cmdCached, "expand": cmdExpand, "need": cmdNeed,
			"damaged": cmdDamaged, "tarls": cmdTarls, "same": cmdSame, "serve": cmdServe, "sshd": cmdSSHD,
		},
	}
}

func scriptHome(ts *testscript.TestScript) *home { return ts.Value(homeKey{}).(*home) }

// haveUserNS reports whether an ordinary user may make user namespaces here.
func haveUserNS() bool {
	for _, f := range []string{"/proc/sys/user/max_user_namespaces", "/proc/sys/kernel/unprivileged_userns_clone"} {
		if data, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(data)) == "0" {
			return false
		}
	}
	return true
}
