// Package recordertest holds recorders to their laws: one for each kind of
// operation that a command can do to its root. Each is done by a process of its
// own in the recorder's root; the changes must be the expected ones, byte for
// byte, and a second step on the result must see exactly that tree and change
// nothing (LAWS 13, 14).
//
// The tests that use it run in a user and mount namespace of their own:
//
//	func TestMain(m *testing.M) { os.Exit(testenv.InUserNS(m, recordertest.Children())) }
package recordertest
