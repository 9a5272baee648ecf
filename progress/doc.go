// Package progress turns the events of a build into what a person or a log file sees.
//
// Owns: the steps of one build as far as they are shown (names, times, the last lines of their logs) and the printers:
// plain text and the live terminal view, both in BuildKit's format, so that scripts which read docker's output go on working.
//
// Invariants: a log line that reaches the plain printer is printed, none is dropped; memory for each step is bounded
// (pendingLimit of unprinted text, a few last lines); what a step logs can neither move the cursor nor forge a line of ours:
// control sequences are removed and invalid UTF-8 is replaced before anything is stored.
//
// Lock order: drawing, then mu.
//
// Concurrency: every method may be called from any goroutine. One mutex guards all state. The plain printer writes with
// the mutex held: a slow reader of the output slows down the steps that log, which is the back-pressure that bounds
// memory. The terminal view draws from its own goroutine without the mutex. Close waits for that goroutine.
//
// Fails when: New refuses a mode that does not exist or that the output cannot show; errors of writing end the output
// silently and are returned by Close.
package progress
