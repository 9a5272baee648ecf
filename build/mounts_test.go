package build

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbuild/fbuild/dockerfile"
)

// LAWS 25: what is mounted stands where the image's symlinks lead, inside the
// root; only what the image lacks is a stub; what it has there on purpose stays.
func TestMountsOfARun(t *testing.T) {
	tests := []struct {
		name           string
		tree           []string
		targets, stubs []string
	}{
		{
			"nothing there", nil,
			[]string{"/etc/hosts", "/etc/resolv.conf"},
			[]string{"dev", "etc/hosts", "etc/resolv.conf", "proc", "sys"},
		},
		{
			"all there",
			[]string{"dev/", "proc/", "sys/", "etc/", "etc/hosts", "etc/resolv.conf"},
			[]string{"/etc/hosts", "/etc/resolv.conf"},
			nil,
		},
		{
			"a symlink that leads to nothing",
			[]string{"dev/", "proc/", "sys/", "etc/", "etc/hosts", "etc/resolv.conf -> ../../../run/systemd/resolv.conf"},
			[]string{"/etc/hosts", "/run/systemd/resolv.conf"},
			[]string{"run/systemd/resolv.conf"},
		},
		{
			"an absolute symlink",
			[]string{"dev/", "proc/", "sys/", "real/", "real/hosts", "real/resolv.conf", "etc -> /real"},
			[]string{"/real/hosts", "/real/resolv.conf"},
			nil,
		},
		{
			"a directory and a place of the kernel",
			[]string{"dev/", "proc/", "sys/", "etc/", "etc/hosts/", "etc/resolv.conf -> /proc/net"},
			nil, nil,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newWorld(t).builder()
			var p prepared
			stubs, err := b.mounts(t.Context(), plant(t, tt.tree...), &dockerfile.Run{}, &served{set: &mountSet{b: b}}, &p)
			if err != nil {
				t.Fatal(err)
			}
			var targets, paths []string
			for _, m := range p.spec.Mounts {
				targets = append(targets, m.Target)
			}
			for _, s := range stubs {
				paths = append(paths, s.Path)
				if want := !strings.Contains(s.Path, "/"); s.Dir != want {
					t.Errorf("stub %s: got directory %v, want %v", s.Path, s.Dir, want)
				}
			}
			slices.Sort(targets)
			slices.Sort(paths)
			if diff := cmp.Diff(tt.targets, targets); diff != "" {
				t.Errorf("mounts (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.stubs, paths); diff != "" {
				t.Errorf("stubs (-want +got):\n%s", diff)
			}
		})
	}
}
