package oci

import (
	"context"
	"net/http"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// CheckPush finds out whether the caller may push to the repository of a name, by
// beginning an upload and giving it up: not every registry says so earlier.
func (r *Remote) CheckPush(ctx context.Context, name string) error {
	tag, err := parseTag(name)
	if err != nil {
		return err
	}
	repo := tag.Context()
	p := &pusher{target: &pushTarget{repo: repo}}
	if p.s, err = r.session(ctx, repo, []string{repo.Scope(transport.PushScope)}); err != nil {
		return remoteError("push", tag, err)
	}
	var location string
	err = p.s.retry(ctx, func() error {
		location, err = p.post(ctx, "", http.StatusAccepted)
		return err
	})
	if err != nil {
		return remoteError("push", tag, err)
	}
	return p.giveUp(ctx, location)
}

// giveUp cancels an upload. A registry that cannot do that forgets it by itself.
func (p *pusher) giveUp(ctx context.Context, location string) error {
	req, err := p.s.request(http.MethodDelete, location, nil)
	if err != nil {
		return nil //nolint:nilerr // as above
	}
	resp, err := p.s.do(ctx, req, p.s.pace.answer, nil, http.StatusOK, http.StatusAccepted, http.StatusNoContent)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		return nil
	}
	return resp.Body.Close()
}
