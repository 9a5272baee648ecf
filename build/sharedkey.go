package build

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// cacheKey signs the entries of shared caches, or only knows whose signature counts. A
// nil one neither signs nor asks for signatures.
type cacheKey struct {
	private ed25519.PrivateKey // nil of a public key
	public  ed25519.PublicKey
}

// readCacheKey reads the file of --cache-key: an ed25519 key as `openssl genpkey` or
// `openssl pkey -pubout` writes it; nil for "".
func readCacheKey(name string) (*cacheKey, error) {
	if name == "" {
		return nil, nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read cache key: %w", err)
	}
	wrong := fmt.Errorf("cache key %s: want an ed25519 key in PEM form, as `openssl genpkey -algorithm ed25519` writes it", name)
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, wrong
	}
	switch block.Type {
	case "PRIVATE KEY":
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if private, ok := key.(ed25519.PrivateKey); err == nil && ok {
			public, _ := private.Public().(ed25519.PublicKey)
			return &cacheKey{private, public}, nil
		}
	case "PUBLIC KEY":
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if public, ok := key.(ed25519.PublicKey); err == nil && ok {
			return &cacheKey{public: public}, nil
		}
	}
	return nil, wrong
}

var errPublicKey = errors.New("a public key cannot sign")

// CheckCacheKey reports whether a file can be Options.CacheKey, for a build that
// writes to a shared cache or only reads.
func CheckCacheKey(name string, writes bool) error {
	k, err := readCacheKey(name)
	if err == nil && writes && k != nil && k.private == nil {
		return fmt.Errorf("cache key %s: %w what --cache-to stores", name, errPublicKey)
	}
	return err
}

// sign signs an entry where there is a key to do so.
func (k *cacheKey) sign(e *sharedEntry) {
	if k != nil && k.private != nil {
		e.Sig = ed25519.Sign(k.private, e.signed())
	}
}

// holds reports whether an entry is signed as it must be.
func (k *cacheKey) holds(e *sharedEntry) bool {
	return k == nil || len(e.Sig) == ed25519.SignatureSize && ed25519.Verify(k.public, e.signed(), e.Sig)
}
