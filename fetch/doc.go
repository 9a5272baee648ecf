// Package fetch brings remote sources of a build here: files over http(s), and
// trees of git repositories by way of the installed git.
package fetch
