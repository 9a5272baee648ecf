package fusefs

import (
	osexec "os/exec"
	"regexp"
	"strings"
	"testing"
)

// aclScripts are run on the mount and in a directory of this machine, which must show the same.
var aclScripts = []struct{ name, script string }{
	{"access", "touch f; chmod 600 f; setfacl -m u:1000:rw,g:1001:r f; show f; setfacl -x u:1000 f; show f; setfacl -b f; show f"},
	{"mask and mode", "touch f; setfacl -m u:1000:rwx f; chmod 640 f; show f; chmod g+x f; show f; setfacl -m m::r f; show f"},
	{"minimal is the mode", "touch f; setfacl -m u::rwx,g::rx,o::- f; show f; getfattr -m system -d f"},
	{"inherited", "mkdir d; setfacl -d -m u:1000:rwx,o::- d; umask 077; touch d/f; mkdir d/s; mkfifo d/p; ln -s x d/l; mkdir -m 700 d/t; show d d/f d/s d/p d/t; ls -l d | cut -c1-11"},
	{"inherited for real", "mkdir d; chmod 777 d; setfacl -d -m g:1000:rx d; setpriv --reuid 1000 --regid 1000 --clear-groups sh -c 'umask 022; echo x >d/f; mkdir d/s'; show d/f d/s"},
	{"minimal default", "mkdir d; setfacl -d -m u::rwx,g::rx,o::- d; umask 0; touch d/f; mkdir d/s; show d d/f d/s; setfacl -k d; touch d/g; show d d/g"},
	{"umask", "umask 027; touch f; mkdir d; mkfifo p; show f d p; umask 0; touch g; show g"},
	{"permission", "echo secret >f; chmod 600 f; as() { setpriv --reuid $1 --regid $1 --clear-groups sh -c \"$2\" 2>&1 || echo no; }; as 1000 'cat f'; setfacl -m u:1000:r f; as 1000 'cat f'; as 1000 'echo x >>f'; as 1001 'cat f'; chmod 600 f; as 1000 'cat f'; setfacl -m g:1001:rw f; as 1001 'echo more >>f; cat f'; setfacl -m g:1001:- f; as 1001 'cat f'"},
	{"search", "mkdir -m 700 d; echo x >d/f; as() { setpriv --reuid 1000 --regid 1000 --clear-groups sh -c \"$1\" 2>&1 || echo no; }; as 'cat d/f'; setfacl -m u:1000:x d; as 'cat d/f'; as 'ls d'; setfacl -m u:1000:rx d; as 'ls d'"},
	{"setgid", "touch f; chown 1000:2000 f; chmod 2775 f; setpriv --reuid 1000 --regid 1000 --clear-groups setfacl -m u:1001:r f; show f"},
	{"copies", "touch f; setfacl -m u:1000:rw f; mkdir d; setfacl -d -m u:7:r d; cp -a f g; cp -a d e; cp --preserve=mode f h; mv f i; ln g j; show g h i j e; tar --acls -cf t g d; mkdir x; tar --acls -C x -xf t; show x/g x/d"},
	{"chown keeps", "touch f; setfacl -m u:1000:rw f; chown 5:6 f; show f"},
	{"attributes", "mkdir d; setfacl -d -m u:1000:rwx d; setfacl -m u:1000:rx d; getfattr -m - -d d; setfattr -x system.posix_acl_default d; setfattr -x system.posix_acl_access d; show d; getfattr -m - -d d"},
}

// TestACL: POSIX ACLs are the kernel's and the file system's work together; both must do what they do elsewhere.
func TestACL(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.mount(nil)
	// -n: numbers; the sign of a mask that hides something is libacl's.
	const show = "show() { getfacl -n \"$@\"; stat -c '%n %a %u %g' \"$@\"; }\n"
	for _, c := range aclScripts {
		dir := strings.ReplaceAll(c.name, " ", "_")
		script := "mkdir " + dir + " && chmod 777 " + dir + " && cd " + dir + "\n" + show + c.script
		cmd := osexec.CommandContext(t.Context(), "sh", "-ec", script)
		cmd.Dir = t.TempDir()
		native, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s on this machine: %v\n%s", c.name, err, native)
		}
		got, err := r.try(script)
		if want := string(native); err != nil || got != want {
			t.Errorf("%s: %v, got\n%s\nwant\n%s", c.name, err, got, want)
		}
		if len(regexp.MustCompile("(?m)^[a-z]").FindAllString(got, -1)) == 0 {
			t.Errorf("%s: it shows nothing: %q", c.name, got)
		}
	}
	r.finish()
}
