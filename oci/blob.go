package oci

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	maxManifest = 4 << 20 // bytes of a manifest or an index
	maxConfig   = 8 << 20 // bytes of a config
)

// opener opens a blob as it is stored, not yet verified.
type opener func(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error)

// verified opens a blob whose reader ends with ErrDigest unless digest and size
// are those of d.
func (open opener) verified(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	if err := checkDescriptor(d); err != nil {
		return nil, err
	}
	h, err := v1.Hasher(d.Digest.Algorithm)
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w: %w", d.Digest, ErrUnsupported, err)
	}
	r, err := open(ctx, d)
	if err != nil {
		return nil, err
	}
	return &verifier{r: r, h: h, want: d.Digest, left: d.Size}, nil
}

// read returns a whole small blob, from another place where one has false bytes.
func (open opener) read(ctx context.Context, d v1.Descriptor, limit int64, what string) ([]byte, error) {
	for {
		b, err := open.readOnce(ctx, d, limit, what)
		if !OtherCopy(err) {
			return b, err
		}
	}
}

func (open opener) readOnce(ctx context.Context, d v1.Descriptor, limit int64, what string) ([]byte, error) {
	if d.Size > limit {
		return nil, fmt.Errorf("%s %s: %w: %d bytes, at most %d are read", what, d.Digest, ErrTooLarge, d.Size, limit)
	}
	r, err := open.verified(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	b, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return b, nil
}

func checkDescriptor(d v1.Descriptor) error {
	if d.Digest.Hex == "" || d.Size < 0 {
		return fmt.Errorf("%w: descriptor with digest %q and size %d", ErrInvalid, d.Digest, d.Size)
	}
	// A Hash made by hand may hold anything; what comes from JSON was checked.
	if _, err := v1.NewHash(d.Digest.String()); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

// verifier hashes what it hands on and puts ErrDigest in the place of io.EOF.
type verifier struct {
	r    io.ReadCloser
	h    hash.Hash
	want v1.Hash
	left int64
	err  error
}

func (v *verifier) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.r.Read(p)
	if int64(n) > v.left {
		n = int(v.left)
		err = fmt.Errorf("blob %s: %w: longer than its descriptor says", v.want, ErrDigest)
	}
	v.h.Write(p[:n])
	v.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = v.end()
	}
	v.err = err
	return n, err
}

func (v *verifier) end() error {
	if v.left > 0 {
		return fmt.Errorf("blob %s: %w: %d bytes are missing", v.want, ErrDigest, v.left)
	}
	if got := fmt.Sprintf("%x", v.h.Sum(nil)); got != v.want.Hex {
		return fmt.Errorf("blob %s: %w: it is %s:%s", v.want, ErrDigest, v.want.Algorithm, got)
	}
	return io.EOF
}

// Close closes the source.
func (v *verifier) Close() error { return v.r.Close() }
