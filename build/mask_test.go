package build

import (
	"bytes"
	"strings"
	"testing"
)

func TestMasker(t *testing.T) {
	for _, tt := range []struct {
		name    string
		secrets []string
		in      []string
		want    string
		late    string // what comes only at the end
	}{
		{"whole", []string{"hunter2"}, []string{"a hunter2 b\n"}, "a *** b\n", ""},
		{"across writes", []string{"hunter2"}, []string{"a hun", "te", "r2 b\n"}, "a *** b\n", ""},
		{"a start that is none", []string{"hunter2"}, []string{"hunt", "ing\n"}, "hunting\n", ""},
		{"a start at the end", []string{"hunter2"}, []string{"a hunt"}, "a ", "hunt"},
		{"a start in a start", []string{"aaaaab"}, []string{"aaaaaaa", "b\n"}, "aa***\n", ""},
		{"twice", []string{"hunter2"}, []string{"hunter2hunter2"}, "******", ""},
		{"the newline of its file", []string{"hunter2\n"}, []string{"x=hunter2;\n"}, "x=***;\n", ""},
		{"lines", []string{"first line\nsecond line\nab\n"}, []string{"second line first line ab\n"}, "*** *** ab\n", ""},
		{"one of several lines, the last words", []string{"first line\nsecond line\n"}, []string{"x first line\n"}, "x ", "***\n"},
		{"a secret that begins a longer one, the last words", []string{"hunter2", "hunter22"}, []string{"hunter2"}, "", "***"},
		{"the longest wins", []string{"hunter2", "hunter22"}, []string{"hunter22\n"}, "***\n", ""},
		{"short ones are words", []string{"yes", ""}, []string{"yes, sure\n"}, "yes, sure\n", ""},
		{"bytes", []string{"\x00\xff\x01\x02\x03\x04"}, []string{"\x00\xff\x01", "\x02\x03\x04!"}, "***!", ""},
		{"none", nil, []string{"a", "b"}, "ab", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			var secrets [][]byte
			for _, s := range tt.secrets {
				secrets = append(secrets, []byte(s))
			}
			m := newMasker(&out, secrets)
			for _, w := range tt.in {
				if n, err := m.Write([]byte(w)); n != len(w) || err != nil {
					t.Errorf("write: got %d, %v, want %d", n, err, len(w))
				}
			}
			if got := out.String(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			m.flush()
			if got := out.String(); got != tt.want+tt.late {
				t.Errorf("at the end: got %q, want %q", got, tt.want+tt.late)
			}
		})
	}
}

// However the output is cut into writes, the result is the same.
func FuzzMasker(f *testing.F) {
	f.Add("a hunter2 b hunter2", uint8(3))
	f.Fuzz(func(t *testing.T, text string, step uint8) {
		secrets := [][]byte{[]byte("hunter2"), []byte("huhunter")}
		run := func(size int) string {
			var out bytes.Buffer
			m := newMasker(&out, secrets)
			for rest := text; rest != ""; rest = rest[min(size, len(rest)):] {
				if _, err := m.Write([]byte(rest[:min(size, len(rest))])); err != nil {
					t.Fatal(err)
				}
			}
			m.flush()
			return out.String()
		}
		whole := run(max(1, len(text)))
		if got := run(int(step)%8 + 1); got != whole {
			t.Errorf("in pieces: got %q, want %q", got, whole)
		}
		if strings.Contains(whole, "hunter2") && !strings.Contains(text, masked) {
			t.Errorf("%q still holds a secret", whole)
		}
	})
}
