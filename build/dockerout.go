package build

import (
	"context"
	"io"

	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/progress"
)

// sendingTarball is what BuildKit calls the writing of an archive.
const sendingTarball = "sending tarball"

// writeDocker writes the archive of an OutputDocker to its file, or to whoever
// loads it.
func (b *builder) writeDocker(ctx context.Context, img oci.Writable, o Output, step *progress.Step) error {
	archive := func(w io.Writer) error {
		s := &sentWriter{w: w, step: step, total: oci.Size(img)}
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
