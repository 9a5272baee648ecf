package dockerfile

import "testing"

// LAWS 6: the comment that turns the trace of a RUN off, and where it stands.
func TestExact(t *testing.T) {
	for _, tt := range []struct {
		name, src string
		want      bool
	}{
		{"none", "FROM a\nRUN x\n", false},
		{"directly above", "FROM a\n# fbuild: cache=exact\nRUN x\n", true},
		{"spaces", "FROM a\n  #   fbuild:  cache=exact  \nRUN x\n", true},
		{"no spaces", "FROM a\n#fbuild:cache=exact\nRUN x\n", true},
		{"among other comments", "FROM a\n# why\n# fbuild: cache=exact\n# check=skip=all\nRUN x\n", true},
		{"above another instruction", "FROM a\n# fbuild: cache=exact\nENV A=1\nRUN x\n", false},
		{"of an earlier RUN", "FROM a\n# fbuild: cache=exact\nRUN y\nRUN x\n", false},
		{"behind the instruction", "FROM a\nRUN x\n# fbuild: cache=exact\n", false},
		{"inside the instruction", "FROM a\nRUN x \\\n# fbuild: cache=exact\n  y\n", false},
		{"in a heredoc", "FROM a\nRUN <<E\n# fbuild: cache=exact\nE\n", false},
		{"another word", "FROM a\n# fbuild: cache=exactly\nRUN x\n", false},
		{"in the middle of a comment", "FROM a\n# see fbuild: cache=exact\nRUN x\n", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse("Dockerfile", []byte(tt.src), Options{})
			if err != nil {
				t.Fatal(err)
			}
			list := f.Stages[0].Instructions
			r, ok := list[len(list)-1].(*Run)
			if !ok {
				t.Fatalf("last instruction: got %T, want a RUN", list[len(list)-1])
			}
			if r.Exact != tt.want {
				t.Errorf("exact: got %v, want %v", r.Exact, tt.want)
			}
		})
	}
}
