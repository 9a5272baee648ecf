package build

import (
	"bytes"
	"io"
	"slices"
)

const (
	// minMasked is how long a secret must be to be looked for: shorter ones are words
	// that stand in any output.
	minMasked = 6
	masked    = "***"
)

// masker replaces secrets in what passes through it, also where a secret comes in
// several writes. It holds back no more than what may be the start of one.
type masker struct {
	to      io.Writer
	secrets [][]byte // the longest first
	held    []byte
}

// newMasker masks whole secrets, and each line of one that has several.
func newMasker(to io.Writer, secrets [][]byte) *masker {
	m := &masker{to: to}
	for _, s := range secrets {
		for _, word := range append(bytes.Split(s, []byte("\n")), s) {
			if word = bytes.TrimSpace(word); len(word) >= minMasked && !slices.ContainsFunc(m.secrets, func(o []byte) bool { return bytes.Equal(o, word) }) {
				m.secrets = append(m.secrets, word)
			}
		}
	}
	slices.SortStableFunc(m.secrets, func(a, b []byte) int { return len(b) - len(a) })
	return m
}

// Write passes P on, but for secrets and for an end that may become one.
func (m *masker) Write(p []byte) (int, error) {
	if len(m.secrets) == 0 {
		return m.to.Write(p)
	}
	m.held = append(m.held, p...)
	out, rest := m.replace(m.held)
	m.held = append([]byte(nil), rest...)
	if len(out) > 0 {
		if _, err := m.to.Write(out); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// flush passes on what was held back: it became no secret, but may hold a shorter
// one, as the first line of a file of several does.
func (m *masker) flush() {
	var out []byte
	for len(m.held) > 0 {
		i := slices.IndexFunc(m.secrets, func(s []byte) bool { return bytes.HasPrefix(m.held, s) })
		if i < 0 {
			out, m.held = append(out, m.held[0]), m.held[1:]
		} else {
			out, m.held = append(out, masked...), m.held[len(m.secrets[i]):]
		}
	}
	if len(out) > 0 {
		_, _ = m.to.Write(out) // as the log takes it
	}
}

// replace masks the secrets in P, and returns apart the end that may become one.
func (m *masker) replace(p []byte) (out, rest []byte) {
	for len(p) > 0 {
		first := m.maybe(p)
		if first < 0 {
			return append(out, p...), nil
		}
		out, p = append(out, p[:first]...), p[first:]
		switch n := m.match(p); {
		case n > 0:
			out, p = append(out, masked...), p[n:]
		case n < 0:
			return out, p
		default:
			out, p = append(out, p[0]), p[1:]
		}
	}
	return out, nil
}

// maybe returns where a secret may begin.
func (m *masker) maybe(p []byte) int {
	first := -1
	for _, s := range m.secrets {
		if i := bytes.IndexByte(p, s[0]); i >= 0 && (first < 0 || i < first) {
			first = i
		}
	}
	return first
}

// match returns how long the secret is that P begins with, 0 for none, or -1 where
// P is the beginning of one.
func (m *masker) match(p []byte) int {
	for _, s := range m.secrets {
		switch {
		case len(p) < len(s) && bytes.HasPrefix(s, p):
			return -1
		case bytes.HasPrefix(p, s):
			return len(s)
		}
	}
	return 0
}
