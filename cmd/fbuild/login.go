package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/fbuild/fbuild/oci"
)

// maxPassword bounds what is read of a password.
const maxPassword = 64 << 10

// registryArg is the registry that login and logout are about.
func registryArg(cmd *cobra.Command, args []string) (string, error) {
	if len(args) > 1 {
		return "", usagef("%s takes one registry", cmd.CommandPath())
	}
	text := ""
	if len(args) > 0 {
		text = args[0]
	}
	host, err := oci.RegistryHost(text)
	if err != nil {
		return "", &usageError{err}
	}
	return host, nil
}

func (a *app) loginCommand() *cobra.Command {
	var user, password string
	var stdin bool
	var registry registryFlags
	cmd := &cobra.Command{
		Use: "login [REGISTRY]", Short: "Give a registry a name and a password, and keep them where docker does",
		RunE: func(cmd *cobra.Command, args []string) error {
			host, err := registryArg(cmd, args)
			if err != nil {
				return err
			}
			if stdin && password != "" {
				return usagef("--password and --password-stdin: use one of them")
			}
			if password != "" {
				fmt.Fprintln(a.stderr, "fbuild: warning: a password on the command line is seen by every user of this machine: use --password-stdin")
			}
			r, err := registry.remote()
			if err != nil {
				return err
			}
			defer r.Close()
			if !stdin && user == "" && password == "" {
				if user, password, err = r.Known(host); err != nil {
					return err
				}
				if user != "" {
					fmt.Fprintf(a.stderr, "Authenticating with existing credentials... [Username: %s]\n", printable(user))
				}
			}
			if user, password, err = a.credentials(os.Stdin, user, password, stdin); err != nil {
				return err
			}
			where, err := r.Login(cmd.Context(), host, user, password)
			if err != nil {
				return err
			}
			if strings.HasPrefix(where, "docker-credential-") { // of a file docker's library warns
				fmt.Fprintf(a.stderr, "fbuild: %s keeps the credentials of %s\n", where, host)
			}
			_, err = fmt.Fprintln(a.stdout, "Login Succeeded")
			return err
		},
	}
	cmd.Flags().StringVarP(&user, "username", "u", "", "the name")
	cmd.Flags().StringVarP(&password, "password", "p", "", "the password; others see it: better --password-stdin")
	cmd.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from stdin")
	registry.define(cmd.Flags())
	return cmd
}

// credentials asks for what the flags do not say.
func (a *app) credentials(in *os.File, user, password string, stdin bool) (string, string, error) {
	if stdin {
		if user == "" {
			return "", "", usagef("--password-stdin needs --username")
		}
		data, err := io.ReadAll(io.LimitReader(in, maxPassword))
		if err != nil {
			return "", "", fmt.Errorf("read password: %w", err)
		}
		if password = strings.TrimRight(string(data), "\r\n"); password == "" {
			return "", "", usagef("--password-stdin: nothing came")
		}
		return user, password, nil
	}
	if user != "" && password != "" {
		return user, password, nil
	}
	if !term.IsTerminal(int(in.Fd())) {
		return "", "", &hintError{usagef("there is no terminal to ask for the name and the password"), "use --username NAME and --password-stdin"}
	}
	if user == "" {
		fmt.Fprint(a.stderr, "Username: ")
		line, err := bufio.NewReader(in).ReadString('\n')
		if user = strings.TrimSpace(line); err != nil || user == "" {
			return "", "", usagef("a name is needed")
		}
	}
	if password == "" {
		fmt.Fprint(a.stderr, "Password: ")
		data, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(a.stderr)
		if password = string(data); err != nil || password == "" {
			return "", "", usagef("a password is needed")
		}
	}
	return user, password, nil
}

func (a *app) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use: "logout [REGISTRY]", Short: "Forget the password of a registry",
		RunE: func(cmd *cobra.Command, args []string) error {
			host, err := registryArg(cmd, args)
			if err != nil {
				return err
			}
			r := oci.NewRemote(oci.RemoteOptions{UserAgent: "fbuild/" + version})
			defer r.Close()
			known, err := r.Logout(host)
			if err != nil {
				return err
			}
			text := "Not logged in to " + host
			if known {
				text = "Removing login credentials for " + host
			}
			_, err = fmt.Fprintln(a.stdout, text)
			return err
		},
	}
}
