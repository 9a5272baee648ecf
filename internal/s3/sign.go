package s3

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	timeFormat = "20060102T150405Z"
	// unsignedPayload stands for the digest of a body that is not hashed before it is
	// sent. TLS protects it on its way, its digest whoever reads it.
	unsignedPayload = "UNSIGNED-PAYLOAD"
)

// Credentials are who asks.
type Credentials struct {
	AccessKeyID, SecretAccessKey string
	SessionToken                 string // "" for lasting keys
}

// signer signs requests as Signature Version 4 demands.
type signer struct {
	Credentials
	region, service string
}

// sign adds the headers of a signature. payload is the SHA-256 of the body in hex, or
// unsignedPayload. Every header that the request has by now is signed.
func (s signer) sign(req *http.Request, payload string, now time.Time) {
	now = now.UTC()
	req.Header.Set("X-Amz-Date", now.Format(timeFormat))
	if s.service == "s3" {
		req.Header.Set("X-Amz-Content-Sha256", payload)
	}
	if s.SessionToken != "" {
		req.Header.Set("X-Amz-Security-Token", s.SessionToken)
	}
	names, headers := canonicalHeaders(req)
	path := req.URL.EscapedPath() // as it is: other services than S3 want it encoded twice
	if path == "" {
		path = "/"
	}
	canonical := strings.Join([]string{req.Method, path, canonicalQuery(req.URL.Query()), headers, names, payload}, "\n")
	scope := strings.Join([]string{now.Format("20060102"), s.region, s.service, "aws4_request"}, "/")
	text := strings.Join([]string{algorithm, now.Format(timeFormat), scope, hexSHA256(canonical)}, "\n")
	key := []byte("AWS4" + s.SecretAccessKey)
	for part := range strings.SplitSeq(scope, "/") {
		key = mac(key, part)
	}
	req.Header.Set("Authorization", algorithm+" Credential="+s.AccessKeyID+"/"+scope+
		", SignedHeaders="+names+", Signature="+hex.EncodeToString(mac(key, text)))
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func hexSHA256(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// canonicalHeaders are the names, in lower case and sorted, and the lines.
func canonicalHeaders(req *http.Request) (names, lines string) {
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	values := map[string]string{"host": host}
	for name, list := range req.Header {
		var clean []string
		for _, v := range list {
			clean = append(clean, strings.Join(strings.Fields(v), " "))
		}
		values[strings.ToLower(name)] = strings.Join(clean, ",")
	}
	var sorted []string
	for name := range values {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	var b strings.Builder
	for _, name := range sorted {
		b.WriteString(name + ":" + values[name] + "\n")
	}
	return strings.Join(sorted, ";"), b.String()
}

func canonicalQuery(q url.Values) string {
	var pairs []string
	for name, values := range q {
		for _, v := range values {
			pairs = append(pairs, escape(name, false)+"="+escape(v, false))
		}
	}
	slices.Sort(pairs)
	return strings.Join(pairs, "&")
}

// escape encodes every byte but the unreserved ones, and slashes where they divide.
func escape(s string, slashes bool) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~", c) >= 0, slashes && c == '/':
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return b.String()
}
