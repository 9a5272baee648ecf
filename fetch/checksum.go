package fetch

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

// Checksum is the digest that a file must have, "ALGORITHM:HEX"; "" for any.
type Checksum string

// ParseChecksum reads a checksum as BuildKit takes it: sha256, sha384 or sha512.
func ParseChecksum(text string) (Checksum, error) {
	algorithm, digits, ok := strings.Cut(text, ":")
	if !ok {
		return "", fmt.Errorf("checksum %q: want ALGORITHM:HEX, as in sha256:01ab", text)
	}
	h, err := newHash(algorithm)
	if err != nil {
		return "", fmt.Errorf("checksum %q: %w", text, err)
	}
	if raw, err := hex.DecodeString(digits); err != nil || len(raw) != h.Size() || strings.ToLower(digits) != digits {
		return "", fmt.Errorf("checksum %q: want %d lower-case hex digits after %s", text, 2*h.Size(), algorithm)
	}
	return Checksum(text), nil
}

func newHash(algorithm string) (hash.Hash, error) {
	switch algorithm {
	case "sha256":
		return sha256.New(), nil
	case "sha384":
		return sha512.New384(), nil
	case "sha512":
		return sha512.New(), nil
	}
	return nil, fmt.Errorf("algorithm %q is not supported: there are sha256, sha384 and sha512", algorithm)
}

// verifier hashes what is written to it; nil checks nothing.
type verifier struct {
	want Checksum
	hash hash.Hash
}

func (c Checksum) verifier() (*verifier, error) {
	if c == "" {
		return nil, nil
	}
	if _, err := ParseChecksum(string(c)); err != nil {
		return nil, err
	}
	algorithm, _, _ := strings.Cut(string(c), ":")
	h, err := newHash(algorithm)
	return &verifier{c, h}, err
}

func (v *verifier) check() error {
	if v == nil {
		return nil
	}
	algorithm, _, _ := strings.Cut(string(v.want), ":")
	if got := algorithm + ":" + hex.EncodeToString(v.hash.Sum(nil)); got != string(v.want) {
		return fmt.Errorf("%w: got %s, want %s", ErrChecksum, got, v.want)
	}
	return nil
}
