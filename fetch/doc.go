// Package fetch brings remote sources of a build here: files over http(s), and
// trees of git repositories by way of the installed git.
//
// Owns: what a source's address means (BuildKit's and kaniko's spellings), the
// requests, and the environment in which git runs.
//
// Invariants:
//   - Nothing that a server or a repository says is believed about sizes, and
//     nothing that it holds is executed: git runs without hooks, templates,
//     filters, prompts or the caller's configuration, and speaks http, https,
//     ssh and git only, for submodules too.
//   - A credential stands in no argument of a command, no file and no error. It
//     goes to the host that it is for.
//   - git runs in a session of its own and ends with the context, or with this
//     process, its helpers included.
//
// Concurrency: every function may be called from any number of goroutines; a Repo
// is for one.
//
// Fails when: *Error says what was fetched, why not and, where that is known, what
// to do; ErrChecksum and ErrTooLarge are among its causes.
package fetch
