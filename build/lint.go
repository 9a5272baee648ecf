package build

import (
	"context"

	"github.com/fbuild/fbuild/dockerfile"
)

// Lint returns the warnings of a build without running a step: base images are
// asked for their configuration, because variables come from it, and nothing else
// is fetched or stored.
func Lint(ctx context.Context, o Options) ([]dockerfile.Warning, error) {
	o.lint, o.Outputs, o.CacheRepo = true, nil, ""
	res, err := Build(ctx, o)
	if err != nil {
		return nil, err
	}
	return res.Warnings, nil
}

// lintInstruction takes the stage's configuration one instruction further.
func lintInstruction(s *state, in dockerfile.Instruction) {
	if w, ok := in.(*dockerfile.Workdir); ok {
		s.cfg.Config.WorkingDir = w.Path
		return
	}
	setConfig(&s.cfg, in)
}
