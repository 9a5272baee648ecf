package dockerfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// FuzzParse demands of any text: no panic, an end, a typed error, and the same evaluation twice.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/golden/*.dockerfile")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	for _, s := range []string{
		"FROM ${A:-${B##*/}}\nENV A=${A//a/$A} B=${A%%?} C=${A/\\//}\n", "# escape=`\nFROM a\nRUN a `\n b\n", "FROM a\nCOPY <<-'x' <<y z\n\tx\nb\ny\n",
		"FROM a AS b\nONBUILD ADD <<x y\nx\nFROM b\nEXPOSE 1-9 [::1]:80:80\nHEALTHCHECK --retries=3 CMD [\"x\"]\n", "FROM a\nCOPY --chmod=u+x,g=o --from=0 a b\n",
		"FROM a\nADD git@h:x https://h/x.git /y\nRUN --mount=type=bind x\n",
		"FROM a\nRUN <<#!/b\n#!\n#!/b\nVOLUME [\"$A\"]\nSTOPSIGNAL $\nWORKDIR ''\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		start := time.Now()
		file, err := Parse("Dockerfile", src, Options{BuildArgs: map[string]string{"A": "a/b", "HTTP_PROXY": "p"}, Contexts: []string{"ctx"}})
		if err != nil {
			var pe *ParseError
			if !errors.As(err, &pe) {
				t.Fatalf("got %T: %v, want *ParseError", err, err)
			}
			if pe.Line < 0 || pe.EndLine < pe.Line {
				t.Fatalf("got lines %d to %d: %v", pe.Line, pe.EndLine, pe)
			}
			return
		}
		if first, second := dump(file), dump(file); first != second {
			t.Fatalf("two evaluations differ:\n%s\n%s", first, second)
		}
		for _, st := range file.Stages {
			for _, need := range Needed(st) {
				if need.Index > st.Index {
					t.Fatalf("stage %d needs the later %d", st.Index, need.Index)
				}
			}
			for _, in := range st.Instructions {
				if loc := in.Location(); loc.Start < 1 || loc.End < loc.Start || loc.End > len(file.Lines) {
					t.Fatalf("%s: got location %v of %d lines", in.Original(), loc, len(file.Lines))
				}
			}
		}
		if took := time.Since(start); took > time.Minute {
			t.Fatalf("took %v", took)
		}
	})
}
