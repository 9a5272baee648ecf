package exec

// call is a system call by its numbers on amd64, i386, arm64 and arm; -1 where it does not exist.
type call struct {
	name    string
	numbers [4]int
}

// tracingCalls look into other processes.
var tracingCalls = []call{
	{"ptrace", [4]int{101, 26, 117, 26}},
	{"process_vm_readv", [4]int{310, 347, 270, 376}},
	{"process_vm_writev", [4]int{311, 348, 271, 377}},
}

// socketCalls make sockets without being the call socket: their arguments lie behind a pointer.
var socketCalls = []call{
	{"socketcall", [4]int{-1, 102, -1, 102}},
}

// refusedCalls are the calls that docker's default profile does not allow with docker's default capabilities, by their numbers on amd64, i386, arm64 and arm; -1
// where there is none. Calls that no kernel implements any more are left to the kernel.
var refusedCalls = []call{
	{"acct", [4]int{163, 51, 89, 51}},
	{"add_key", [4]int{248, 286, 217, 309}},
	{"bpf", [4]int{321, 357, 280, 386}},
	{"clock_settime", [4]int{227, 264, 112, 262}},
	{"clock_settime64", [4]int{-1, 404, -1, 404}},
	{"delete_module", [4]int{176, 129, 106, 129}},
	{"fanotify_init", [4]int{300, 338, 262, 367}},
	{"finit_module", [4]int{313, 350, 273, 379}},
	{"fsconfig", [4]int{431, 431, 431, 431}},
	{"fsmount", [4]int{432, 432, 432, 432}},
	{"fsopen", [4]int{430, 430, 430, 430}},
	{"fspick", [4]int{433, 433, 433, 433}},
	{"get_mempolicy", [4]int{239, 275, 236, 320}},
	{"init_module", [4]int{175, 128, 105, 128}},
	{"io_uring_enter", [4]int{426, 426, 426, 426}},
	{"io_uring_register", [4]int{427, 427, 427, 427}},
	{"io_uring_setup", [4]int{425, 425, 425, 425}},
	{"ioperm", [4]int{173, 101, -1, -1}},
	{"iopl", [4]int{172, 110, -1, -1}},
	{"kcmp", [4]int{312, 349, 272, 378}},
	{"kexec_file_load", [4]int{320, -1, 294, 401}},
	{"kexec_load", [4]int{246, 283, 104, 347}},
	{"keyctl", [4]int{250, 288, 219, 311}},
	{"lookup_dcookie", [4]int{212, 253, 18, 249}},
	{"lsm_get_self_attr", [4]int{459, 459, 459, 459}},
	{"lsm_list_modules", [4]int{461, 461, 461, 461}},
	{"lsm_set_self_attr", [4]int{460, 460, 460, 460}},
	{"mbind", [4]int{237, 274, 235, 319}},
	{"migrate_pages", [4]int{256, 294, 238, 400}},
	{"mount", [4]int{165, 21, 40, 21}},
	{"mount_setattr", [4]int{442, 442, 442, 442}},
	{"move_mount", [4]int{429, 429, 429, 429}},
	{"move_pages", [4]int{279, 317, 239, 344}},
	{"nice", [4]int{-1, 34, -1, 34}},
	{"oldfstat", [4]int{-1, 28, -1, -1}},
	{"oldlstat", [4]int{-1, 84, -1, -1}},
	{"oldolduname", [4]int{-1, 59, -1, -1}},
	{"oldstat", [4]int{-1, 18, -1, -1}},
	{"olduname", [4]int{-1, 109, -1, -1}},
	{"open_by_handle_at", [4]int{304, 342, 265, 371}},
	{"open_tree", [4]int{428, 428, 428, 428}},
	{"pciconfig_iobase", [4]int{-1, -1, -1, 271}},
	{"pciconfig_read", [4]int{-1, -1, -1, 272}},
	{"pciconfig_write", [4]int{-1, -1, -1, 273}},
	{"perf_event_open", [4]int{298, 336, 241, 364}},
	{"pidfd_getfd", [4]int{438, 438, 438, 438}},
	{"pivot_root", [4]int{155, 217, 41, 218}},
	{"process_madvise", [4]int{440, 440, 440, 440}},
	{"quotactl", [4]int{179, 131, 60, 131}},
	{"quotactl_fd", [4]int{443, 443, 443, 443}},
	{"readdir", [4]int{-1, 89, -1, -1}},
	{"reboot", [4]int{169, 88, 142, 88}},
	{"request_key", [4]int{249, 287, 218, 310}},
	{"set_mempolicy", [4]int{238, 276, 237, 321}},
	{"set_mempolicy_home_node", [4]int{450, 450, 450, 450}},
	{"setdomainname", [4]int{171, 121, 162, 121}},
	{"sethostname", [4]int{170, 74, 161, 74}},
	{"setns", [4]int{308, 346, 268, 375}},
	{"settimeofday", [4]int{164, 79, 170, 79}},
	{"sgetmask", [4]int{-1, 68, -1, -1}},
	{"sigaction", [4]int{-1, 67, -1, 67}},
	{"signal", [4]int{-1, 48, -1, -1}},
	{"sigpending", [4]int{-1, 73, -1, 73}},
	{"sigsuspend", [4]int{-1, 72, -1, 72}},
	{"ssetmask", [4]int{-1, 69, -1, -1}},
	{"stime", [4]int{-1, 25, -1, -1}},
	{"swapoff", [4]int{168, 115, 225, 115}},
	{"swapon", [4]int{167, 87, 224, 87}},
	{"sysfs", [4]int{139, 135, -1, 135}},
	{"syslog", [4]int{103, 103, 116, 103}},
	{"umount", [4]int{-1, 22, -1, -1}},
	{"umount2", [4]int{166, 52, 39, 52}},
	{"unshare", [4]int{272, 310, 97, 337}},
	{"uprobe", [4]int{336, -1, -1, -1}},
	{"uselib", [4]int{134, 86, -1, 86}},
	{"userfaultfd", [4]int{323, 374, 282, 388}},
	{"ustat", [4]int{136, 62, -1, 62}},
	{"vhangup", [4]int{153, 111, 58, 111}},
	{"vm86", [4]int{-1, 166, -1, -1}},
	{"vm86old", [4]int{-1, 113, -1, -1}},
}
