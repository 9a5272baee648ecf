package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/image"
	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

func (a *app) whyCommand() *cobra.Command {
	var format string
	var all bool
	cmd := &cobra.Command{
		Use: "why [flags] IMAGE PATH", Short: "Say which step made a file of an image, and from what",
		Long: `Say which step made a path of an image that this store built, where it stands in the
Dockerfile, and what the step looked at. IMAGE is a name, or the id that the build printed
or its beginning. Of a path that the base image brought, its layer is said.`,
		Example: `  fbuild why app /app/dist/main.js
  fbuild why sha256:12f6c2edfcbc /etc/passwd --format=json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("why needs an image and a path in it")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			return a.withStore(cmd.Context(), func(s *cache.Store) error {
				platform, err := onePlatform(nil)
				if err != nil {
					return err
				}
				name := args[0]
				switch img, err := image.Find(cmd.Context(), s, name); {
				case err == nil:
					name = img.Whole().Root().Digest.String()
				case errors.Is(err, image.ErrAmbiguous):
					return err
				}
				m, err := build.Why(cmd.Context(), s, name, args[1], platform) // which knows images without a name, too
				switch {
				case errors.Is(err, build.ErrNoImage):
					return &hintError{err, "it must be built by this store: -t gives an image a name, and fbuild explain says its id"}
				case errors.Is(err, build.ErrNoPath):
					return &hintError{err, "the path is that in the image, from its root"}
				case err != nil:
					return err
				}
				if format == "json" {
					return writeIndented(a.stdout, madeJSON(m, all))
				}
				_, err = fmt.Fprint(a.stdout, printable(madeText(m, args[0], all)))
				return err
			})
		},
		ValidArgsFunction: a.completeImage,
	}
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	cmd.Flags().BoolVarP(&all, "all", "a", false, "list everything that the step looked at")
	completeFormat(cmd)
	return cmd
}

// completeImage lists the images of the store.
func (a *app) completeImage(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var list []string
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	_ = a.withStore(cmd.Context(), func(s *cache.Store) error { // a shell shows no error
		images, err := s.Images()
		for _, i := range images {
			list = append(list, image.Familiar(i.Name))
		}
		return err
	})
	return list, cobra.ShellCompDirectiveNoFileComp
}

// madeText says where a path comes from.
func madeText(m *build.Made, name string, all bool) string {
	var b strings.Builder
	what := build.KindWord(m.Kind)
	if m.Kind == tree.File {
		what += ", " + bytesOf(m.Size)
	}
	fmt.Fprintf(&b, "/%s of %s: %s\n", m.Path, name, what)
	madeStep(&b, "made by", m.By)
	if m.By.Step != nil {
		lookedAt(&b, m.By, all)
	}
	for _, from := range m.From {
		fmt.Fprintf(&b, "  from     /%s, made by %s %s\n           line %d of %s\n", from.Path, from.Report.Label(*from.Step), from.Step.Title, from.Step.Line, from.Report.Dockerfile)
		lookedAt(&b, from, all)
	}
	for _, o := range m.Older {
		madeStep(&b, "over", o)
	}
	return b.String()
}

// madeStep is one layer and who made it.
func madeStep(b *strings.Builder, name string, m build.MadeBy) {
	layer := fmt.Sprintf("layer %d of %d, %s", m.Layer, m.Layers, shortDigest(string(m.DiffID)))
	if m.Step == nil {
		fmt.Fprintf(b, "  %-8s the base image: %s\n", name, layer)
		if m.Command != "" {
			fmt.Fprintf(b, "           %s\n", short(m.Command, 100))
		}
		return
	}
	fmt.Fprintf(b, "  %-8s %s %s\n", name, m.Report.Label(*m.Step), m.Step.Title)
	fmt.Fprintf(b, "           line %d of %s\n           %s, made %s ago\n", m.Step.Line, m.Report.Dockerfile, layer, ago(m.Step.Ran))
}

// lookedAt lists what the step that made the file looked at.
func lookedAt(b *strings.Builder, m build.MadeBy, all bool) {
	if m.Step.Keyword() != "RUN" {
		return
	}
	if m.Looked == nil {
		fmt.Fprintf(b, "  looked   no trace is kept of it\n")
		return
	}
	read := readPaths(m.Looked)
	fmt.Fprintf(b, "  looked   at %d things, and read %s:\n", len(m.Looked), counted(len(read), "file", "files"))
	list := read
	if !all {
		list = list[:min(len(list), listedLooked)]
	}
	for _, p := range list {
		fmt.Fprintf(b, "             %s\n", p)
	}
	if more := len(read) - len(list); more > 0 {
		fmt.Fprintf(b, "             and %d more (--all lists them)\n", more)
	}
}

// readPaths are the files whose bytes were read.
func readPaths(questions []trace.Question) []string {
	var out []string
	for _, q := range questions {
		if q.Kind == trace.Content {
			out = append(out, build.QuestionPath(q))
		}
	}
	return out
}

// jsonMade is the JSON of `fbuild why`.
type jsonMade struct {
	Image string       `json:"image"`
	Path  string       `json:"path"`
	Kind  string       `json:"kind"`
	Size  int64        `json:"size"`
	By    jsonMadeBy   `json:"by"`
	Over  []jsonMadeBy `json:"over,omitempty"`
	From  []jsonMadeBy `json:"from,omitempty"` // of COPY --from: where that took it
}

type jsonMadeBy struct {
	Layer       string     `json:"layer"`
	Path        string     `json:"path,omitempty"`   // in its stage
	Number      int        `json:"number,omitempty"` // of the layer in the image, from 1
	Base        bool       `json:"base"`
	Command     string     `json:"command,omitempty"` // as the image's history has it
	Dockerfile  string     `json:"dockerfile,omitempty"`
	Line        int        `json:"line,omitempty"`
	Step        string     `json:"step,omitempty"`
	Instruction string     `json:"instruction,omitempty"`
	Read        []string   `json:"read,omitempty"`
	Looked      []jsonLook `json:"looked,omitempty"` // with --all
}

func madeJSON(m *build.Made, all bool) jsonMade {
	out := jsonMade{Image: m.Image, Path: "/" + m.Path, Kind: build.KindWord(m.Kind), Size: m.Size, By: madeByJSON(m.By, all)}
	for _, o := range m.Older {
		out.Over = append(out.Over, madeByJSON(o, all))
	}
	for _, from := range m.From {
		j := madeByJSON(from, all)
		j.Path = "/" + from.Path
		out.From = append(out.From, j)
	}
	return out
}

func madeByJSON(m build.MadeBy, all bool) jsonMadeBy {
	out := jsonMadeBy{Layer: string(m.DiffID), Number: m.Layer, Base: m.Step == nil, Command: m.Command, Read: readPaths(m.Looked)}
	if m.Step != nil {
		out.Dockerfile, out.Line = filepath.Clean(m.Report.Dockerfile), m.Step.Line
		out.Step, out.Instruction = m.Report.Label(*m.Step), m.Step.Title
	}
	if all {
		for _, q := range m.Looked {
			out.Looked = append(out.Looked, jsonLook{"/" + q.Path, q.Root, q.Kind.String()})
		}
	}
	return out
}
