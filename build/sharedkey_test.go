package build

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
)

func newTestKey(t *testing.T) *cacheKey {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &cacheKey{private, public}
}

func TestCheckCacheKey(t *testing.T) {
	k := newTestKey(t)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err1 := x509.MarshalPKCS8PrivateKey(k.private)
	public, err2 := x509.MarshalPKIXPublicKey(k.public)
	foreign, err3 := x509.MarshalPKCS8PrivateKey(other)
	for _, err := range []error{err1, err2, err3} {
		if err != nil {
			t.Fatal(err)
		}
	}
	block := func(kind string, data []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}) }
	tests := []struct {
		name          string
		data          []byte
		reads, writes bool
	}{
		{"private", block("PRIVATE KEY", private), true, true},
		{"public", block("PUBLIC KEY", public), true, false},
		{"of another kind", block("PRIVATE KEY", foreign), false, false},
		{"under another name", block("PUBLIC KEY", private), false, false},
		{"cut short", block("PRIVATE KEY", private[:20]), false, false},
		{"no key", []byte("secret\n"), false, false},
		{"empty", nil, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "key")
			if err := os.WriteFile(name, tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := CheckCacheKey(name, false); (err == nil) != tt.reads {
				t.Errorf("to read: got %v, want accepted %v", err, tt.reads)
			}
			if err := CheckCacheKey(name, true); (err == nil) != tt.writes {
				t.Errorf("to write: got %v, want accepted %v", err, tt.writes)
			}
		})
	}
}
