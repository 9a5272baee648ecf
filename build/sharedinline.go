package build

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// inlineAnnotation is the annotation of an image's manifest that holds the cache of
// --cache-to=type=inline: the list of the results whose layers the image has.
const inlineAnnotation = "dev.fbuild.cache.v1"

// maxInline bounds it; packed, in base64.
const maxInline = 128 << 10

// encodeInline writes the list of an image.
func encodeInline(entries []sharedEntry) (string, error) {
	data, err := encodeDoc(entries)
	if err != nil {
		return "", err
	}
	packed, err := packValue(data)
	if err != nil {
		return "", err
	}
	text := base64.StdEncoding.EncodeToString(packed)
	if len(text) > maxInline {
		return "", fmt.Errorf("inline cache: %d results need %d bytes, and a manifest has room for %d: use --cache-to type=registry", len(entries), len(text), maxInline)
	}
	return text, nil
}

// decodeInline reads what anybody may have written.
func decodeInline(text string) ([]byte, error) {
	if len(text) > maxInline {
		return nil, fmt.Errorf("its inline cache has %d bytes, at most %d are read", len(text), maxInline)
	}
	packed, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("its inline cache cannot be read")
	}
	return unpackAtMost(bytes.NewReader(packed), maxSharedDoc)
}

// withInline adds the list of the image's results to its annotations, where it is
// asked for. It holds no times of its own: the same build gives the same image.
func (b *builder) withInline(ctx context.Context, s *state, annotations map[string]string) (map[string]string, error) {
	if !slices.ContainsFunc(b.opts.CacheTo, func(c CacheSpec) bool { return c.Type == CacheInline }) {
		return annotations, nil
	}
	items, err := b.sharedItems(ctx, s)
	if err != nil {
		return nil, err
	}
	var entries []sharedEntry
	for i := range items {
		if it := &items[i]; it.Blob == nil && (it.Kind == kindStep || it.Kind == kindAlias) {
			it.At = time.Time{}
			entries = append(entries, it.sharedEntry)
		}
	}
	text, err := encodeInline(entries)
	if err != nil {
		return nil, err
	}
	out := maps.Clone(annotations)
	if out == nil {
		out = map[string]string{}
	}
	out[inlineAnnotation] = text
	return out, nil
}
