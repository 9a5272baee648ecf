//go:build integration

package integration

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// TestPushRefusedHalfWay: a registry that takes some blobs and then no more, or
// everything but the manifest, is one message with a hint; no name is there, no
// file of a result is written, and another push needs no step.
func TestPushRefusedHalfWay(t *testing.T) {
	tests := []struct {
		name, want, hint string
		lie              func(n *atomic.Int32, r *http.Request) int
	}{
		{"a blob", "403", "fbuild login", func(n *atomic.Int32, r *http.Request) int {
			if (r.Method == http.MethodPut || r.Method == http.MethodPatch) && strings.Contains(r.URL.Path, "/blobs/uploads/") && n.Add(1) > 1 {
				return http.StatusForbidden
			}
			return 0
		}},
		{"the manifest", "413", "sends only what is missing", func(_ *atomic.Int32, r *http.Request) int {
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
				return http.StatusRequestEntityTooLarge
			}
			return 0
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var n atomic.Int32
			var well atomic.Bool
			reg := newRegistry(registryOptions{refuse: func(w http.ResponseWriter, r *http.Request) bool {
				status := 0
				if !well.Load() {
					status = tt.lie(&n, r)
				}
				if status != 0 {
					w.WriteHeader(status)
				}
				return status != 0
			}})
			defer reg.close()
			h := loadHome(t, coveringLegs(t.Name())[0])
			args := []string{"build", "-t", reg.host() + "/app:1", "--push", "--iidfile", "id", "--metadata-file", "m.json", "."}
			r := h.fails(1, tt.want, tt.hint, args...)
			if got := taggedLines(r.stderr, "fbuild: hint: "); len(got) != 1 {
				t.Errorf("hints: got %q, want one\n%s", got, r.stderr)
			}
			if _, err := reg.pull("app:1"); err == nil {
				t.Error("the name is there after a push that failed")
			}
			for _, name := range []string{"id", "m.json"} {
				if _, err := os.Stat(filepath.Join(h.ctx, name)); err == nil {
					t.Errorf("%s was written", name)
				}
			}
			well.Store(true)
			if r := h.ok(args...); len(ranSteps(r.stderr)) > 0 {
				t.Errorf("the second push ran %q", ranSteps(r.stderr))
			}
		})
	}
}
