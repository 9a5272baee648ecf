package build

import (
	"strings"
	"testing"

	"github.com/fbuild/fbuild/dockerfile"
)

// LAWS 9: a cache mount is seen wherever it is written, also in a trigger of the base
// image, which is not in the Dockerfile.
func TestSeeCaches(t *testing.T) {
	for _, c := range []struct {
		step string
		want bool
	}{
		{"RUN x", false},
		{"RUN echo type=cache", false},
		{"RUN --mount=type=bind,target=/c x", false},
		{"RUN --mount=type=cache,target=/c x", true},
		{"RUN --mount=target=/c,type=cache x", true},
		{"ARG T=cache\nRUN --mount=type=$T,target=/c x", true},
	} {
		f, err := dockerfile.Parse("Dockerfile", []byte("FROM base\n"+c.step+"\n"), dockerfile.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var written, triggered builder
		written.seeCaches(f.Stages[0].Instructions)
		if got := written.caches.Load(); got != c.want {
			t.Errorf("%s: got %v, want %v", c.step, got, c.want)
		}
		triggers, err := f.ParseOnBuild(f.Stages[0], strings.Split(c.step, "\n"))
		if err != nil {
			t.Fatal(err)
		}
		triggered.seeCaches(triggers)
		if got := triggered.caches.Load(); got != c.want {
			t.Errorf("ONBUILD %s: got %v, want %v", c.step, got, c.want)
		}
	}
}
