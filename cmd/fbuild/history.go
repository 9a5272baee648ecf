package main

import (
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/image"
)

// historyRow is one step of an image, with docker's names for --format.
type historyRow struct {
	ID, CreatedSince, CreatedAt, CreatedBy, Size, Comment string
}

var historyHead = historyRow{
	ID: "IMAGE", CreatedSince: "CREATED", CreatedAt: "CREATED AT", CreatedBy: "CREATED BY", Size: "SIZE", Comment: "COMMENT",
}

// historyShown says how a history is printed.
type historyShown struct {
	quiet, whole, human bool
	format              string
}

// maxCreatedBy is where docker cuts a command.
const maxCreatedBy = 45

func (a *app) historyCommand() *cobra.Command {
	var show historyShown
	var platform string
	cmd := &cobra.Command{
		Use: "history IMAGE", Short: "Show the steps that an image of the store was made of",
		Long: "Show the steps that an image of the store was made of, the newest first, as docker history does. SIZE is that of the compressed layers.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("%s needs an image", cmd.CommandPath())
			}
			if platform != "" {
				return &hintError{usagef("--platform is not supported here"), "of an image for several platforms this host's is shown; fbuild pull --platform fetches another by itself"}
			}
			return a.withStore(cmd.Context(), func(s *cache.Store) error {
				img, err := findImage(cmd.Context(), s, args[0])
				if err != nil {
					return err
				}
				return show.write(a.stdout, show.rows(img))
			})
		},
	}
	cmd.Flags().BoolVarP(&show.quiet, "quiet", "q", false, "only IDs")
	cmd.Flags().BoolVar(&show.whole, "no-trunc", false, "whole IDs and commands")
	cmd.Flags().BoolVarP(&show.human, "human", "H", true, "sizes and times in words")
	cmd.Flags().StringVar(&show.format, "format", "", "table, json, or a Go template over .ID .CreatedSince .CreatedAt .CreatedBy .Size .Comment, with \"table \" before it in columns")
	cmd.Flags().StringVar(&platform, "platform", "", "refused")
	cmd.Flags().Lookup("platform").Hidden = true
	return cmd
}

// rows are the steps, the newest first. Only the newest has an image of its own.
func (o *historyShown) rows(img *image.Image) []historyRow {
	var rows []historyRow
	at := 0
	for _, h := range img.Config.History {
		var size int64
		if !h.EmptyLayer && at < len(img.Manifest.Layers) {
			size = img.Manifest.Layers[at].Size
			at++
		}
		row := historyRow{ID: "<missing>", CreatedSince: "N/A", CreatedAt: "N/A", Comment: printable(h.Comment)}
		row.CreatedBy = printable(strings.ReplaceAll(h.CreatedBy, "\t", " "))
		if text := []rune(row.CreatedBy); !o.whole && len(text) > maxCreatedBy {
			row.CreatedBy = string(text[:maxCreatedBy-1]) + "…"
		}
		if t := h.Created.Time; !t.IsZero() {
			row.CreatedAt = t.Local().Format(time.RFC3339)
			row.CreatedSince = units.HumanDuration(time.Since(t)) + " ago"
		}
		row.Size = units.HumanSizeWithPrecision(float64(size), 3)
		if !o.human {
			row.CreatedSince, row.Size = row.CreatedAt, strconv.FormatInt(size, 10)
		}
		rows = append([]historyRow{row}, rows...)
	}
	if len(rows) > 0 {
		rows[0].ID = img.ID()
		if !o.whole {
			rows[0].ID = strings.TrimPrefix(rows[0].ID, "sha256:")[:12]
		}
	}
	return rows
}

func (o *historyShown) write(w io.Writer, rows []historyRow) error {
	format, table := strings.CutPrefix(o.format, "table")
	switch {
	case o.quiet:
		return formatEach(w, "{{.ID}}", rows)
	case o.format == "json":
		return formatEach(w, "{{json .}}", rows)
	case o.format == "" || table && format == "":
		format = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
	case !table:
		return formatEach(w, o.format, rows)
	}
	tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0) // as docker's
	head := historyHead
	if !o.human {
		head.CreatedSince = historyHead.CreatedAt
	}
	if err := formatEach(tw, strings.TrimSpace(format), append([]historyRow{head}, rows...)); err != nil {
		return err
	}
	return tw.Flush()
}
