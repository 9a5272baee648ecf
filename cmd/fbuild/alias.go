package main

import "github.com/spf13/cobra"

// dockerCommands are the longer names that docker has for its build, so that
// `alias docker=fbuild` does in a script; --help does not show them.
func (a *app) dockerCommands() []*cobra.Command {
	var list []*cobra.Command
	for _, name := range []string{"buildx", "builder", "image"} {
		cmd := &cobra.Command{
			Use: name, Short: "Build an image, as docker " + name + " build", Hidden: true,
			Args: func(_ *cobra.Command, args []string) error {
				if len(args) > 0 {
					return &hintError{usagef("unknown command %q for fbuild %s", args[0], name), "of docker's " + name + " commands there is build alone; see fbuild --help"}
				}
				return nil
			},
			RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		}
		cmd.AddCommand(a.buildCommand())
		list = append(list, cmd)
	}
	return list
}
