package main

import (
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/progress"
)

// stopTime is how long fbuild waits to be stopped by its own signal: pid 1 of a
// container never is.
const stopTime = time.Second

// onStop lets Ctrl-Z stop fbuild with the terminal in order, and draws the view
// anew when it goes on. What a RUN does goes on until its output is no longer
// taken.
func onStop(d *progress.Display) (end func()) {
	if signal.Ignored(unix.SIGTSTP) {
		return func() {}
	}
	stop, goOn := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTSTP)
	signal.Notify(goOn, unix.SIGCONT)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-goOn: // of a stop that was not ours
				d.Suspend()()
				continue
			case <-stop:
			}
			resume := d.Suspend()
			_ = unix.Kill(unix.Getpid(), unix.SIGSTOP) // we may always signal ourselves
			select {
			case <-goOn:
			case <-time.After(stopTime):
			}
			resume()
		}
	}()
	return func() {
		signal.Stop(stop)
		signal.Stop(goOn)
		close(done)
		<-ended
	}
}
