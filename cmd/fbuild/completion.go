package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/dockerfile"
)

// words are the values of a flag, each with what a shell shows beside it.
type words []string

func (w words) complete(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return w, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

func word(name, about string) string { return cobra.CompletionWithDesc(name, about) }

// complete tells the shell what a build's flags and argument may be.
func (f *buildFlags) complete(cmd *cobra.Command) {
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	fixed := map[string]words{
		"progress":  {word("auto", "tty on a terminal, else plain"), word("plain", "lines for a log"), word("tty", "a live view"), word("quiet", "only what failed"), word("rawjson", "events for another program"), word("none", "nothing")},
		"trace":     {word(build.TraceOn, "a step that looked at nothing that changed is used again"), word(build.TraceStage, "on the same base image only"), word(build.TraceOff, "never")},
		"recorder":  {word(build.RecorderAuto, "the first that this host can do"), word(build.RecorderFUSE, "a file system in user space"), word(build.RecorderOverlay, "overlayfs on directories that are made once"), word(build.RecorderWalk, "directories, compared before and after")},
		"isolation": {word("auto", "the first that this host can do"), word("namespaces", "as a container"), word("chroot", "where no namespaces are allowed")},
		"network":   {word("default", "the host's"), word("host", "the host's"), word("none", "loopback only")},
		"exit-code": {word("build", "1 for every failed build"), word("run", "the status of the command that failed")},
		"call":      {word("build", "build the image"), word("check", "check the Dockerfile"), word("targets", "list the stages")},
		"platform":  {"linux/" + runtime.GOARCH, word("local", "this host's")},
		"ssh":       {word("default", "the agent of $SSH_AUTH_SOCK")},
	}
	for name, w := range fixed {
		register(cmd, name, w.complete)
	}
	for _, name := range []string{"tag", "build-arg", "label", "annotation", "add-host", "insecure", "registry-mirror", "shm-size"} {
		register(cmd, name, cobra.NoFileCompletions)
	}
	for _, name := range []string{"target", "no-cache-filter"} {
		register(cmd, name, f.completeStage)
	}
	register(cmd, "output", completeOutput)
	register(cmd, "secret", completeSecret)
	register(cmd, "ulimit", completeUlimit)
}

// register cannot fail but for a flag that does not exist, which the test of
// completions would show.
func register(cmd *cobra.Command, name string, fn cobra.CompletionFunc) {
	_ = cmd.RegisterFlagCompletionFunc(name, fn) // as above
}

// completeOutput completes -o key by key.
func completeOutput(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	const open = cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	i := strings.LastIndexByte(typed, ',')
	if i < 0 {
		var list []string
		for _, t := range []build.OutputType{build.OutputDocker, build.OutputOCI, build.OutputRegistry, build.OutputImage, build.OutputTar, build.OutputLocal, build.OutputCacheOnly} {
			list = append(list, "type="+string(t))
		}
		return list, open
	}
	if strings.HasPrefix(typed[i+1:], "dest=") {
		return nil, cobra.ShellCompDirectiveDefault
	}
	var list []string
	for _, key := range []string{"dest=", "name=", "tar=false", "rewrite-timestamp=true", "oci-mediatypes=false", "annotation."} {
		list = append(list, typed[:i+1]+key)
	}
	return list, open
}

func completeSecret(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	const open = cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	i := strings.LastIndexByte(typed, ',')
	if i < 0 {
		return []string{"id="}, open
	}
	return []string{typed[:i+1] + "src=", typed[:i+1] + "env="}, open
}

func completeUlimit(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var list []string
	for name := range ulimits {
		list = append(list, name+"=")
	}
	return list, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}

// completeStage lists the stages of the Dockerfile that the line names so far, or
// of the one in the current directory.
func (f *buildFlags) completeStage(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	name := f.file
	if name == "" {
		dir := "."
		if len(args) > 0 {
			dir = args[0]
		}
		name = filepath.Join(dir, "Dockerfile")
	}
	st, err := os.Stat(name)
	if err != nil || !st.Mode().IsRegular() || st.Size() > dockerfile.MaxSize {
		return nil, none
	}
	src, err := os.ReadFile(name)
	if err != nil {
		return nil, none
	}
	file, err := dockerfile.Parse(name, src, dockerfile.Options{})
	if err != nil {
		return nil, none
	}
	var list []string
	for _, s := range file.Stages {
		if s.Name != "" {
			list = append(list, word(s.Name, s.Original))
		}
	}
	return list, none | cobra.ShellCompDirectiveKeepOrder
}
