package main

import (
	"strings"
	"testing"
)

// What is wrong with a cache is told without the keys of its bucket, and nothing of a
// flag is left out silently.
func TestCacheFlagsWithoutSecrets(t *testing.T) {
	for name, text := range map[string]string{
		"no attribute":   "type=s3,bucket=b,region=r,secret_access_key=hidden,Session_Token=hidden,other",
		"no type":        "bucket=b,secret_access_key = hidden",
		"a quote":        "type=s3,\"secret_access_key=hidden\"x",
		"two lines":      "type=s3,secret_access_key=hidden\ntype=inline",
		"an address":     "type=s3,bucket=b,region=r,access_key_id=i,secret_access_key=s,endpoint_url=https://me:hidden@host",
		"two lines more": "a:1\nb:1",
	} {
		_, err := parseCaches("cache-to", []string{text})
		if err == nil || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: got %v, want an error without what is hidden", name, err)
		}
	}
}
