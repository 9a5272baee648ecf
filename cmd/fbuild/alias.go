package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// dockerCommands are the longer names that docker has for its commands, so that
// `alias docker=fbuild` does in a script; --help does not show them.
func (a *app) dockerCommands() []*cobra.Command {
	var list []*cobra.Command
	for _, name := range []string{"buildx", "builder", "image"} {
		cmd := &cobra.Command{Use: name, Short: "The same as docker's commands of that name", Hidden: true}
		cmd.AddCommand(a.buildCommand())
		if name == "image" {
			cmd.AddCommand(a.imagesCommand("ls"), a.removeImageCommand("rm"), a.tagCommand(), a.inspectCommand(), a.historyCommand(),
				a.pullCommand(), a.pushCommand(), a.saveCommand(), a.loadCommand())
		} else {
			cmd.AddCommand(a.duCommand(), a.pruneCommand())
		}
		var have []string
		for _, c := range cmd.Commands() {
			have = append(have, c.Name())
		}
		cmd.Args = func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &hintError{usagef("unknown command %q for fbuild %s", args[0], name), "of docker's " + name + " commands there are " + strings.Join(have, ", ") + "; see fbuild --help"}
			}
			return nil
		}
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		list = append(list, cmd)
	}
	return list
}
