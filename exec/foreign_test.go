package exec

import (
	"os"
	"path/filepath"
	"testing"
)

const arm64Handler = `enabled
interpreter /usr/bin/qemu-aarch64-static
flags: POCF
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
`

func TestForeignTo(t *testing.T) {
	tests := []struct {
		name, arch, host string
		files            map[string]string // of binfmt_misc
		want             Foreign
	}{
		{"own", "amd64", "amd64", nil, Native},
		{"the older of a pair", "386", "amd64", nil, Native},
		{"not to be seen", "arm64", "amd64", nil, Unknown},
		{"nobody's", "sparc", "amd64", map[string]string{"status": "enabled\n"}, Unknown},
		{"no handler", "arm64", "amd64", map[string]string{"status": "enabled\n", "register": ""}, Unhandled},
		{"another's handler", "s390x", "amd64", map[string]string{"status": "enabled\n", "qemu": arm64Handler}, Unhandled},
		{"a handler", "arm64", "amd64", map[string]string{"status": "enabled\n", "qemu": arm64Handler}, Emulated},
		{"off", "arm64", "amd64", map[string]string{"status": "disabled\n", "qemu": arm64Handler}, Unhandled},
		{"its handler is off", "arm64", "amd64", map[string]string{"status": "enabled\n", "qemu": "disabled\n" + arm64Handler[len("enabled\n"):]}, Unhandled},
		{"without F", "arm64", "amd64", map[string]string{"status": "enabled\n", "qemu": "enabled\nflags: OC\noffset 0\nmagic 7f454c460201010000000000000000000200b700\n"}, Unfixed},
		{"nonsense", "arm64", "amd64", map[string]string{"status": "enabled\n", "qemu": "enabled\nflags: F\noffset -3\nmagic 7f\n", "b": "enabled\nflags: F\nmagic zz\n", "c": "enabled\nflags: F\nmagic 7f45\nmask 00\n"}, Unhandled},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := foreignTo(tt.arch, tt.host, dir); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestRegistration(t *testing.T) {
	tests := []struct {
		name string
		e    emulator
		want string // "" is an error
	}{
		{"little end first", emulator{"arm64", "/q"}, `:fbuild-arm64:M:0:\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/q:PCF`},
		{"big end first", emulator{"s390x", "/q"}, `:fbuild-s390x:M:0:\x7f\x45\x4c\x46\x02\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x16:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff:/q:PCF`},
		{"a colon in the path", emulator{"arm64", "/a:b"}, ""},
		{"a relative path", emulator{"arm64", "q"}, ""},
		{"an unknown architecture", emulator{"vax", "/q"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.e.registration()
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}
