// Package dockerfile turns the text of a Dockerfile into typed stages and instructions, and evaluates their variables.
//
// Owns: the grammar (BuildKit's parser, wrapped), the rules of scope for ARG and ENV, the graph of stages, the words that
// the image history shows, lint. It is the only package that imports BuildKit, and no type of BuildKit leaves it.
//
// Invariants: a File never changes after Parse. Nothing in a Dockerfile is ignored: what is not supported is an
// *Unsupported with its line, reported by File.Target for the stages that the target needs. Evaluating the same stage
// twice with the same options gives the same instructions.
//
// Concurrency: a File may be read by many goroutines; a Scope belongs to one.
//
// Fails when: the text is no Dockerfile; every error is a *ParseError or a *TargetError.
package dockerfile
