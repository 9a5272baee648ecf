package build

import (
	"context"
	"io"
	"maps"

	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/progress"
)

// sendingTarball is what BuildKit calls the writing of an archive.
const sendingTarball = "sending tarball"

// writeDocker writes the archive of an OutputDocker to its file, or to whoever
// loads it.
func (b *builder) writeDocker(ctx context.Context, img *oci.Built, o Output, step *progress.Step) error {
	archive := func(w io.Writer) error {
		s := &sentWriter{w: w, step: step, total: img.Size()}
		err := oci.WriteDockerArchive(ctx, s, oci.Saved{Image: img, Names: b.names(o)})
		if err == nil {
			step.Status(sendingTarball, s.sent, s.sent, true)
		}
		return err
	}
	if o.Load != nil {
		return o.Load(ctx, step, archive)
	}
	return b.toFile(o.Dest, archive)
}

// sentWriter shows how much of an archive is written.
type sentWriter struct {
	w           io.Writer
	step        *progress.Step
	sent, total int64
}

func (s *sentWriter) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.sent += int64(n)
	s.step.Status(sendingTarball, min(s.sent, s.total), s.total, false)
	return n, err
}

// annotations are the build's and the output's own; nil for none.
func (b *builder) annotations(o Output) map[string]string {
	if len(b.opts.Annotations)+len(o.Annotations) == 0 {
		return nil
	}
	m := map[string]string{}
	maps.Copy(m, b.opts.Annotations)
	maps.Copy(m, o.Annotations)
	return m
}
