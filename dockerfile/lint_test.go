package dockerfile

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWarnings(t *testing.T) {
	for _, tt := range []struct {
		name, src string
		want      []string
	}{
		{"clean", "FROM a AS b\nRUN x\nCMD [\"x\"]\n", nil},
		{"stage name casing", "FROM a AS B\n", []string{"StageNameCasing: Stage name 'B' should be lowercase (line 1)"}},
		{"as casing", "FROM a as b\n", []string{"FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)"}},
		{"empty continuation", "FROM a\nRUN x \\\n\n  y\n", []string{"NoEmptyContinuation: Empty continuation line (line 4)"}},
		{"instruction casing", "FROM a\nrun x\nRUN y\nRun z\n", []string{
			"ConsistentInstructionCasing: Command 'run' should match the case of the command majority (uppercase) (line 2)",
			"ConsistentInstructionCasing: Command 'Run' should match the case of the command majority (uppercase) (line 4)",
		}},
		{"duplicate stage", "FROM a AS b\nFROM a AS b\n", []string{`DuplicateStageName: Duplicate stage name "b", stage names should be unique (line 2)`}},
		{"reserved stage", "FROM a AS scratch\n", []string{`ReservedStageName: Stage name should not use the same name as reserved stage "scratch" (line 1)`}},
		{"maintainer", "FROM a\nMAINTAINER x\n", []string{"MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)"}},
		{"undefined in FROM", "ARG VERSION=1\nFROM a:x$VERSIO\n", []string{"UndefinedArgInFrom: FROM argument 'VERSIO' is not declared (did you mean VERSION?) (line 2)"}},
		{"declared without value in FROM", "ARG V\nFROM a:x$V\n", nil},
		{"invalid default", "ARG V\nFROM a:$V\n", []string{"InvalidDefaultArgInFrom: Default value for ARG a:$V results in empty or invalid base image name (line 2)"}},
		{"constant platform", "FROM --platform=linux/amd64 a\n", []string{`FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value "linux/amd64" (line 1)`}},
		{"constant platform that the name tells", "FROM --platform=linux/amd64 a AS for-amd64\n", nil},
		{"redundant platform", "FROM --platform=$TARGETPLATFORM a\n", []string{"RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior (line 1)"}},
		{"undefined variable", "FROM a\nENV NAME=1\nLABEL x=$NAM y=$OTHER1\n", []string{
			"UndefinedVar: Usage of undefined variable '$NAM' (did you mean $NAME?) (line 3)",
			"UndefinedVar: Usage of undefined variable '$OTHER1' (line 3)",
		}},
		{"declared variable without value", "FROM a\nARG N\nLABEL x=$N\n", nil},
		{"variables of RUN belong to the shell", "FROM a\nRUN echo $X\n", nil},
		{"secrets", "FROM a\nARG API_TOKEN\nENV DB_PASSWORD=1 PUBLIC_KEY=2 KEYBOARD=3\n", []string{
			`SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG "API_TOKEN") (line 2)`,
			`SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV "DB_PASSWORD") (line 3)`,
		}},
		{"several commands", "FROM a\nCMD [\"x\"]\nCMD [\"y\"]\nENTRYPOINT [\"x\"]\nENTRYPOINT [\"y\"]\nHEALTHCHECK NONE\nHEALTHCHECK NONE\n", []string{
			"MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used (line 2)",
			"MultipleInstructionsDisallowed: Multiple ENTRYPOINT instructions should not be used in the same stage because only the last one will be used (line 4)",
			"MultipleInstructionsDisallowed: Multiple HEALTHCHECK instructions should not be used in the same stage because only the last one will be used (line 6)",
		}},
		{"shell form", "FROM a\nENTRYPOINT x\n", []string{"JSONArgsRecommended: JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals (line 2)"}},
		{"shell form with SHELL", "FROM a\nSHELL [\"sh\"]\nCMD x\n", nil},
		{"expose", "FROM a\nEXPOSE 80/TCP 127.0.0.1:1:2\n", []string{
			"ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:1:2' (line 2)",
			"ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase (line 2)",
		}},
		{"check skips one", "# check=skip=StageNameCasing\nFROM a AS B\nMAINTAINER x\n", []string{"MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 3)"}},
		{"check skips all", "# check=skip=all\nFROM a AS B\nLABEL x=$Y\n", nil},
		{"a directive of ours", "FROM a\n# fbuild: cache=exact\nRUN x\n", nil},
		{"a directive of ours that does not exist", "FROM a\n# fbuild: cache=never\nRUN x\n", []string{"FbuildDirective: Directive '# fbuild: cache=never' has no effect: the one that there is is cache=exact (line 3)"}},
		{"a directive of ours above others", "# fbuild: cache=exact\nFROM a\n# fbuild: cache=exact\nCOPY x /\n# fbuild: cache=exact\nONBUILD RUN x\n", []string{
			"FbuildDirective: Directive '# fbuild: cache=exact' has no effect: it stands above a RUN, not above FROM (line 2)",
			"FbuildDirective: Directive '# fbuild: cache=exact' has no effect: it stands above a RUN, not above COPY (line 4)",
			"FbuildDirective: Directive '# fbuild: cache=exact' has no effect: it stands above a RUN, not above ONBUILD (line 6)",
		}},
		{"a comment skips for its instruction", "FROM a\n# check=skip=UndefinedVar\nLABEL x=$Y\nLABEL x=$Z\n", []string{"UndefinedVar: Usage of undefined variable '$Z' (line 4)"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse("Dockerfile", []byte(tt.src), Options{BuildArgs: map[string]string{"V": "1"}})
			if err != nil {
				t.Fatal(err)
			}
			var scopes []*Scope
			for _, st := range f.Stages {
				s, _, err := evaluate(f, st, ScopeOptions{})
				if err != nil {
					t.Fatal(err)
				}
				scopes = append(scopes, s)
			}
			warnings, err := f.Report(scopes...)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, w := range warnings {
				got = append(got, w.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("warnings differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWarningsAsErrors(t *testing.T) {
	f := mustParse(t, Options{}, "# check=error=true", "FROM a", "LABEL x=$Y z=$Z", "MAINTAINER m")
	s, _, err := evaluate(f, f.Stages[0], ScopeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Report(s)
	if err == nil {
		t.Fatal("got no error")
	}
	if got, want := asParseError(t, err).Err.Error(), "lint violation found for rules: UndefinedVar, MaintainerDeprecated"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	clean := mustParse(t, Options{}, "# check=error=true", "FROM a")
	if _, err := clean.Report(); err != nil {
		t.Errorf("a clean file: got %v, want no error", err)
	}
}

func TestLines(t *testing.T) {
	f := mustParse(t, Options{}, "\uFEFFFROM a\r", "RUN b \\", "  c")
	if diff := cmp.Diff([]string{"FROM a", "RUN b \\", "  c"}, f.Lines); diff != "" {
		t.Errorf("lines differ (-want +got):\n%s", diff)
	}
	loc := f.Stages[0].Instructions[0].Location()
	if got := strings.Join(f.Lines[loc.Start-1:loc.End], "\n"); got != "RUN b \\\n  c" {
		t.Errorf("lines of the RUN: got %q", got)
	}
}
