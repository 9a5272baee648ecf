//go:build integration

package integration

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestXattrs: extended attributes and capabilities pass through RUN, COPY --from
// and the layers.
func TestXattrs(t *testing.T) {
	eachLeg(t, func(t *testing.T, h *home) {
		h.probe()
		h.dockerfile("FROM busybox AS src", "COPY --chmod=755 probe /probe",
			"RUN echo data > /f && /probe setxattr /f user.one 1 && /probe setxattr /f user.two 22 && mkdir -p /p/d && /probe setxattr /p/d user.dir 3 && echo c > /cap && /probe setcap /cap",
			"FROM busybox", "COPY --from=src /f /cap /copied/", "COPY --from=src /p /",
			"COPY --from=src /probe /probe",
			"RUN mv /copied/f /moved && /probe setxattr /moved user.one changed", "RUN chmod 600 /copied/cap", "RUN chown app /copied/cap && touch /d/x")
		h.ok("build", "-t", "x", ".")
		var got []string
		for l := range strings.Lines(h.describe("x", "layers")) {
			if !strings.Contains(l, "probe") {
				got = append(got, strings.TrimSpace(l))
			}
		}
		capability := " security.capability=0100000200200000000000000000000000000000"
		want := []string{
			"layer 0", "d 0755 0:0 0 copied/", "- 0644 0:0 2 copied/cap" + capability, "- 0644 0:0 5 copied/f user.one=31 user.two=3232",
			"layer 1", "d 0755 0:0 0 d/ user.dir=33",
			"layer 2",
			"layer 3", "d 0755 0:0 0 copied/", "- 0000 0:0 0 copied/.wh.f", "- 0644 0:0 5 moved user.one=6368616e676564 user.two=3232",
			"layer 4", "d 0755 0:0 0 copied/", "- 0600 0:0 2 copied/cap" + capability,
			"layer 5", "d 0755 0:0 0 copied/", "- 0600 1000:0 2 copied/cap", "d 0755 0:0 0 d/ user.dir=33", "- 0644 0:0 0 d/x", // chown takes capabilities away
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("layers (-want +got):\n%s", diff)
		}
	})
}

// TestBaseLayers: whiteouts, opaque directories, replaced kinds, several
// compressions of a base mean what docker makes of them (LAWS 15).
func TestBaseLayers(t *testing.T) {
	eachLeg(t, func(t *testing.T, h *home) {
		flag := h.base(t,
			mustTar(t, file{name: "gone", data: "1", mode: 0o644}, file{name: "dir/", mode: 0o755}, file{name: "dir/old", data: "2", mode: 0o644},
				file{name: "opaque/", mode: 0o750}, file{name: "opaque/old", data: "3", mode: 0o644}, file{name: "tofile/", mode: 0o755},
				file{name: "tofile/x", data: "4", mode: 0o644}, file{name: "todir", data: "5", mode: 0o644}, file{name: "a", data: "6", mode: 0o644}, file{name: "b", hard: "a"}),
			mustTar(t, file{name: ".wh.gone"}, file{name: "dir/.wh.old"}, file{name: "dir/new", data: "7", mode: 0o644},
				file{name: "opaque/new", data: "8", mode: 0o644}, file{name: "opaque/.wh..wh..opq"}, file{name: "tofile", data: "9", mode: 0o644},
				file{name: "todir/", mode: 0o711}, file{name: "no/parent/f", data: "10", mode: 0o644}, file{name: "twice", data: "first", mode: 0o644},
				file{name: "twice", data: "second", mode: 0o600}, file{name: "c", hard: "b"}, file{name: ".wh.never"}),
		)
		h.dockerfile("FROM base", `RUN for d in dir opaque no todir; do find /$d; done | sort > /found; test ! -e /gone && test -f /tofile && cat /tofile /twice /c >> /found; stat -c '%n %a %h' /a /b /c /opaque /todir /no/parent /twice >> /found`)
		h.ok("build", flag, "-t", "layers", ".")
		want := "/dir\n/dir/new\n/no\n/no/parent\n/no/parent/f\n/opaque\n/opaque/new\n/todir\n9second6" +
			"/a 644 3\n/b 644 3\n/c 644 3\n/opaque 750 1\n/todir 711 1\n/no/parent 755 1\n/twice 600 1\n"
		got := strings.NewReplacer("/opaque 750 2", "/opaque 750 1", "/todir 711 2", "/todir 711 1", "/no/parent 755 2", "/no/parent 755 1").Replace(h.cat("layers", "found"))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("base as a RUN sees it (-want +got):\n%s", diff)
		}
	})
}
